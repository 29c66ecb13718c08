"""Trains the executions of a trial, in this process or on a worker."""

import dataclasses
import json
import pathlib
import time
import traceback

import keras

from lsmha_keras.benchmark.benchmark_model import benchmark_model
from lsmha_keras.errors import InputError
from lsmha_keras.files import write_atomically
from lsmha_keras.shp.callback import SHPCallback
from lsmha_keras.studies.study import Study
from lsmha_keras.text_files import read_json
from lsmha_keras.training.build_model import build_model
from lsmha_keras.training.devices import describe_hardware, describe_versions, recipe_runtime
from lsmha_keras.training.fit_recipe import fit_recipe
from lsmha_keras.training.run_output import claim_output_dir

EXECUTION = "execution.json"
_COST = "cost.json"
_SIGNALS = ("snr", "readout_accuracy")
_MEASURED = ("val_accuracy", "latency_ms", "parameters", "multiply_adds", "score")


@dataclasses.dataclass(frozen=True)
class TrialJob:
    """Everything needed to train a trial without the oracle. It can be pickled.

    Attributes:
        study: `Study`.
        trial: str, KerasTuner's trial id.
        values: dict of the hyperparameters, including KerasTuner's own.
        directory: `pathlib.Path`, directory of the trial.
        recipes: tuple of `Recipe`, one per execution.
    """

    study: Study
    trial: str
    values: dict
    directory: pathlib.Path
    recipes: tuple

    def run(self, sources, callbacks=(), verbose=0, log=print):
        """Trains all executions; those that have finished are read instead.

        Args:
            sources: dict with the "train" and "validation" data.
            callbacks: further Keras callbacks.
            verbose: as in `lsmha_keras.train`.
            log: function of a text, called with the outcome of each execution.

        Returns:
            list of dicts, the rows of the study's table. An infeasible execution is the last one,
            because the others differ only in their seeds.

        Raises:
            OSError: if the disk is full or data cannot be read.
        """
        rows = []
        for execution in range(len(self.recipes)):
            began = time.monotonic()
            rows.append(self._execute(execution, sources, callbacks, verbose))
            seconds = time.monotonic() - began
            log(f"  execution {execution}: {_outcome(rows[-1])} ({seconds:.0f} s)")
            if rows[-1]["status"] == "infeasible":
                break
        return rows

    def give_up(self, error):
        """Records the executions without a result as failed.

        Args:
            error: str, cause of the failure.

        Returns:
            list of dicts, the rows of the trial.
        """
        rows = []
        for execution, recipe in enumerate(self.recipes):
            path = self.directory / f"execution_{execution}" / EXECUTION
            if path.exists():
                rows.append(read_json(path))
                continue
            row = {"study": self.study.name, **self._facts(execution), "seed": recipe.runtime.seed}
            rows.append(row | {"status": "failed", "score": None, "error": error})
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(rows[-1], indent=1))
        return rows

    def _execute(self, execution, sources, callbacks, verbose):
        directory = self.directory / f"execution_{execution}"
        row = run_execution(
            self.study,
            self.recipes[execution],
            directory,
            sources,
            self._facts(execution),
            callbacks,
            verbose,
        )
        metrics = {name: row[name] for name in _MEASURED if row.get(name) is not None}
        failed = row["status"] == "failed"
        write_hparams(directory / "tensorboard" / "hparams", self.values, metrics, failed)
        # Keras keeps functions and memory of every model until then.
        keras.utils.clear_session(free_memory=True)
        return row

    def _facts(self, execution):
        values = {f"hp.{name}": value for name, value in self.values.items()}
        return {"trial": self.trial, "execution": execution, **values}


def _outcome(row):
    cost = f"{row['latency_ms']:.2f} ms" if row.get("latency_ms") is not None else "not measured"
    if row["status"] == "completed":
        return f"accuracy {row['val_accuracy']:.2%}, {cost}, {row['train_seconds']:.0f} s"
    if row["status"] == "infeasible":
        return f"above the budget by {-row['score']:.2f}x ({cost}), not trained"
    return f"failed: {row['error']}"


def run_execution(study, recipe, directory, sources, facts, callbacks=(), verbose=0):
    """Trains one execution of a trial, or reads its results if it has finished.

    After an interruption, another call continues from the last finished epoch.

    Args:
        study: `Study`.
        recipe: `Recipe` of the trial, with the seed of the execution.
        directory: `pathlib.Path` of the execution, inside that of its trial.
        sources: dict with the "train" and "validation" data.
        facts: dict of the first columns of the row: "trial", "execution" and the hyperparameters.
        callbacks: further Keras callbacks.
        verbose: as in `lsmha_keras.train`.

    Returns:
        dict, the execution's row of the study's table. Its "status" is "completed", "infeasible"
        (above the budget, not trained) or "failed" (with "error").

    Raises:
        OSError: if the disk is full or data cannot be read. The execution gets no row then, and is
            trained when the study is resumed.

    Example:

    ```python
    row = run_execution(study, recipe, directory / "execution_0", sources, {"trial": "00"})
    ```
    """
    finished = directory / EXECUTION
    if finished.exists():
        return read_json(finished)
    row = {"study": study.name, **facts, "seed": recipe.runtime.seed, **_environment()}
    try:
        _train(row, study, recipe, directory, sources, callbacks, verbose)
    except OSError:  # a full disk or a lost mount is not the trial's fault
        raise
    except Exception as error:  # out of memory, NaN, a bad value: the search continues
        row |= {"status": "failed", "score": None, "error": _describe(error)}
        _write(directory / "error.txt", traceback.format_exc())
    _write(finished, json.dumps(row, indent=1))
    return row


def _train(row, study, recipe, directory, sources, callbacks, verbose):
    """Measures and trains, and adds each result to the row as soon as it is known."""
    claim_output_dir(directory, recipe)
    with recipe_runtime(recipe.runtime):
        cost = _cost(study, recipe, directory.parent, sources["train"])
        row |= vars(cost)
        excess = cost.excess(study.budget.limits())
        if excess > 1:
            # Lower than any accuracy, and lower the further above the budget, so oracles can learn.
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
    """Measures the cost once per trial: its executions have the same architecture."""
    path = trial_dir / _COST
    if path.exists():
        return TrialCost(**read_json(path))
    model = build_model(recipe, source)
    cost = measure_cost(model, memory=study.budget.memory_mib is not None)
    _write(path, json.dumps(vars(cost)))
    return cost


def _watchers(study, recipe, sources):
    section = study.shp
    if not section.enabled:
        return []
    shp = SHPCallback(sources["train"], sources["validation"], max_images=section.max_images)
    if section.patience is None:
        return [shp]
    monitor = _signal(study, recipe, section.monitor)
    stop = keras.callbacks.EarlyStopping(monitor, patience=section.patience, mode="max")
    return [shp, stop]


def _signal(study, recipe, name):
    """Returns the name in the logs of a signal of the last block, which always has heads."""
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


@dataclasses.dataclass(frozen=True)
class TrialCost:
    """The cost of a model on this machine.

    Attributes:
        parameters: int.
        multiply_adds: int, for one image.
        latency_ms: float, median time of one image, in milliseconds.
        memory_mib: float or None, peak memory that one image adds, in MiB; `None` if it was not
            measured.
    """

    parameters: int
    multiply_adds: int
    latency_ms: float
    memory_mib: float | None = None

    def excess(self, limits):
        """Compares with the limits of a budget.

        Args:
            limits: dict from the name of an attribute to its highest value.

        Returns:
            float, the largest ratio of a cost to its limit; at most 1 if all limits are met.

        Raises:
            ValueError: if a limited cost could not be measured.

        Example:
            >>> TrialCost(2000, 10, 3.0).excess({"parameters": 1000, "latency_ms": 6.0})
            2.0
        """
        for name in limits:
            if getattr(self, name) is None:
                raise InputError(
                    f"`{name}` cannot be measured here (memory: on Linux and CPUs only). "
                    f"Received: budget.{name}={limits[name]}"
                )
        return max((getattr(self, name) / limit for name, limit in limits.items()), default=0.0)


def measure_cost(model, memory=False, runs=50):
    """Measures the cost of a model on the current backend and device.

    Args:
        model: `CCTImageClassifier`.
        memory: bool, whether to measure memory too, in a separate process, which takes seconds.
        runs: int, number of timed calls.

    Returns:
        A `TrialCost`.

    Example:

    ```python
    measure_cost(model).latency_ms
    ```
    """
    (speed,) = benchmark_model(model, batch_sizes=[1], runs=runs, memory=memory)
    return TrialCost(speed.parameters, speed.multiply_adds, speed.p50_ms, speed.peak_mib)


def write_hparams(directory, hyperparameters, metrics, failed=False):
    """Logs the hyperparameters and metrics of a trial for TensorBoard's HParams page.

    Needs TensorBoard, but not TensorFlow.

    Args:
        directory: path of the event file's directory.
        hyperparameters: dict of numbers, texts and bools.
        metrics: dict from name to number.
        failed: bool, whether the page shows the trial as failed.

    Returns:
        bool, False if TensorBoard is not installed, so nothing was written.

    Example:

    ```python
    write_hparams("runs/trial_0/hparams", {"num_heads": 16}, {"val_accuracy": 0.42})
    ```
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import summary_v2  # `summary` imports TensorFlow
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        return False
    directory = pathlib.Path(directory)
    for old in directory.glob("events.out.tfevents.*"):
        old.unlink()  # from an interrupted attempt
    values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
    now = time.time()
    parts = (
        summary_v2.hparams_pb(hyperparameters, start_time_secs=now),
        Summary(value=values),
        _session_end(failed, now),
    )
    writer = EventFileWriter(str(directory))
    try:
        for part in parts:
            writer.add_event(Event(wall_time=now, summary=part))
    finally:
        writer.close()
    return True


def _session_end(failed, seconds):
    """Returns the event that ends a trial; without it the page shows its status as unknown."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=seconds)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return Summary(value=[value])
