"""Trains one execution of a trial."""

import json
import time
import traceback

import keras

from lsmha_keras.files import write_atomically
from lsmha_keras.studies.trial_cost import TrialCost, measure_cost
from lsmha_keras.training.build_model import build_model
from lsmha_keras.training.devices import describe_hardware, describe_versions, recipe_runtime
from lsmha_keras.training.fit_recipe import fit_recipe
from lsmha_keras.training.output_dir import claim_output_dir

EXECUTION = "execution.json"
_COST = "cost.json"
_SIGNALS = ("snr", "readout_accuracy")


def run_execution(study, recipe, directory, sources, facts, callbacks=(), verbose=0):
    """Trains one execution of a trial, or reads its results if it was trained before.

    Stopped and called again, it continues from the last finished epoch.

    Args:
        study: `Study`.
        recipe: `Recipe` of the trial, with the seed of the execution.
        directory: `pathlib.Path` of the execution, in that of its trial.
        sources: dict with the "train" and "validation" data.
        facts: dict of what the row starts with: "trial", "execution" and the hyperparameters.
        callbacks: more Keras callbacks.
        verbose: as in `lsmha_keras.train`.

    Returns:
        dict, the row of the execution in the study's table. Its "status" is "completed",
        "infeasible" (above the budget, not trained) or "failed" (with "error").

    Raises:
        OSError: if the disk is full or data cannot be read: the execution has no row then, and is
            trained when the study goes on.

    Example:

    ```python
    row = run_execution(study, recipe, directory / "execution_0", sources, {"trial": "00"})
    ```
    """
    finished = directory / EXECUTION
    if finished.exists():
        return json.loads(finished.read_text(encoding="utf-8"))
    row = {"study": study.name, **facts, "seed": recipe.runtime.seed, **_environment()}
    try:
        _train(row, study, recipe, directory, sources, callbacks, verbose)
    except OSError:  # A full disk or a lost mount, which says nothing about the trial.
        raise
    except Exception as error:  # Memory, NaN, an unforeseen value: the search continues.
        row |= {"status": "failed", "score": None, "error": _describe(error)}
        _write(directory / "error.txt", traceback.format_exc())
    _write(finished, json.dumps(row, indent=1))
    return row


def _train(row, study, recipe, directory, sources, callbacks, verbose):
    """Measures and trains, and writes into the row what is known so far."""
    claim_output_dir(directory, recipe)
    with recipe_runtime(recipe.runtime):
        cost = _cost(study, recipe, directory.parent, sources["train"])
        row |= vars(cost)
        excess = cost.excess(study.budget.limits())
        if excess > 1:
            # Below every accuracy, and the lower the further away: oracles learn from it.
            row |= {"status": "infeasible", "score": -excess}
            return
        callbacks = [*_watchers(study, recipe, sources), *callbacks]
        _, checkpoint = fit_recipe(recipe, sources, directory, callbacks, verbose)
    last = checkpoint.history[-1]
    row |= {
        "val_accuracy": last["val_accuracy"],
        "epochs": len(checkpoint.history),
        "train_seconds": round(checkpoint.train_seconds, 2),
    }
    if study.shp.enabled:
        row |= {f"shp_{name}": last[_signal(study, recipe, name)] for name in _SIGNALS}
    row |= {"status": "completed", "score": row[study.tuner.objective]}


def _cost(study, recipe, trial_dir, source):
    """Measures once for all executions of a trial: they have the same architecture."""
    path = trial_dir / _COST
    if path.exists():
        return TrialCost(**json.loads(path.read_text(encoding="utf-8")))
    model = build_model(recipe, source)
    cost = measure_cost(model, memory=study.budget.memory_mib is not None)
    _write(path, json.dumps(vars(cost)))
    return cost


def _watchers(study, recipe, sources):
    section = study.shp
    if not section.enabled:
        return []
    from lsmha_keras.shp.callback import SingleHeadPerformance

    shp = SingleHeadPerformance(
        sources["train"], sources["validation"], max_images=section.max_images
    )
    if section.patience is None:
        return [shp]
    monitor = _signal(study, recipe, section.monitor)
    stop = keras.callbacks.EarlyStopping(monitor, patience=section.patience, mode="max")
    return [shp, stop]


def _signal(study, recipe, name):
    """Returns how the logs call a signal of the last block, which is never convolutional."""
    layers = recipe.model.overrides.get("num_layers", study.defaults["num_layers"])
    return f"shp/block_{layers - 1}_{name}"


def _environment():
    machine, _, cores = describe_hardware().partition(", ")
    versions = describe_versions()
    return {
        "backend": keras.backend.backend(),
        "machine": machine,
        "cores": cores,
        "versions": " ".join(f"{name} {version}" for name, version in versions.items()),
        "date": time.strftime("%Y-%m-%d"),
    }


def _describe(error):
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
