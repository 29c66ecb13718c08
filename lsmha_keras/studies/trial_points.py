"""The trials of a study as points: what each costs and what it reaches."""

import csv
import dataclasses
import io
import math
import pathlib
import statistics

from lsmha_keras.files import write_atomically
from lsmha_keras.nearest import nearest


@dataclasses.dataclass(frozen=True)
class TrialPoint:
    """A trial, its executions taken together.

    Attributes:
        trial: str.
        cost: float, such as the latency in milliseconds.
        value: float, mean over executions, such as the accuracy.
        spread: float or None, standard deviation of the value over executions; `None` of one.
        executions: int.
        hyperparameters: dict.
    """

    trial: str
    cost: float
    value: float
    spread: float | None
    executions: int
    hyperparameters: dict


def trial_points(rows, cost="latency_ms", value="val_accuracy"):
    """Takes the executions of every completed trial together.

    A trial of Hyperband that continues another one is a separate point. Rows of several
    studies may stand together: their trials are told apart.

    Args:
        rows: list of dicts, rows of a study's table.
        cost: str, a column of numbers.
        value: str, likewise.

    Returns:
        list of `TrialPoint`, by trial. Trials without a finite cost or value are left out.

    Raises:
        ValueError: if a column is unknown, naming the nearest, or no trial is left.

    Example:
        >>> row = {"trial": "0", "status": "completed", "latency_ms": 2.0, "val_accuracy": 0.5}
        >>> trial_points([row, row | {"val_accuracy": 0.7}])[0].value
        0.6
    """
    columns = sorted({key for row in rows for key in row})
    for name in (cost, value):
        if rows and name not in columns:
            raise ValueError(
                f"The table has the columns {', '.join(columns)}{nearest(name, columns)}. "
                f"Received: {name!r}"
            )
    trials = {}
    for row in rows:
        numbers = (row.get(cost), row.get(value))
        if row["status"] == "completed" and all(map(_is_finite, numbers)):
            trials.setdefault((row["trial"], row.get("study") or ""), []).append(row)
    if not trials:
        raise ValueError(
            f"No completed trial has both {cost} and {value}. Received: {len(rows)} rows"
        )
    return [_point(trial, found, cost, value) for (trial, _), found in sorted(trials.items())]


def pareto_front(points):
    """Returns the points that no other one beats: at most their cost and at least their value.

    Args:
        points: list of `TrialPoint`.

    Returns:
        list of `TrialPoint`, cheapest first; of equal ones the first.

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
    """Writes points as csv; a reader sees the old file or the new one.

    Args:
        points: list of `TrialPoint`, in the order of the lines.
        path: path of the file.

    Example:

    ```python
    write_front(pareto_front(trial_points(result.rows)), "front.csv")
    ```
    """
    fixed = [field.name for field in dataclasses.fields(TrialPoint)][:-1]
    own = sorted({name for point in points for name in point.hyperparameters})
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*fixed, *(f"hp.{name}" for name in own)])
    for point in points:
        settings = [point.hyperparameters.get(name) for name in own]
        writer.writerow([*(getattr(point, name) for name in fixed), *settings])
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())


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
