"""The output directory of a run, the preset it writes there, and its result."""

import dataclasses
import datetime
import json
import pathlib
import shutil
from typing import Any

import keras
import numpy as np

from lsmha_keras.checksums import CARD, write_checksums
from lsmha_keras.errors import InputError
from lsmha_keras.files import claim_directory, fill_directory, remove_leftovers, write_atomically
from lsmha_keras.text_files import write_rows
from lsmha_keras.training.card_of_inputs import card_of_inputs
from lsmha_keras.training.checkpoint import LAST
from lsmha_keras.training.devices import describe_hardware, describe_versions
from lsmha_keras.training.evaluate import predict_logits
from lsmha_keras.training.model_card import model_card
from lsmha_keras.training.recipe import Recipe, load_recipe
from lsmha_keras.training.settings import list_differences

_GOLDEN_IMAGES = 8
# Keys of `results.json` that describe the training.
_TRAINING = ("hardware", "devices", "backend", "precision", "seed", "versions", "date", "command")


def output_path(path, recipe):
    """Returns the output directory of a run, without making it.

    Args:
        path: path, or None for `runs/<name of the recipe>`.
        recipe: `Recipe` to train.

    Returns:
        A `pathlib.Path`.

    Example:

    ```python
    directory = output_path(None, recipe)
    ```
    """
    return pathlib.Path("runs", recipe.name) if path is None else pathlib.Path(path).expanduser()


def claim_output_dir(path, recipe, resume=True):
    """Makes the output directory of a recipe, or takes over the one of an earlier call.

    Directories that a run makes are marked. Files in any other directory are neither removed nor
    overwritten.

    Args:
        path: path, or None for `runs/<name of the recipe>`.
        recipe: `Recipe` to train.
        resume: bool; False removes what an earlier run left there.

    Returns:
        A `pathlib.Path`.

    Raises:
        OSError: if the directory cannot be written to.
        ValueError: if it belongs to another recipe, or holds files that no run wrote.

    Example:

    ```python
    output_dir = claim_output_dir("runs/mine", recipe)
    ```
    """
    path = claim_directory(output_path(path, recipe), "run", _has_begun)
    file = path / "recipe.toml"
    if not resume:
        _clear(path)
    if _has_begun(path):
        _refuse_other(path, Recipe.from_toml(file), recipe)
        remove_leftovers(path, path / "checkpoints")
    elif _has_state(path):
        raise InputError(
            "The directory holds a training state without its recipe.toml; choose another output "
            f"directory, or start again with resume=False (`lsmha train --fresh`). Received: {path}"
        )
    else:
        # A run that failed before the end of its first epoch left nothing worth keeping.
        _clear(path)
        write_atomically(file, recipe.to_toml())
    return path


def _has_begun(path):
    return _has_state(path) and (path / "recipe.toml").exists()


def _has_state(path):
    return (path / "checkpoints" / LAST).exists() or (path / "preset" / "config.json").exists()


def _refuse_other(path, found, recipe):
    differences = found.differences(recipe)
    if differences:
        raise InputError(
            "The output directory belongs to a run of another recipe: "
            f"{list_differences(differences)}. Choose another one, or start again with "
            "resume=False (`lsmha train --fresh`), which removes that run. "
            f"Received: {path}"
        )


def _clear(path):
    # Only what a run writes; users may have put other files there.
    for name in ("checkpoints", "tensorboard", "preset"):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in ("history.csv", "recipe.toml"):
        (path / name).unlink(missing_ok=True)
    remove_leftovers(path)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The result of a training run.

    Attributes:
        model: the trained `CCTImageClassifier`, or None if a time limit was reached first.
        recipe: `Recipe` it was trained with.
        history: list of a dict per epoch, the rows of `history.csv`.
        results: dict, the contents of `results.json`: accuracy, parameters, time, machine,
            versions; None if a time limit was reached first.
        output_dir: `pathlib.Path` of the output directory.
        preset_dir: `pathlib.Path` of the preset, for `from_preset`.

    Example:

    ```python
    result = lsmha_keras.train("recipe.toml", output_dir="runs/mine")
    result.results["accuracy"]
    ```
    """

    model: Any
    recipe: Recipe
    history: list
    results: dict
    output_dir: pathlib.Path
    preset_dir: pathlib.Path

    def __str__(self):
        figures = self.results
        if figures is None:
            return (
                f"{self.recipe.name}: the time is over after {len(self.history)} epochs of "
                f"{self.recipe.schedule.total_epochs}; the same call goes on from {self.output_dir}"
            )
        many = card_of_inputs(self.model)["many"]
        return (
            f"{self.recipe.name}: accuracy {figures['accuracy']:.2%} (top-5 "
            f"{figures['top5_accuracy']:.2%}, loss {figures['loss']:.4f}) on "
            f"{figures['num_images']:,} {many} of {figures['dataset']} ({figures['split']}) after "
            f"{figures['epochs']} epochs, {figures['train_seconds']:.0f} s of training\n"
            f"preset: {self.preset_dir}"
        )


def write_preset(directory, model, recipe, report, history, train_seconds, trained=None):
    """Writes a trained model as a preset with recipe, history, figures, golden logits and card.

    Args:
        directory: path of the preset. An existing one is replaced when the new one is complete.
        model: trained `CCTImageClassifier`.
        recipe: `Recipe` it was trained with.
        report: `ClassReport` on the test split.
        history: list of a dict per epoch.
        train_seconds: float.
        trained: dict, the `results.json` of the preset that this one is made from: its machine,
            versions and date are kept. Default: those of this process.

    Returns:
        dict, as written to `results.json`.

    Example:

    ```python
    results = write_preset("preset", result.model, recipe, report, history, 61.5)
    ```
    """
    directory = pathlib.Path(directory)
    results = _results(model, recipe, report.figures, history, train_seconds)
    results |= {key: trained[key] for key in _TRAINING} if trained else {}
    images = golden_inputs(model)
    logits = predict_logits(model, images, _GOLDEN_IMAGES * recipe.runtime.devices)
    golden = {"images": images, "labels": logits.argmax(axis=1), "logits": logits}
    with fill_directory(directory, replace=True) as folder:
        model.save_to_preset(str(folder))
        write_atomically(folder / "recipe.toml", recipe.to_toml())
        write_rows(folder / "history.csv", history)
        text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
        write_atomically(folder / "results.json", text)
        write_atomically(folder / "golden.npz", lambda file: np.savez_compressed(file, **golden))
        report.write(folder)
        card = model_card(recipe, model, results, report.per_class)
        write_atomically(folder / CARD, card)
        write_checksums(folder)
    return results


def golden_inputs(model):
    """Makes the artificial inputs of `golden.npz` for a model: images, ids or series.

    Args:
        model: `CCTImageClassifier` or one of its subclasses.

    Returns:
        An array of 8 inputs, always the same: see `golden_images`; ids in texts of 1 word and
        more; or standard normal series.
    """
    if len(model.image_shape) == 3:
        return golden_images(model.image_shape)
    rng, time = np.random.default_rng(0), model.image_shape[0]
    if len(model.image_shape) == 2:
        return rng.normal(size=(_GOLDEN_IMAGES, *model.image_shape)).astype("float32")
    ids = rng.integers(1, model.backbone.vocabulary_size, (_GOLDEN_IMAGES, time), "int32")
    lengths = np.linspace(1, time, _GOLDEN_IMAGES).astype(int)
    return np.where(np.arange(time) < lengths[:, None], ids, 0).astype("int32")


def golden_images(image_shape):
    """Makes the artificial images of `golden.npz`; a preset ships no images of a dataset.

    Args:
        image_shape: `(height, width, channels)`.

    Returns:
        `(8, height, width, channels)` uint8, coarse patches with noise, always the same.
    """
    rng = np.random.default_rng(0)
    height, width, channels = image_shape
    coarse = rng.integers(0, 256, (_GOLDEN_IMAGES, -(-height // 8), -(-width // 8), channels))
    patches = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    noise = rng.integers(-32, 33, patches.shape)
    return np.clip(patches + noise, 0, 255).astype("uint8")


def _results(model, recipe, figures, history, train_seconds):
    return {
        "name": recipe.name,
        "dataset": recipe.data.name,
        "split": recipe.data.test_split,
        **figures,
        "parameters": model.count_params(),
        "epochs": len(history),
        "train_seconds": round(train_seconds, 1),
        "hardware": describe_hardware(),
        "devices": recipe.runtime.devices,
        "backend": keras.backend.backend(),
        "precision": recipe.runtime.precision,
        "seed": recipe.runtime.seed,
        "versions": describe_versions(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "command": _command(recipe),
    }


def _command(recipe):
    try:
        shipped = not recipe.differences(load_recipe(recipe.name))
    except ValueError:
        shipped = False
    backend = keras.backend.backend()
    return f"lsmha train {recipe.name if shipped else 'recipe.toml'} --backend {backend}"
