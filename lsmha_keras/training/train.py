"""Trains the model of a recipe, from data to preset."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lsmha_keras.arguments import positive_number
from lsmha_keras.directory_lock import DirectoryLock
from lsmha_keras.errors import InputError
from lsmha_keras.models import CCTClassifier
from lsmha_keras.text_files import read_json, write_rows
from lsmha_keras.training.build_model import cast_to_float32, make_policy
from lsmha_keras.training.checkpoint import LAST, read_history
from lsmha_keras.training.devices import is_on_device, recipe_runtime
from lsmha_keras.training.evaluate import class_report
from lsmha_keras.training.fit_on_device import fit_on_device
from lsmha_keras.training.fit_recipe import evaluation_batch, fit_recipe
from lsmha_keras.training.recipe import Recipe, load_recipe
from lsmha_keras.training.recipe_data import Visit
from lsmha_keras.training.run_output import (
    TrainingResult,
    claim_output_dir,
    output_path,
    write_preset,
)
from lsmha_keras.types import PathLike, Verbose


def train(
    recipe: Recipe | PathLike | Mapping[str, Any],
    output_dir: PathLike | None = None,
    data_dir: PathLike | None = None,
    resume: bool = True,
    callbacks: Sequence[Any] = (),
    verbose: Verbose = "auto",
    minutes: float | None = None,
    shorten: bool = True,
    visit: Visit | None = None,
) -> TrainingResult:
    """Trains the model of a recipe and writes it as a preset.

    An interrupted run, called again with the same arguments, continues after its last finished
    epoch and ends as if it had never been interrupted: weights, optimiser, schedule, averaged
    weights, order of the images, augmentation and dropout are restored. A finished run is not
    repeated.

    `output_dir` gets `recipe.toml`, `history.csv`, `checkpoints/last.npz`, `tensorboard/` if
    TensorBoard is installed, and at the end `preset/`, for `CCTImageClassifier.from_preset`.
    Whatever the precision of training, the result is evaluated and saved as a float32 model.

    Args:
        recipe: a `Recipe`, the path of its TOML file, the name of a shipped one, or a dict.
        output_dir: path. Defaults to `runs/<name of the recipe>`.
        data_dir: folder that holds the data. Defaults to the environment variable LSMHA_DATA_DIR.
        resume: bool, whether to continue the run in `output_dir`; False removes it.
        callbacks: more Keras callbacks. The logs hold the validation metrics too. A callback's own
            state is not saved.
        verbose: 0 prints nothing, 1 a progress bar per epoch, 2 a line per epoch; "auto" is 1 in a
            terminal and 2 elsewhere.
        minutes: float, time limit from this call to the written preset. It needs JAX or PyTorch and
            the images on the device (see `[data] placement`). The run can then continue from any
            step, not only from a finished epoch.
        shorten: bool, whether to shorten the schedule so that it ends within the limit. If False,
            the run stops at the limit, and the same call continues it.
        visit: `Visit`, lets several runs in one process share data and compiled programs.

    Returns:
        A `TrainingResult`; without a model and results if the limit was reached first.

    Raises:
        ValueError: if the recipe or the data are invalid, `output_dir` belongs to another recipe
            or holds files that no run wrote, or the limit is too short.
        NonFiniteLossError: if training diverges; the last saved state stays.
        OSError: if `output_dir` cannot be written to, another process trains there, or the disk is
            full; the last saved state stays, and the same call continues from it.

    Example:

    ```python
    result = train("recipe.toml", output_dir="runs/mine")
    print(result.results["accuracy"])
    ```
    """
    begun = time.monotonic()
    recipe = load_recipe(recipe)
    _check_devices(recipe)
    deadline = None if minutes is None else begun + 60 * positive_number("minutes", minutes)
    visit = Visit() if visit is None else visit
    sources = visit.sources(recipe, data_dir)
    # Before the directory is touched: both raise for settings that do not fit.
    policy = make_policy(recipe, sources["train"])
    log = print if verbose else (lambda text: None)
    on_device = is_on_device(recipe, sources["train"], policy, callbacks, minutes is not None, log)
    with DirectoryLock(output_path(output_dir, recipe)):
        output_dir = claim_output_dir(output_dir, recipe, resume)
        if _is_finished(output_dir):
            if verbose:
                print(f"{output_dir} holds the finished run; there is nothing left to train.")
            return _finished(recipe, output_dir)
        fit: Callable[..., Any]
        arguments: tuple[Any, ...]
        if on_device:
            fit, arguments = fit_on_device, (deadline, shorten, verbose, visit)
        else:
            fit, arguments = fit_recipe, (callbacks, verbose)
        return _train(recipe, sources, output_dir, fit, *arguments)


def _train(recipe, sources, output_dir, fit, *arguments):
    with recipe_runtime(recipe.runtime):
        trained, checkpoint = fit(recipe, sources, output_dir, *arguments)
        if not checkpoint.finished:
            return _result(None, recipe, checkpoint.history, None, output_dir)
        model = cast_to_float32(trained)
        report = class_report(model, sources["test"], evaluation_batch(recipe))
        results = write_preset(
            output_dir / "preset",
            model,
            recipe,
            report,
            checkpoint.history,
            checkpoint.train_seconds,
        )
    return _result(model, recipe, checkpoint.history, results, output_dir)


def _check_devices(recipe):
    devices, batch_size = recipe.runtime.devices, recipe.data.batch_size
    if batch_size % devices:
        raise InputError(
            "`data.batch_size` must be a multiple of `runtime.devices`. Received: "
            f"data.batch_size={batch_size}, runtime.devices={devices}"
        )


def _is_finished(output_dir):
    preset = output_dir / "preset"
    missing = [n for n in ("results.json", "history.csv") if not (preset / n).exists()]
    if missing and (preset / "config.json").exists():
        if (output_dir / "checkpoints" / LAST).exists():
            return False  # `write_preset` writes it again
        raise InputError(
            "The directory holds a preset that is incomplete and no training state to make it "
            "again from: choose another output directory, or start again with resume=False "
            f"(`lsmha train --fresh`), which removes it. Received: {preset} without "
            f"{' and '.join(missing)}"
        )
    return not missing


def _finished(recipe, output_dir):
    preset_dir = output_dir / "preset"
    history = read_history(preset_dir / "history.csv")
    # The run may have been killed before it wrote the whole table.
    write_rows(output_dir / "history.csv", history)
    results = read_json(preset_dir / "results.json")
    model = CCTClassifier.from_preset(str(preset_dir))
    return _result(model, recipe, history, results, output_dir)


def _result(model, recipe, history, results, output_dir):
    return TrainingResult(model, recipe, history, results, output_dir, output_dir / "preset")
