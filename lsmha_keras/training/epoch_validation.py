"""Validation after every epoch."""

import keras

from lsmha_keras.training.evaluate import evaluate
from lsmha_keras.training.training_state import averaged_weights


class EpochValidation(keras.callbacks.Callback):
    """Adds `val_loss`, `val_accuracy` and `val_top5_accuracy` to the logs of every epoch.

    Unlike `fit(validation_data=...)` it measures the plain cross-entropy, without label smoothing,
    the averaged weights when there are such, and every image also when the last batch is not full
    on several devices. Put it before the callbacks that read the logs.

    Args:
        dataset: what `lsmha_keras.evaluate` takes.
        batch_size: int.

    Example:

    ```python
    model.fit(images, labels, callbacks=[EpochValidation((test_images, test_labels))])
    ```
    """

    def __init__(self, dataset, batch_size=256):
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size

    def on_epoch_end(self, epoch, logs=None):
        """Measures, and writes into `logs`."""
        with averaged_weights(self.model):
            figures = evaluate(self.model, self.dataset, batch_size=self.batch_size)
        if logs is not None:
            logs.update(
                {f"val_{key}": value for key, value in figures.items() if key != "num_images"}
            )
