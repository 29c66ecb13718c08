"""The saved state of a run, averaged weights, and the final float32 model."""

import keras
import numpy as np
import pytest

from lsmha_keras.models import CCTBackbone, CCTImageClassifier
from lsmha_keras.training.build_model import cast_to_float32
from lsmha_keras.training.checkpoint import load_state, restore_state, save_state, write_atomically
from tests.checks import assert_rounded, count_roundings

X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")


def make_model(seed, width=8):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(width),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=1),  # without a seed torch draws from elsewhere
            keras.layers.Dense(1),
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(0.05, decay_steps=40)
    model.compile(keras.optimizers.AdamW(schedule, use_ema=True), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def fit(model, epochs):
    return model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def test_a_restored_model_goes_on_where_the_saved_one_was(tmp_path):
    whole = make_model(0)
    expected = fit(whole, 5)
    # `fit` replaces the weights by their averages at its end, so save before: by a callback.
    first = make_model(0)
    path = tmp_path / "state.npz"
    save = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: save_state(path, first, {"epoch": epoch})
    )
    first.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=[save])
    second = make_model(99)
    progress, arrays = load_state(path)
    assert progress == {"epoch": 1}
    restore_state(second, arrays)
    # Dropout, Adam's moments, the schedule's step, running statistics and averages all matter here.
    np.testing.assert_allclose(fit(second, 3), expected[2:], rtol=1e-5)
    for ours, theirs in zip(second.weights, whole.weights, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs), atol=1e-5
        )


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"half of the ne")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"


def test_a_truncated_state_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    save_state(path, make_model(0), {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="state.npz is not a complete training state"):
        load_state(path)


def test_another_models_state_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    save_state(path, make_model(0), {})
    other = make_model(0, width=9)
    before = keras.ops.convert_to_numpy(other.weights[0])
    with pytest.raises(ValueError, match=r"kernel has shape \(6, 9\) here. Received: \(6, 8\)"):
        restore_state(other, load_state(path)[1])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(other.weights[0]), before)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = make_model(0)
    path = tmp_path / "state.npz"
    save_state(path, model, {"epoch": 1})
    model.weights[0].assign(np.full((6, 8), np.nan, "float32"))
    with pytest.raises(FloatingPointError, match="kernel"):
        save_state(path, model, {"epoch": 2})
    assert load_state(path)[0] == {"epoch": 1}


def test_bfloat16_survives(tmp_path):
    def make():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, dtype="bfloat16")])
        model.compile("sgd", "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    model, other = make(), make()
    save_state(tmp_path / "state.npz", model, {})
    restore_state(other, load_state(tmp_path / "state.npz")[1])
    ours, theirs = (
        keras.ops.convert_to_numpy(keras.ops.cast(m.weights[0], "float32")) for m in (model, other)
    )
    np.testing.assert_array_equal(ours, theirs)


def classifier(precision):
    keras.utils.set_random_seed(0)
    backbone = CCTBackbone(
        image_shape=(8, 8, 3),
        hidden_dim=8,
        num_layers=2,
        num_heads=4,
        mlp_dim=8,
        num_conv_blocks=1,
        dtype=precision,
    )
    model = CCTImageClassifier(backbone, num_classes=3, class_names=["a", "b", "c"])
    # Its own small ones would give logits as small as the tolerance.
    model.output_dense.set_weights([np.random.default_rng(1).normal(size=(8, 3)), np.arange(3.0)])
    return model


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_the_weights_are_the_same_and_the_logits_as_near_as_rounding_allows(precision):
    model = classifier(precision)
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    full = cast_to_float32(model)
    assert {str(v.dtype) for v in full.weights if "seed" not in v.path} == {"float32"}
    for ours, theirs in zip(full.weights, model.weights, strict=True):
        np.testing.assert_array_equal(
            np.asarray(ours, dtype="float32"), np.asarray(theirs, dtype="float32")
        )
    logits = full.predict(images, verbose=0)
    assert logits.dtype == np.float32 and logits.std() > 0.5
    found = np.asarray(model.predict(images, verbose=0), "float32")
    assert_rounded(found, logits, precision.removeprefix("mixed_"), count_roundings(model))
    assert full.class_names == ["a", "b", "c"]


def test_a_float32_model_stays_itself():
    model = classifier("float32")
    assert cast_to_float32(model) is model
