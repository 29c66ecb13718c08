"""Checks that every layer, model or preset must pass; tests parametrise over them."""

import keras
import ml_dtypes
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


def assert_rounded(found, expected, dtype, roundings, magnitude=None):
    """`found` is as near to `expected` as so many roundings to `dtype` allow.

    Each moves a number by at most half a unit in its last place: 2^-8 of it in bfloat16, 2^-11 in
    float16.

    Args:
        found: array.
        expected: array of the same shape, in higher precision.
        dtype: str, the dtype computed in.
        roundings: float, how often tensors are rounded one after the other on the way to the
            result.
        magnitude: the size of what is rounded, an array that broadcasts to the result: for a sum
            whose terms cancel, the sum of their absolute values (Higham, Accuracy and Stability of
            Numerical Algorithms, section 3.3). Defaults to the largest absolute value expected.
    """
    assert np.shape(found) == np.shape(expected)
    magnitude = np.abs(expected).max() if magnitude is None else magnitude
    unit = float(ml_dtypes.finfo(dtype).eps) / 2
    # Numbers below the last place of the largest may have underflowed.
    bound = roundings * unit * np.maximum(magnitude, unit * np.max(magnitude))
    error = np.abs(found - expected)
    assert (error <= bound).all(), f"errors up to {error.max()}, bounds up to {np.max(bound)}"


def count_roundings(layer):
    """How often a layer or model rounds: its input and output, each kernel and its product.

    Normalisation keeps the relative size of errors, so those of the layers add up.
    """
    return 2 + 2 * sum(len(weight.shape) > 1 for weight in layer.weights)


def check_config(obj):
    """`get_config` holds exactly the arguments of `__init__`, and rebuilds an equal object."""
    import inspect

    config = obj.get_config()
    own, *inherited = (
        set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}
        for cls in type(obj).__mro__
    )
    inherited = set().union({"name", "trainable", "dtype"}, *inherited)
    assert own <= set(config), own - set(config)
    assert set(config) - own <= inherited, set(config) - own
    clone = type(obj).from_config(config)
    assert clone.get_config() == config
    return clone


def check_layer(layer, x, tolerance=1e-6, half_dtype="bfloat16", **call_arguments):
    """A layer: exact config, `.keras` round trip, mixed precision, one gradient per weight."""
    output = to_numpy(layer(x, **call_arguments))
    assert output.dtype == np.float32 and np.isfinite(output).all()
    assert tuple(layer.compute_output_shape(x.shape)) == output.shape
    clone = check_config(layer)
    clone(x, **call_arguments)
    clone.set_weights(layer.get_weights())
    np.testing.assert_allclose(to_numpy(clone(x, **call_arguments)), output, atol=tolerance)
    check_compiled(layer, x, output)
    check_mixed_precision(layer, x, output, half_dtype)


def check_compiled(layer, x, output):
    """The layer gives the same inside a compiled functional model."""
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, layer(inputs))
    model.compile(jit_compile=keras.config.backend() != "torch")
    np.testing.assert_allclose(model.predict(x, verbose=0), output, atol=2e-5)


def check_mixed_precision(layer, x, output, dtype):
    """Under mixed_bfloat16 the result has that `dtype` and is near the float32 one."""
    config = {**layer.get_config(), "dtype": "mixed_bfloat16"}
    half = type(layer).from_config(config)
    half(x)
    half.set_weights(layer.get_weights())
    result = half(ops.convert_to_tensor(x))
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    assert_rounded(to_numpy(result), output, "bfloat16", count_roundings(layer))


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
