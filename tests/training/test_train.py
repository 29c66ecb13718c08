import hashlib
import importlib.util
import json

import keras
import numpy as np
import pytest

from lsmha_keras.data.open_dataset import open_dataset_for_model
from lsmha_keras.models import CCTImageClassifier
from lsmha_keras.training.build_model import build_model
from lsmha_keras.training.checkpoint import load_state
from lsmha_keras.training.evaluate import evaluate
from lsmha_keras.training.fit_recipe import tensorboard
from lsmha_keras.training.recipe import load_recipe
from lsmha_keras.training.run_output import golden_images
from lsmha_keras.training.train import train
from tests.training.tiny import SIDE, recipe_dict


def test_it_learns(result):
    assert result.results["accuracy"] > 0.7  # a quarter by chance
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]


def test_output_directory(result):
    names = {path.name for path in result.output_dir.iterdir()}
    expected = {".lsmha", "recipe.toml", "history.csv", "checkpoints", "preset"}
    assert names - {"tensorboard"} == expected
    assert [path.name for path in (result.output_dir / "checkpoints").iterdir()] == ["last.npz"]
    assert {
        "config.json",
        "task.weights.h5",
        "recipe.toml",
        "history.csv",
        "results.json",
        "golden.npz",
        "README.md",
        "per_class.csv",
        "calibration.csv",
        "checksums.sha256",
    } <= {path.name for path in result.preset_dir.iterdir()}


def test_checksums_cover_everything(result):
    listed = dict(
        reversed(line.split("  "))
        for line in (result.preset_dir / "checksums.sha256").read_text().splitlines()
    )
    files = {p.name for p in result.preset_dir.iterdir()} - {"checksums.sha256", "README.md"}
    assert set(listed) == files
    for name in files:
        content = (result.preset_dir / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == listed[name]


def test_the_preset_gives_the_recorded_figures(result, data):
    saved = json.loads((result.preset_dir / "results.json").read_text())
    assert saved == result.results
    figures = evaluate(result.preset_dir, data)
    assert figures == pytest.approx({key: saved[key] for key in figures}, rel=1e-4)
    golden = np.load(result.preset_dir / "golden.npz")
    model = CCTImageClassifier.from_preset(str(result.preset_dir))
    logits = model.predict(golden["images"], verbose=0)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)
    np.testing.assert_array_equal(golden["labels"], logits.argmax(axis=1))
    assert golden["images"].std() > 50 and len(np.unique(golden["logits"], axis=0)) == 8
    assert saved["parameters"] == sum(np.prod(w.shape, dtype=int) for w in model.weights)
    assert golden["logits"].dtype == np.float32
    assert saved["backend"] == keras.backend.backend()
    assert saved["num_images"] == 40
    assert saved["train_seconds"] > 0


def test_card(result):
    card = (result.preset_dir / "README.md").read_text()
    for text in (
        f"{result.results['accuracy']:.2%}",
        f"{result.results['parameters']:,}",
        result.results["hardware"],
        "license: apache-2.0",
        "lsmha train recipe.toml",
        "cosine to 0",
        "blocks: 1 convolutional, 1 transformer; heads: 4; width of the tokens: 16",
        "label smoothing 0.1",
        "from_preset('tiny')",
        f"| expected calibration error | {100 * result.results['ece']:.1f} points |",
        "| class | images | accuracy | precision | most confused with |",
        'name: "tiny"',
    ):
        assert text in card, text
    assert "uoft-cs" not in card  # no dataset of the Hub, and no other preset to compare with
    assert "## Which preset to choose" not in card


def test_averaged_weights_are_what_is_validated_and_saved(result, data):
    """The last epoch validated the weights that are in the preset."""
    with np.load(data) as arrays:
        images, labels = arrays["x_test"][:20], arrays["y_test"][:20]
    figures = evaluate(result.preset_dir, (images, labels))
    last = result.history[-1]
    assert last["val_loss"] == pytest.approx(figures["loss"], rel=1e-4)
    assert last["val_accuracy"] == pytest.approx(figures["accuracy"])
    # The averages lag behind the weights, so the state holds two different sets.
    _, arrays = load_state(result.output_dir / "checkpoints" / "last.npz")
    raw = arrays["model/0"]
    saved = keras.ops.convert_to_numpy(result.model.variables[0])
    assert raw.shape == saved.shape and np.abs(raw - saved).max() > 1e-4


def test_precision_mixing_and_another_optimizer(data, tmp_path):
    recipe = recipe_dict(
        data,
        augmentation={"mixup": 0.8, "cutmix": 1.0},
        optimizer={"name": "Lion", "learning_rate": 1e-2, "arguments": {"beta_2": 0.98}},
        runtime={"precision": "mixed_bfloat16"},
        schedule={"epochs": 2},
    )
    before = keras.config.dtype_policy().name
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(watch.model.backbone.dtype_policy.name)
    )
    trained = train(recipe, tmp_path / "run", callbacks=[watch], verbose=0)
    assert keras.config.dtype_policy().name == before
    assert seen == ["mixed_bfloat16"] * 2
    # The preset computes in float32, so that it gives the same logits everywhere.
    loaded = CCTImageClassifier.from_preset(str(trained.preset_dir))
    for model in (trained.model, loaded):
        assert {layer.compute_dtype for layer in (model.backbone, model.output_dense)} == {
            "float32"
        }
    np.testing.assert_allclose(
        loaded.predict(golden_images(loaded.image_shape), verbose=0),
        np.load(trained.preset_dir / "golden.npz")["logits"],
        atol=1e-5,
    )
    assert "2 epochs in mixed_bfloat16" in (trained.preset_dir / "README.md").read_text()
    assert {str(v.dtype) for v in trained.model.trainable_variables} == {"float32"}
    assert np.load(trained.preset_dir / "golden.npz")["logits"].dtype == np.float32
    # Mixed targets have an entropy of their own, which the loss cannot get below.
    assert trained.history[-1]["loss"] > 0.5


def test_fine_tuning(result, data, tmp_path):
    recipe = recipe_dict(data, schedule={"epochs": 1, "warmup_epochs": 0})
    recipe["model"] = {"preset": str(result.preset_dir), "keep_head": True}
    recipe["optimizer"] = {"learning_rate": 1e-6}
    tuned = train(recipe, tmp_path / "tuned", verbose=0)
    # A tiny step away from the trained model.
    assert tuned.results["loss"] == pytest.approx(result.results["loss"], abs=0.05)
    assert "trained from the weights of" in (tuned.preset_dir / "README.md").read_text()


def test_distilling_from_a_committee(result, data, tmp_path):
    teacher = str(result.preset_dir)
    recipe = recipe_dict(data, schedule={"epochs": 6, "warmup_epochs": 0})
    recipe["distillation"] = {"teacher": [teacher, teacher], "weight": 1.0, "temperature": 2}
    recipe["model"]["overrides"]["dropout_rate"] = 0.0
    run = train(recipe, tmp_path / "distilled", verbose=0)
    divergence = [row["loss"] for row in run.history]
    assert divergence[-1] < 0.7 * divergence[0]
    assert f"distilled from {teacher}" in (run.preset_dir / "README.md").read_text()
    assert load_recipe(run.preset_dir / "recipe.toml").distillation.weight == 1


def test_a_new_head_on_trained_weights(result, data):
    from lsmha_keras.data.open_dataset import open_dataset

    recipe = recipe_dict(data)
    recipe["model"] = {"preset": str(result.preset_dir)}
    model = build_model(load_recipe(recipe), open_dataset(data))
    for ours, theirs in zip(
        model.backbone.get_weights(), result.model.backbone.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    new, old = (m.output_dense.get_weights()[0] for m in (model, result.model))
    assert new.shape == old.shape and np.abs(new - old).max() > 1e-3


def test_blocks_are_replaced_before_training(data):
    from lsmha_keras.data.open_dataset import open_dataset

    section = {"preset": "cct_2_3x2", "image_shape": [16, 16, 3], "replace_blocks": 1}
    recipe = recipe_dict(data)
    recipe["model"] = {**section, "replace_design": "separable"}
    backbone = build_model(load_recipe(recipe), open_dataset(data)).backbone
    assert (backbone.num_conv_blocks, backbone.conv_block_design) == (1, "separable")
    recipe["model"] = {**section, "replace_blocks": 2}
    with pytest.raises(ValueError, match="from 1 to 1. Received: num_blocks=2"):
        build_model(load_recipe(recipe), open_dataset(data))


def test_kept_head_must_fit(result, tmp_path):
    from lsmha_keras.data.open_dataset import open_dataset

    np.savez(tmp_path / "other.npz", x=np.zeros((12, 16, 16, 3), "uint8"), y=np.arange(12) % 3)
    recipe = recipe_dict(tmp_path / "other.npz")
    recipe["model"] = {"preset": str(result.preset_dir), "keep_head": True}
    with pytest.raises(ValueError, match="the 3 classes .* Received: .*preset with 4 classes"):
        build_model(load_recipe(recipe), open_dataset(tmp_path / "other.npz"))


def test_tensorboard(result):
    installed = all(importlib.util.find_spec(n) for n in ("tensorflow", "tensorboard"))
    assert any(result.output_dir.glob("tensorboard/**/*tfevents*")) == installed


def test_missing_tensorboard_is_reported(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "tensorboard" else real(n, *a)
    )
    said = []
    assert tensorboard(tmp_path, said.append) == []
    assert "tensorboard" in said[0] and "not installed" in said[0]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"preset": "cct_2_3x3x"}}, "cct_2_3x2"),
        ({"model": {"overrides": {"num_head": 4}}}, r"nearest: num_heads\). Received: model.ove"),
        ({"model": {"overrides": {"num_heads": 3, "hidden_dim": 16}}}, "num_heads=3"),
        ({"data": {"name": "cifar-100"}}, "cifar100"),
        ({"data": {"test_split": "tests"}}, "tests"),
        ({"data": {"batch_size": 1000}}, "batch_size=1000"),
        ({"augmentation": {"mixupp": 1.0}}, "mixup"),
        ({"optimizer": {"name": "AdamX"}}, r"nearest: Adam\w*\)"),
        ({"runtime": {"devices": 3}}, "data.batch_size=16, runtime.devices=3"),
    ],
)
def test_bad_recipe(data, tmp_path, sections, message):
    with pytest.raises((ValueError, ImportError), match=message):
        train(recipe_dict(data, **sections), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_too_many_devices(data, tmp_path):
    recipe = recipe_dict(data, data={"batch_size": 32}, runtime={"devices": 32})
    reason = "torch" if keras.backend.backend() == "torch" else "There are"
    with pytest.raises(ValueError, match=f"{reason}.*Received: runtime.devices=32"):
        train(recipe, tmp_path / "run", verbose=0)


def test_unwritable_output(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Cannot write to the directory .* Received: .*file/run"):
        train(recipe_dict(data), tmp_path / "file" / "run", verbose=0)


def test_recipe_is_kept_with_the_output(result, recipe):
    for path in (result.output_dir, result.preset_dir):
        assert load_recipe(path / "recipe.toml") == load_recipe(recipe)


def test_folder_of_images_of_many_sizes(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for part, count in (("train", 8), ("test", 2)):
        for label in range(2):
            folder = tmp_path / "photos" / part / f"class_{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.full((20 + 3 * i, 30 - i - count, 3), 60 + 120 * label, "uint8")
                image.fromarray(pixels).save(folder / f"{i}.png")
    # Every image is brought to the model's size at once, in all splits.
    for split in ("train", "test", "train[:50%]+train[50%:]"):
        source = open_dataset_for_model("photos", split, tmp_path, None, lambda: (SIDE, SIDE))
        assert source.image_shape == (SIDE, SIDE, 3)
        assert set(zip(source.labels, source.load([0, 1])[:, 0, 0, 0], strict=False)) == {
            (0, 60),
            (1, 180),
        }
    assert open_dataset_for_model("photos", "test", tmp_path, 8, None).image_shape == (8, 8, 3)
    recipe = recipe_dict("photos", schedule={"epochs": 1, "warmup_epochs": 0})
    trained = train(recipe, tmp_path / "run", data_dir=tmp_path, verbose=0)
    assert trained.model.class_names == ["class_0", "class_1"]
    assert trained.results["num_images"] == 4
