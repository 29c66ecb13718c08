import keras
import numpy as np
import pytest

from lsmha_keras.layers.batch_normalization import BatchNormalization
from tests.checks import check_layer, random_tokens, to_numpy


def gradients(layer, x, weights):
    """Outputs and the gradients of a weighted sum of them, by inputs and by weights."""
    x = keras.ops.convert_to_tensor(x)
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
            loss = tf.reduce_sum(outputs * weights)
        return outputs, tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
    if backend == "torch":
        x.requires_grad_(True)
        outputs = layer(x, training=True)
        (outputs * keras.ops.convert_to_tensor(weights)).sum().backward()
        return outputs, [x.grad, layer.gamma.value.grad, layer.beta.value.grad]
    import jax

    def loss(x, trainable):
        state = [v.value for v in layer.non_trainable_variables]
        outputs, _ = layer.stateless_call(trainable, state, x, training=True)
        return (outputs * weights).sum(), outputs

    trainable = [layer.gamma.value, layer.beta.value]
    by_input, outputs = jax.grad(loss, has_aux=True)(x, trainable)
    by_weights, _ = jax.grad(loss, argnums=1, has_aux=True)(x, trainable)
    layer(x, training=True)
    return outputs, [by_input, *by_weights]


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (2, 1, 1, 7)])
def test_equals_keras_in_training(shape):
    x = random_tokens(*shape) * 3 + 2
    weights = random_tokens(*shape, seed=1)
    ours, theirs = BatchNormalization(), keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    results = []
    for layer in (ours, theirs):
        layer.build(shape)
        rng = np.random.default_rng(2)
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape).astype("float32") for w in layer.weights])
        outputs, grads = gradients(layer, x, weights)
        results.append([to_numpy(value) for value in (outputs, *grads, *layer.weights)])
    for own, other in zip(*results, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)


def test_frozen_layer_uses_its_running_statistics():
    x = random_tokens(4, 5, 6, 3) + 2
    layer = BatchNormalization()
    layer.build(x.shape)
    layer.trainable = False
    np.testing.assert_allclose(to_numpy(layer(x, training=True)), x / np.sqrt(1 + 1e-5), rtol=1e-5)
    assert to_numpy(layer.moving_mean).tolist() == [0, 0, 0]


def test_half_precision_keeps_float32_statistics():
    x = random_tokens(8, 5, 6, 3) + 2
    layer = BatchNormalization(dtype="mixed_bfloat16")
    outputs = layer(keras.ops.convert_to_tensor(x), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    rounded = to_numpy(keras.ops.cast(keras.ops.convert_to_tensor(x), "bfloat16"))
    mean, variance = rounded.mean((0, 1, 2)), rounded.var((0, 1, 2))
    # Sums of float32: their error is far below bfloat16's 2^-8.
    np.testing.assert_allclose(to_numpy(layer.moving_mean), 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(to_numpy(layer.moving_variance), 0.9 + 0.1 * variance, rtol=1e-4)


def test_layer_checks():
    check_layer(BatchNormalization(), random_tokens(2, 5, 6, 4))
