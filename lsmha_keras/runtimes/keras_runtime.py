"""Runs a classifier or a committee on the Keras backend."""

import numpy as np

from lsmha_keras.arguments import check_takes_images
from lsmha_keras.models import load_classifier
from lsmha_keras.models.keras_workarounds import KERAS_LOCK
from lsmha_keras.runtimes.description import Description


class KerasRuntime:
    """A classifier or committee on the Keras backend, for presets without an exported file.

    Batches are padded to a power of two, so that the backend compiles only a few sizes. Calls from
    several threads run one at a time. The backend chooses its number of threads.

    Args:
        preset: as for `load_classifier`.

    Raises:
        ValueError: as `load_classifier`.

    Example:

    ```python
    KerasRuntime("lsmha-small").run(np.zeros((1, 32, 32, 3), "uint8"))
    ```
    """

    name = "keras"

    def __init__(self, preset):
        self.classifier = load_classifier(preset)
        check_takes_images(self.classifier, "`Predictor`")
        self.description = Description(
            name=str(preset),
            image_shape=tuple(self.classifier.image_shape),
            num_classes=self.classifier.num_classes,
            class_names=self.classifier.class_names,
        )

    def run(self, images):
        """Returns the outputs `(batch, classes)` of images `(batch, height, width, channels)`."""
        count = len(images)
        padding = (1 << (count - 1).bit_length()) - count
        images = np.concatenate([images, images[:1].repeat(padding, axis=0)])
        with KERAS_LOCK:
            # Preprocesses like `predict`, without its data pipeline, which takes longer than the
            # model.
            return np.asarray(self.classifier.predict_on_batch(images))[:count]

    def probabilities(self, outputs):
        """Returns probabilities `(batch, classes)`; for a committee they depend on its mode."""
        return self.classifier.probabilities(outputs)
