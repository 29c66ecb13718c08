"""Small models and data for the tests of single-head performance."""

import keras
import numpy as np
from keras import ops

import lsmha_keras as lsmha
from lsmha_keras.shp.readouts import BlockReadouts

LABELS = 5


def small_classifier(seed=0, num_classes=LABELS, **kwargs):
    """Four blocks: a convolutional one, then three with 4 heads of width 4."""
    keras.utils.set_random_seed(seed)
    return lsmha.CCTImageClassifier.from_preset(
        "cct_4_3x2_h4_c1",
        num_classes=num_classes,
        image_shape=(16, 16, 3),
        hidden_dim=16,
        mlp_dim=16,
        tokenizer_filters=8,
        **kwargs,
    )


def pictures(count=60, labels=LABELS, seed=0):
    """Noisy images whose brightness depends on the label; labels are unbalanced."""
    rng = np.random.default_rng(seed)
    y = np.minimum(rng.integers(0, labels, count), rng.integers(0, labels, count))
    x = rng.integers(0, 60, (count, 16, 16, 3)) + 40 * y[:, None, None, None]
    return x.astype("uint8"), y


def random_readouts(blocks, inner=16, labels=LABELS, seed=0):
    """Readouts with weights large enough for the pooling to matter."""
    rng = np.random.default_rng(seed)
    shapes = [(inner, 1), (1,), (inner, labels)]
    return BlockReadouts({b: [rng.normal(size=shape) for shape in shapes] for b in blocks})


class LabelHeads(keras.Model):
    """A model of other make: its heads see the label, which is the images' grey level.

    Args:
        features: `(labels, heads, head_dim)`, what the heads give for each label.
        num_blocks: int.
    """

    def __init__(self, features, num_blocks=1):
        super().__init__()
        self.features = np.asarray(features, "float32")
        self.num_blocks = num_blocks

    def head_outputs(self, images):
        label = ops.cast(images[:, 0, 0, 0], "int32")
        heads = ops.take(ops.convert_to_tensor(self.features), label, axis=0)
        tokens = ops.stack([heads, 0 * heads, 0.5 * heads], axis=1)
        return dict.fromkeys(range(self.num_blocks), tokens)


def grey_images(labels):
    """Images that are as grey as their label."""
    return np.broadcast_to(labels[:, None, None, None], (len(labels), 4, 4, 1)).astype("uint8")
