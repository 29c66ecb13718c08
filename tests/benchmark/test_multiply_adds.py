"""Multiply-adds against published figures and figures computed by hand."""

import keras
import numpy as np
import pytest

from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.layers import conv_block
from lsmha_keras.models import CCTImageClassifier


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("cct_2_3x2", 0.0353),
        ("cct_4_3x2", 0.0500),
        ("cct_6_3x1", 1.0138),
        ("cct_7_3x1", 1.1816),
        ("cct_7_3x2", 0.2891),
    ],
)
def test_reference_architectures(name, giga):
    model = CCTImageClassifier.from_preset(name, num_classes=10)
    assert round(count_multiply_adds(model) / 1e9, 4) == giga


@pytest.mark.parametrize(
    ("design", "trained", "fused"),
    [
        # Token by token, of the kernels: 3 x 3 x 8 x 8; 3 x 3 x 8 + 8 x 8; 8 x 16 twice and
        # 3 x 3 x 16; and a 1 x 1 convolution beside the first while training.
        ("full", 576, 576),
        ("separable", 136, 136),
        ("inverted_bottleneck", 400, 400),
        ("reparameterized", 640, 576),
    ],
)
def test_conv_blocks(design, trained, fused):
    assert design in conv_block.DESIGNS
    for is_fused, of_a_token in ((False, trained), (True, fused)):
        block = conv_block.ConvBlock((4, 4), design=design, fused=is_fused)
        model = keras.Sequential([keras.Input((16, 8)), block])
        assert count_multiply_adds(model) == 16 * of_a_token


# On JAX Keras's layer does not run when its values are not as wide as its keys.
VALUE_DIM = 4 if keras.config.backend() == "jax" else 5


def _attention():
    x = keras.Input((6, 8))
    y = keras.layers.MultiHeadAttention(3, 4, value_dim=VALUE_DIM)(x, x)
    return keras.Model(x, y)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        # Projections of 6 tokens to 3 heads, and back; 3 x 6 x 6 pairs.
        (
            _attention,
            6 * 8 * 3 * (4 + 4 + VALUE_DIM) + 6 * 3 * VALUE_DIM * 8 + 3 * 36 * (4 + VALUE_DIM),
        ),
        (lambda: keras.layers.Conv2D(6, 3, strides=2, groups=2), 3 * 2 * 9 * 2 * 6),
        (lambda: keras.layers.DepthwiseConv2D(3, depth_multiplier=2), 5 * 4 * 9 * 8),
        (lambda: keras.layers.SeparableConv2D(5, 3, padding="same"), 7 * 6 * (9 * 4 + 4 * 5)),
        (lambda: keras.layers.Conv2DTranspose(5, 2, strides=2), 7 * 6 * 4 * 4 * 5),
        (lambda: keras.layers.Dense(5), 7 * 6 * 4 * 5),
        (lambda: keras.layers.EinsumDense("abcd,de->abce", (None, 6, 3)), 7 * 6 * 4 * 3),
        (lambda: keras.layers.BatchNormalization(), 0),
    ],
)
def test_layers_by_hand(make, expected):
    model = make()
    if not isinstance(model, keras.Model):
        model = keras.Sequential([keras.Input((7, 6, 4)), model])
    assert count_multiply_adds(model) == expected


def test_only_layers_of_the_model_are_recorded_and_only_meanwhile():
    other = keras.layers.Dense(5)

    class CallsAnother(keras.layers.Layer):
        def call(self, inputs):
            other(inputs)
            return inputs

    layers = [CallsAnother(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((7,)), *layers])
    for _ in range(2):
        assert count_multiply_adds(model) == 7 * 2
    assert not any("call" in vars(layer) for layer in (model, other, *layers))


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_quantised_layers_count_as_they_did():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.ReLU()])
    model.quantize("int8")
    assert count_multiply_adds(model) == 8 * 4


class Unknown(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 3))
        self.scale = self.add_weight(name="scale", shape=(3,))

    def call(self, x):
        return keras.ops.matmul(x, self.kernel) * self.scale


def test_an_unknown_matrix_is_named_and_calls_are_left_as_they_were():
    call = keras.layers.Layer.__call__
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), Unknown(name="odd")])
    with pytest.raises(ValueError, match=r"Received: weights \S*odd/kernel$"):
        count_multiply_adds(model)
    assert keras.layers.Layer.__call__ is call


def test_a_subclass_counts_for_the_shape_it_was_built_with():
    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, x):
            return self.dense(self.dense(x))

    model = Twice()
    with pytest.raises(ValueError, match=r"must be built.*Received: model 'twice' of"):
        count_multiply_adds(model)
    model(np.zeros((2, 4), "float32"))
    assert count_multiply_adds(model) == 2 * 4 * 4
