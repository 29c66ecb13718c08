"""Checks that every layer, model, task or preset must pass; tests parametrise over them.

`check_layer` for a layer, `check_model` for a backbone, `check_task` for a classifier and
`check_preset` for a shipped preset: one call covers a new class.
"""

import importlib.util
import json

import keras
import ml_dtypes
import numpy as np
from keras import ops

# Seconds after which a wait is given up: only what hangs takes as long, on the slowest machine too.
PATIENCE = 600


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


def value_and_gradients(function, arrays, gradient):
    """`function(*arrays)` and the gradients of its product with `gradient`, on any backend."""
    tensors = [ops.convert_to_tensor(x) for x in arrays]
    gradient = ops.convert_to_tensor(gradient)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function
        def run(tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                output = function(*tensors)
            return output, tape.gradient(output, tensors, output_gradients=gradient)

        output, gradients = run(tensors)
    elif keras.config.backend() == "jax":
        import jax

        @jax.jit
        def run(tensors):
            output, backward = jax.vjp(function, *tensors)
            return output, backward(gradient)

        output, gradients = run(tensors)
    else:
        tensors = [x.clone().requires_grad_() for x in tensors]
        output = function(*tensors)
        output.backward(gradient)
        output, gradients = output.detach(), [x.grad for x in tensors]
    return to_numpy(output), [to_numpy(x) for x in gradients]


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


def check_mixed_precision(layer, x, output, dtype, half="bfloat16"):
    """Under a mixed policy the weights are float32, and the result has `dtype` and is near."""
    config = {**layer.get_config(), "dtype": f"mixed_{half}"}
    mixed = type(layer).from_config(config)
    mixed(x)
    mixed.set_weights(layer.get_weights())
    result = mixed(ops.convert_to_tensor(x))
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    assert {weight.dtype for weight in mixed.trainable_weights} <= {"float32"}
    assert_rounded(to_numpy(result), output, half, count_roundings(layer))


def check_model(model, x, directory):
    """A backbone: exact config, presets, half precision, LoRA and int8, beside what it computes.

    Args:
        model: `keras_hub.models.Backbone` with a dense layer that can be quantised.
        x: float32 array, inputs.
        directory: empty folder.
    """
    output = to_numpy(model(x))
    clone = check_config(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(to_numpy(clone(x)), output, atol=1e-6)
    model.save_to_preset(directory / "preset")
    loaded = type(model).from_preset(directory / "preset")
    np.testing.assert_allclose(to_numpy(loaded(x)), output, atol=1e-6)
    check_mixed_precision(model, x, output, "bfloat16")
    if keras.config.backend() != "jax":  # which has no float16 convolutions on CPUs
        check_mixed_precision(model, x, output, "float16", half="float16")
    clone.enable_lora(2)
    adapted = [layer for layer in clone._flatten_layers() if getattr(layer, "lora_enabled", False)]
    assert adapted and len(clone.trainable_weights) == 2 * len(adapted)  # two factors for each
    np.testing.assert_allclose(to_numpy(clone(x)), output, atol=1e-6)
    check_int8(loaded, lambda model: to_numpy(model(x)), 0.2, directory / "int8")


def check_task(model, inputs, labels, directory):
    """A classifier: config, files, training of every weight and of LoRA, int8, export.

    Args:
        model: `CCTClassifier` with class names.
        inputs: what its `fit` takes: uint8 images of the model's size, texts or series.
        labels: ints.
        directory: empty folder.
    """
    expected = model.predict(inputs, verbose=0)
    clone = type(model).from_config(model.get_config())
    assert clone.get_config() == model.get_config()
    model.save(directory / "model.keras")
    model.save_to_preset(directory / "preset")
    saved = keras.saving.load_model(directory / "model.keras")
    preset = type(model).from_preset(directory / "preset")
    for loaded, tolerance in ((saved, 1e-5), (preset, 1e-6)):
        np.testing.assert_allclose(loaded.predict(inputs, verbose=0), expected, atol=tolerance)
        assert loaded.class_names == model.class_names
        assert type(loaded.preprocessor) is type(model.preprocessor)
    if len(model.image_shape) == 3:
        check_export(preset, inputs, expected, directory / "exported")
    check_int8(preset, lambda model: model.predict(inputs, verbose=0), 0.3, directory / "int8")
    check_all_weights_train(_compiled(clone), inputs, labels)
    saved.backbone.enable_lora(2)
    check_all_weights_train(_compiled(saved), inputs, labels)


def _compiled(model):
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def check_int8(model, compute, bound, directory):
    """Quantised, a model computes nearly the same, and comes back from its preset.

    Args:
        model: KerasHub backbone or task; it is quantised.
        compute: function from such a model to an array.
        bound: float, largest change over the largest value.
        directory: folder for the preset.
    """
    before = compute(model)
    model.quantize("int8")
    after = compute(model)
    assert 0 < np.abs(after - before).max() < bound * np.abs(before).max()
    model.save_to_preset(directory)
    loaded = type(model).from_preset(directory)
    assert _count_int8(loaded) == _count_int8(model) > 0
    np.testing.assert_allclose(compute(loaded), after, atol=1e-5)


def _count_int8(model):
    layers = model._flatten_layers()
    return sum(getattr(layer, "quantization_mode", None) == "int8" for layer in layers)


def check_export(model, images, expected, directory):
    """The ONNX file gives the logits of `predict`; nothing to check where ONNX is missing."""
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
        return
    from lsmha_keras.exporting.export import export
    from lsmha_keras.runtimes.onnx_runtime import OnnxRuntime

    runtime = OnnxRuntime(export(model, "onnx", directory) / "model.onnx", num_threads=1)
    np.testing.assert_allclose(runtime.run(images), expected, atol=1e-3)


def check_preset(info):
    """A shipped preset: its golden logits, its files, its precision and its card.

    Args:
        info: `lsmha_keras.presets.PresetInfo`.
    """
    from lsmha_keras import load_classifier, presets

    golden = np.load(info.path / "golden.npz")
    model = load_classifier(info.name)
    logits = model.predict(golden["images"], verbose=0)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4, rtol=0)
    np.testing.assert_array_equal(logits.argmax(axis=1), golden["labels"])
    assert sum(path.stat().st_size for path in info.path.glob("*.weights.h5")) < 8 * 2**20
    listed = {line[66:] for line in (info.path / presets.CHECKSUMS).read_text().splitlines()}
    unlisted = {presets.CHECKSUMS, presets.CARD}
    assert listed == {path.name for path in info.path.iterdir()} - unlisted
    assert info.parameters == model.count_params()
    # One trained in half precision is measured and shipped in float32, its preprocessing too.
    names = {"config.json", "task.json", "preprocessor.json", "image_converter.json"}
    for name in sorted(names & listed):
        found = _policies(json.loads((info.path / name).read_text(encoding="utf-8")))
        assert found and set(found) == {"float32"}, name
    check_card(info, model)


def _policies(value):
    """Lists the names of all dtype policies in a config."""
    if isinstance(value, dict):
        own = [value["config"]["name"]] if value.get("class_name") == "DTypePolicy" else []
        return own + [name for inner in value.values() for name in _policies(inner)]
    return [name for inner in value for name in _policies(inner)] if type(value) is list else []


def check_card(info, model):
    """The card is the one that `lsmha zoo cards` writes from the files beside it."""
    from lsmha_keras import presets
    from lsmha_keras.text_files import read_rows
    from lsmha_keras.training.model_card import model_card
    from lsmha_keras.training.recipe import Recipe

    card = (info.path / presets.CARD).read_text(encoding="utf-8")
    assert f"| {info.accuracy:.2f}% |" in card and f"| {info.parameters:,} |" in card
    results = json.loads((info.path / "results.json").read_text())
    recipe = Recipe.from_toml(info.path / "recipe.toml")
    per_class = read_rows(info.path / "per_class.csv", ["accuracy"])
    shp = read_rows(presets.zoo_dir() / f"results/shp_{info.name}/blocks.csv", ["snr"])
    assert card == model_card(recipe, model, results, per_class, shp), "run `lsmha zoo cards --all`"
    # The accuracy of all is the mean over the classes, weighted by their images.
    counted = [row for row in per_class if row["images"] != "0"]
    images = sum(int(row["images"]) for row in counted)
    right = sum(int(row["images"]) * float(row["accuracy"]) for row in counted)
    assert images == results["num_images"]
    np.testing.assert_allclose(right / images, results["accuracy"], atol=2e-4, rtol=0)
    bins = read_rows(info.path / "calibration.csv", ["images", "confidence", "accuracy"])
    gaps = [
        int(row["images"]) * abs(float(row["accuracy"]) - float(row["confidence"]))
        for row in bins
        if row["images"] != "0"
    ]
    np.testing.assert_allclose(sum(gaps) / images, results["ece"], atol=1e-5, rtol=0)


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
