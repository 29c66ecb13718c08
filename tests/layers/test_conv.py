"""Convolution and pooling give what Keras's and NumPy's do, whatever makes them fast."""

import keras
import numpy as np
import pytest

from lsmha_keras.layers.conv import Conv2D, max_pool_relu
from tests.checks import random_tokens, to_numpy, value_and_gradients


@pytest.mark.parametrize("settings", [{"padding": "same"}, {"strides": 2}, {"dilation_rate": 2}])
@pytest.mark.parametrize("size", [(8, 6), (9, 7)])
def test_convolution_is_that_of_keras(settings, size):
    images = random_tokens(2, *size, 3)
    ours = Conv2D(4, 3, use_bias=True, bias_initializer="normal", activation="relu", **settings)
    keras_layer = keras.layers.Conv2D(
        4, 3, activation="relu", data_format="channels_last", **settings
    )
    ours.build(images.shape)
    keras_layer.build(images.shape)
    keras_layer.set_weights(ours.get_weights())
    np.testing.assert_allclose(to_numpy(ours(images)), to_numpy(keras_layer(images)), rtol=1e-5)


def test_configuration_round_trips():
    layer = Conv2D(4, (3, 5), strides=2, kernel_regularizer="l2", name="mine")
    assert "data_format" not in layer.get_config()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 2)])
def test_pooling_is_that_of_the_definition(size):
    images = random_tokens(2, *size, 3) - 0.7  # some windows are all negative
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = ((side + 1) // 2 for side in size)
    expected = np.stack(
        [
            np.stack(
                [padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(width)],
                axis=1,
            )
            for i in range(height)
        ],
        axis=1,
    )
    np.testing.assert_array_equal(to_numpy(max_pool_relu(images)), np.maximum(expected, 0))


def test_pooling_sends_the_gradient_to_the_largest_pixels():
    images = np.random.default_rng(0).permutation(2 * 6 * 4).reshape(1, 6, 4, 2) - 20.0
    images = images.astype("float32")
    expected = np.zeros_like(images)
    for i, j, channel in np.ndindex(3, 2, 2):
        rows, columns = slice(max(0, 2 * i - 1), 2 * i + 2), slice(max(0, 2 * j - 1), 2 * j + 2)
        window = images[0, rows, columns, channel]
        row, column = np.unravel_index(window.argmax(), window.shape)
        expected[0, rows.start + row, columns.start + column, channel] += window.max() > 0
    ones = np.ones((1, 3, 2, 2), "float32")
    _, (found,) = value_and_gradients(max_pool_relu, [images], ones)
    np.testing.assert_array_equal(found, expected)


def test_pooling_takes_images_of_any_size():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Lambda(max_pool_relu)(inputs))
    for size in ((8, 8), (5, 4)):
        assert model(random_tokens(1, *size, 3)).shape[1:3] == tuple(
            (side + 1) // 2 for side in size
        )
