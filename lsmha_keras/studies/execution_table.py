"""The table of a study's executions, and its trials as points of cost and accuracy."""

import csv
import dataclasses
import math
import pathlib
import statistics
import warnings

import numpy as np

from lsmha_keras.errors import InputError, nearest
from lsmha_keras.shp.statistics import spearman
from lsmha_keras.text_files import read_json, write_rows

_RESAMPLES = 2000
COLUMNS = (
    "study",
    "trial",
    "execution",
    "status",
    "score",
    "val_accuracy",
    "epochs",
    "seed",
    "train_seconds",
    "parameters",
    "multiply_adds",
    "latency_ms",
    "memory_mib",
    "shp_snr",
    "shp_readout_accuracy",
    "backend",
    "machine",
    "cores",
    "versions",
    "date",
    "error",
)
_TEXT = ("study", "trial", "status", "backend", "machine", "cores", "versions", "date", "error")


def collect_executions(directory):
    """Reads the rows of a study's finished executions.

    Args:
        directory: path of the study's directory.

    Returns:
        list of dicts, one row per execution, sorted by trial and execution. A file that cannot be
        read is skipped with a warning that names it.

    Example:

    ```python
    rows = collect_executions("runs/digits_heads")
    ```
    """
    rows = []
    for path in pathlib.Path(directory).glob("trial_*/execution_*/execution.json"):
        try:
            row = read_json(path)
            _check_names(row)
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{path} is skipped: {error!r}", stacklevel=2)
        else:
            rows.append(row)
    return sorted(rows, key=lambda row: (row["trial"], row["execution"]))


def write_table(rows, path):
    """Writes rows as csv, atomically.

    Args:
        rows: list of dicts. Keys that begin with "hp." become the last columns.
        path: path of the file.

    Example:

    ```python
    write_table(collect_executions(directory), directory / "executions.csv")
    ```
    """
    path = pathlib.Path(path)
    own = sorted({key for row in rows for key in row if key.startswith("hp.")})
    columns = [*COLUMNS, *own]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, [{name: _flat(row.get(name)) for name in columns} for row in rows], columns)


def read_table(path):
    """Reads a table written by `write_table`.

    Args:
        path: path of the csv file.

    Returns:
        list of dicts with numbers, bools and texts; empty cells are None.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if columns of a study's table are missing (they are named), or a line is
            incomplete (it is named).

    Example:

    ```python
    rows = read_table("tuning/results/cifar100_heads.csv")
    ```
    """
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(
                f"A study's table has the columns {', '.join(COLUMNS)}. "
                f"Received: {path} without {', '.join(missing)}"
            )
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"Every line must have {len(reader.fieldnames)} cells, like the header: write "
                    f"the table again. Received: {path}, line {reader.line_num}"
                )
            rows.append({key: _typed(key, value) for key, value in row.items()})
        return rows


def _check_names(row):
    """Refuses a row that lacks what the table is sorted by."""
    kinds = {"trial": str, "execution": int, "status": str}
    if bad := [name for name, kind in kinds.items() if not isinstance(row[name], kind)]:
        raise InputError(f"{bad[0]}={row[bad[0]]!r} is not {kinds[bad[0]].__name__}")


def _flat(value):
    return " ".join(value.split()) if isinstance(value, str) else value


def _typed(key, value):
    if value == "":
        return None
    if key in _TEXT:
        return value
    if value in ("True", "False"):
        return value == "True"
    if "_" in value:  # Python would read the text 1_2 as 12
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


@dataclasses.dataclass(frozen=True)
class TrialPoint:
    """A trial, averaged over its executions.

    Attributes:
        trial: str, id of the trial.
        cost: float, mean over executions, such as the latency in milliseconds.
        value: float, mean over executions, such as the accuracy.
        spread: float or None, standard deviation of the value over executions; `None` for a single
            execution.
        executions: int, number of executions.
        hyperparameters: dict.
    """

    trial: str
    cost: float
    value: float
    spread: float | None
    executions: int
    hyperparameters: dict


def trial_points(rows, cost="latency_ms", value="val_accuracy"):
    """Averages the executions of every completed trial.

    A Hyperband trial that continues another one is a separate point. Rows may come from several
    studies: their trials are kept apart.

    Args:
        rows: list of dicts, rows of a study's table.
        cost: str, name of a numeric column.
        value: str, name of a numeric column.

    Returns:
        list of `TrialPoint`, sorted by trial, without trials that lack a finite cost or value.

    Raises:
        ValueError: if a column is unknown (the nearest is named), or no trial is left.

    Example:
        >>> row = {"trial": "0", "status": "completed", "latency_ms": 2.0, "val_accuracy": 0.5}
        >>> trial_points([row, row | {"val_accuracy": 0.7}])[0].value
        0.6
    """
    columns = sorted({key for row in rows for key in row})
    for name in (cost, value):
        if rows and name not in columns:
            raise InputError(
                f"The table has the columns {', '.join(columns)}{nearest(name, columns)}. "
                f"Received: {name!r}"
            )
    trials = {}
    for row in rows:
        numbers = (row.get(cost), row.get(value))
        if row["status"] == "completed" and all(map(_is_finite, numbers)):
            trials.setdefault((row["trial"], row.get("study") or ""), []).append(row)
    if not trials:
        raise InputError(
            f"No completed trial has both {cost} and {value}. Received: {len(rows)} rows"
        )
    return [_point(trial, found, cost, value) for (trial, _), found in sorted(trials.items())]


def pareto_front(points):
    """Returns the Pareto front: the points that no cheaper or equally cheap point matches in value.

    Args:
        points: list of `TrialPoint`.

    Returns:
        list of `TrialPoint`, cheapest first; the first of equal points.

    Example:

    ```python
    front = pareto_front(trial_points(result.rows))
    ```
    """
    front = []
    for point in sorted(points, key=lambda point: (point.cost, -point.value)):
        if not front or point.value > front[-1].value:
            front.append(point)
    return front


def write_front(points, path):
    """Writes points as csv, atomically.

    Args:
        points: list of `TrialPoint`, one line each.
        path: path of the file.

    Example:

    ```python
    write_front(pareto_front(trial_points(result.rows)), "front.csv")
    ```
    """
    fixed = [field.name for field in dataclasses.fields(TrialPoint)][:-1]
    own = sorted({name for point in points for name in point.hyperparameters})
    rows = [
        {name: getattr(point, name) for name in fixed}
        | {f"hp.{name}": point.hyperparameters.get(name) for name in own}
        for point in points
    ]
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, rows, [*fixed, *(f"hp.{name}" for name in own)])


def _point(trial, rows, cost, value):
    values = [row[value] for row in rows]
    return TrialPoint(
        trial,
        statistics.fmean(row[cost] for row in rows),
        statistics.fmean(values),
        statistics.stdev(values) if len(values) > 1 else None,
        len(values),
        {
            key.removeprefix("hp."): setting
            for key, setting in rows[0].items()
            if key.startswith("hp.") and setting is not None and not key.startswith("hp.tuner/")
        },
    )


def _is_finite(number):
    return isinstance(number, (int, float)) and math.isfinite(number)


@dataclasses.dataclass(frozen=True)
class SignalCorrelation:
    """Spearman's rank correlation over trials.

    Attributes:
        signal: str, name of the column.
        rho: float in -1 .. 1; NaN if one of the two is constant.
        low: float, 2.5th percentile of the bootstrap over trials.
        high: float, 97.5th percentile.
        trials: int, number of trials.
    """

    signal: str
    rho: float
    low: float
    high: float
    trials: int

    def __str__(self):
        return (
            f"{self.signal}: rho {self.rho:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}, "
            f"{self.trials} trials)"
        )


def signal_correlation(rows, signal, value="val_accuracy", seed=0):
    """Computes the rank correlation of a signal and the accuracy over completed trials.

    Args:
        rows: list of dicts, rows of a study's table.
        signal: str, name of a column, such as "shp_snr".
        value: str, name of a column.
        seed: int, seed of the bootstrap.

    Returns:
        A `SignalCorrelation`.

    Raises:
        ValueError: with fewer than four trials.

    Example:

    ```python
    print(signal_correlation(result.rows, "shp_readout_accuracy"))
    ```
    """
    points = trial_points(rows, cost=signal, value=value)
    if len(points) < 4:
        raise InputError(f"A rank correlation needs at least 4 trials. Received: {len(points)}")
    pairs = np.array([(point.cost, point.value) for point in points])
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(pairs), size=(_RESAMPLES, len(pairs)))
    rhos = [spearman(*pairs[draw].T) for draw in draws]
    rhos = [rho for rho in rhos if not np.isnan(rho)]  # NaN if a draw repeats a single trial
    low, high = np.percentile(rhos, [2.5, 97.5]) if rhos else (np.nan, np.nan)
    return SignalCorrelation(signal, spearman(*pairs.T), float(low), float(high), len(pairs))
