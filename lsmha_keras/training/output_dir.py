"""The output directory of a run, and the result that the run leaves there."""

import dataclasses
import pathlib
import shutil
from typing import Any

from lsmha_keras.errors import InputError
from lsmha_keras.files import claim_directory, remove_leftovers, write_atomically
from lsmha_keras.training.checkpoint import LAST
from lsmha_keras.training.recipe import Recipe
from lsmha_keras.training.settings import list_differences


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
        return (
            f"{self.recipe.name}: accuracy {figures['accuracy']:.2%} (top-5 "
            f"{figures['top5_accuracy']:.2%}, loss {figures['loss']:.4f}) on "
            f"{figures['num_images']:,} images of {figures['dataset']} ({figures['split']}) after "
            f"{figures['epochs']} epochs, {figures['train_seconds']:.0f} s of training\n"
            f"preset: {self.preset_dir}"
        )
