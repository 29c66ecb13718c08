"""Packs a trained preset, or the state of a training run, into small files."""

import os
import pathlib
import tarfile
import tempfile

import h5py
import numpy as np

from lsmha_keras.checksums import write_checksums
from lsmha_keras.directory_lock import DirectoryLock
from lsmha_keras.errors import InputError
from lsmha_keras.files import writable_dir
from lsmha_keras.text_files import read_json

STATE = "checkpoints/last.npz"
# In bytes: a channel that carries files may have such a limit.
_LIMIT = 16_000_000


def pack_preset(directory, output, data_dir=None):
    """Packs a trained preset, with its weights rounded to float16, into a tar file.

    The rounded model is evaluated again, so figures and golden logits are those of the packed file.

    Args:
        directory: path of a training run or of its preset.
        output: path of a folder, made if missing; it gets `<name of the recipe>.tar`.
        data_dir: folder that holds the data.

    Returns:
        The path of the file and the dict in the packed `results.json`.

    Raises:
        ValueError: if there is no preset, a weight is too large for float16, or the file would be
            larger than 16 MB.

    Example:

    ```python
    path, results = pack_preset("runs/mine", "carry")
    ```
    """
    from lsmha_keras.models import CCTClassifier
    from lsmha_keras.training.checkpoint import read_history
    from lsmha_keras.training.evaluate import class_report
    from lsmha_keras.training.fit_recipe import evaluation_batch
    from lsmha_keras.training.recipe import Recipe
    from lsmha_keras.training.recipe_data import open_recipe_data
    from lsmha_keras.training.run_output import write_preset

    preset = _find_preset(pathlib.Path(directory))
    recipe = Recipe.from_toml(preset / "recipe.toml")
    trained = read_json(preset / "results.json")
    model = CCTClassifier.from_preset(os.fspath(preset))
    round_weights(model)
    test = open_recipe_data(recipe, data_dir, parts=("train", "test"))["test"]
    report = class_report(model, test, evaluation_batch(recipe))
    with tempfile.TemporaryDirectory(dir=writable_dir(output)) as folder:
        packed = pathlib.Path(folder) / recipe.name
        seconds = trained["train_seconds"]
        history = read_history(preset / "history.csv")
        results = write_preset(packed, model, recipe, report, history, seconds, trained)
        for file in packed.glob("*.h5"):
            _store_as_float16(file)
        write_checksums(packed)
        whole = pathlib.Path(folder) / "whole.tar"
        with tarfile.open(whole, "w") as archive:
            archive.add(packed, recipe.name)
        if whole.stat().st_size > _LIMIT:
            raise InputError(
                f"A packed preset must not be larger than {_LIMIT / 1e6:.0f} MB. "
                f"Received: {preset} with {whole.stat().st_size / 1e6:.1f} MB"
            )
        path = pathlib.Path(output) / f"{recipe.name}.tar"
        os.replace(whole, path)
    return path, results


def pack_state(directory, output):
    """Packs an unfinished training run into parts, so that it can go on elsewhere.

    Together the parts are a tar file: `cat NAME.run.tar.* | tar xf - -C runs` unpacks them, and the
    command that trained the run then goes on from there.

    Args:
        directory: path of a training run.
        output: path of a folder, made if missing; it gets `<name>.run.tar.00` and so on, of at most
            16 MB each.

    Returns:
        list of the paths, in order.

    Raises:
        ValueError: if there is no training state, or more than 100 parts would be needed.
        OSError: if another process trains there.

    Example:

    ```python
    paths = pack_state("runs/mine", "carry")
    ```
    """
    directory, output = pathlib.Path(directory).resolve(), writable_dir(output)
    if not (directory / STATE).is_file():
        raise InputError(
            f"An unfinished training run is needed. Received: {directory}, which has no {STATE}"
        )
    with DirectoryLock(directory), tempfile.TemporaryFile(dir=output) as whole:
        with tarfile.open(fileobj=whole, mode="w") as archive:
            for name in ("recipe.toml", "history.csv", STATE):
                if (directory / name).is_file():
                    archive.add(directory / name, f"{directory.name}/{name}")
        count = -(-whole.tell() // _LIMIT)
        if count > 100:
            raise InputError(
                f"A state must not be larger than 100 parts of {_LIMIT / 1e6:.0f} MB. "
                f"Received: {directory} with {whole.tell() / 1e6:.0f} MB"
            )
        for old in output.glob(f"{directory.name}.run.tar.*"):
            old.unlink()  # `cat` would take the last parts of a larger state before
        whole.seek(0)
        paths = [output / f"{directory.name}.run.tar.{number:02}" for number in range(count)]
        for path in paths:
            path.write_bytes(whole.read(_LIMIT))
    return paths


def _find_preset(directory):
    for preset in (directory / "preset", directory):
        if (preset / "results.json").is_file():
            return preset
    raise InputError(
        f"A finished training run or its preset is needed. Received: {directory}, which has no "
        "preset/results.json"
    )


def round_weights(model):
    """Rounds the weights of a model to float16, in place; refuses those that it cannot hold."""
    for weight in model.weights:
        if "float" not in str(weight.dtype):
            continue
        with np.errstate(over="ignore"):
            rounded = np.asarray(weight.numpy(), "float32").astype("float16")
        if not np.isfinite(rounded).all():
            raise InputError(
                f"Weights above {np.finfo('float16').max:g} cannot be packed. "
                f"Received: {weight.path}"
            )
        weight.assign(rounded.astype("float32"))


def _store_as_float16(path):
    """Rewrites a weights file in float16; its values are rounded already."""
    smaller = path.with_suffix(".smaller")
    with h5py.File(path) as old, h5py.File(smaller, "w") as new:
        new.attrs.update(old.attrs)

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                half = item.dtype == np.float32
                made = new.create_dataset(name, data=item[()].astype("float16") if half else item)
            else:
                made = new.require_group(name)
            made.attrs.update(item.attrs)

        old.visititems(copy)
    os.replace(smaller, path)
