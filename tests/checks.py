"""Checks that every layer, model or preset must pass; tests parametrise over them."""

import keras
import numpy as np
from keras import ops


def to_numpy(value):
    """Returns a float32 NumPy array of any tensor."""
    return np.asarray(ops.convert_to_numpy(ops.cast(value, "float32")))


def random_tokens(*shape, seed=0):
    """Returns standard normal float32 values."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def random_images(*shape, seed=0):
    """Returns uniform uint8 images."""
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype="uint8")


def check_config(obj):
    """`get_config` holds exactly the arguments of `__init__`, and rebuilds an equal object."""
    import inspect

    config = obj.get_config()
    own = set(inspect.signature(type(obj).__init__).parameters) - {"self", "kwargs"}
    inherited = {"name", "trainable", "dtype"}
    assert own <= set(config), own - set(config)
    assert set(config) - own <= inherited, set(config) - own
    clone = type(obj).from_config(config)
    assert clone.get_config() == config
    return clone


def check_layer(layer, x, tolerance=1e-6, **call_arguments):
    """A layer: exact config, `.keras` round trip, mixed precision, one gradient per weight."""
    output = to_numpy(layer(x, **call_arguments))
    assert output.dtype == np.float32 and np.isfinite(output).all()
    assert tuple(layer.compute_output_shape(x.shape)) == output.shape
    clone = check_config(layer)
    clone(x, **call_arguments)
    clone.set_weights(layer.get_weights())
    np.testing.assert_allclose(to_numpy(clone(x, **call_arguments)), output, atol=tolerance)
    check_compiled(layer, x, output)
    check_mixed_precision(layer, x, output)


def check_compiled(layer, x, output):
    """The layer gives the same inside a compiled functional model."""
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, layer(inputs))
    model.compile(jit_compile=keras.config.backend() != "torch")
    np.testing.assert_allclose(model.predict(x, verbose=0), output, atol=2e-5)


def check_mixed_precision(layer, x, output):
    """Under mixed_bfloat16 the result has that dtype and is near the float32 one."""
    config = {**layer.get_config(), "dtype": "mixed_bfloat16"}
    half = type(layer).from_config(config)
    half(x)
    half.set_weights(layer.get_weights())
    result = half(ops.convert_to_tensor(x))
    assert keras.backend.standardize_dtype(result.dtype) == "bfloat16"
    scale = max(1.0, float(np.abs(output).max()))
    np.testing.assert_allclose(to_numpy(result), output, atol=0.06 * scale)


def check_all_weights_train(model, images, labels):
    """Two steps of training change every trainable weight and give a finite loss."""
    before = [to_numpy(w) for w in model.trainable_weights]
    history = model.fit(images, labels, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    after = [to_numpy(w) for w in model.trainable_weights]
    unchanged = [
        w.path
        for w, old, new in zip(model.trainable_weights, before, after, strict=True)
        if np.array_equal(old, new)
    ]
    assert not unchanged, unchanged
