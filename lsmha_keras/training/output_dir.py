"""The output directory of a training run: whose it is, and how far the run has come."""

import pathlib
import shutil
import tempfile

from lsmha_keras.training.differences import list_differences
from lsmha_keras.training.epoch_checkpoint import LAST
from lsmha_keras.training.recipe import Recipe
from lsmha_keras.training.training_state import write_atomically


def claim_output_dir(path, recipe, resume=True):
    """Makes an output directory, or finds the same recipe's.

    Args:
        path: path, or None for `runs/<name of the recipe>`.
        recipe: `Recipe` that is to be trained.
        resume: bool; False removes what an earlier run left there.

    Returns:
        A `pathlib.Path`.

    Raises:
        OSError: if the directory cannot be written to.
        ValueError: if it belongs to another recipe.

    Example:

    ```python
    output_dir = claim_output_dir("runs/mine", recipe)
    ```
    """
    path = pathlib.Path("runs", recipe.name) if path is None else pathlib.Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise OSError(
            f"The output directory must be writable ({error.strerror}). Received: {path}"
        ) from error
    if not resume:
        _clear(path)
    file = path / "recipe.toml"
    begun = (path / "checkpoints" / LAST).exists() or (path / "preset").exists()
    if begun and not file.exists():
        raise ValueError(
            "The directory holds a training state without its recipe.toml; choose another output "
            f"directory. Received: {path}"
        )
    if begun:
        _refuse_other(path, Recipe.from_toml(file), recipe)
    else:
        # What failed before its first epoch ended, over a mistyped name perhaps, holds nothing.
        _clear(path)
        write_atomically(file, lambda out: out.write(recipe.to_toml().encode()))
    return path


def _refuse_other(path, found, recipe):
    differences = found.differences(recipe)
    if differences:
        raise ValueError(
            "The output directory belongs to a run of another recipe: "
            f"{list_differences(differences)}. Choose another one, or start again with "
            "resume=False (`lsmha train --fresh`), which removes that run. "
            f"Received: {path}"
        )


def _clear(path):
    # What a run writes, and nothing else that may lie there.
    for name in ("checkpoints", "tensorboard", "preset", "preset.tmp"):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in ("history.csv", "recipe.toml"):
        (path / name).unlink(missing_ok=True)
