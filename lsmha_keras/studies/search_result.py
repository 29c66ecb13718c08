"""The result of a study: its table, its best trial and a report."""

import dataclasses
import importlib.util
import pathlib
import statistics

from lsmha_keras.errors import InputError, RunError
from lsmha_keras.files import write_atomically
from lsmha_keras.studies.dimension import at_bounds
from lsmha_keras.studies.execution_table import (
    collect_executions,
    pareto_front,
    signal_correlation,
    trial_points,
    write_front,
    write_table,
)
from lsmha_keras.studies.plot_front import plot_front
from lsmha_keras.studies.study import Study
from lsmha_keras.text_files import markdown_table
from lsmha_keras.training.recipe import Recipe

_SIGNALS = ("shp_snr", "shp_readout_accuracy")


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The result of a study.

    Attributes:
        study: `Study`.
        directory: `pathlib.Path`, the study's output directory.
        rows: list of dicts, the rows of `executions.csv`, one per execution.

    Example:

    ```python
    result = lsmha_keras.search("digits_heads")
    result.recipe().to_toml()
    ```
    """

    study: Study
    directory: pathlib.Path
    rows: list

    @classmethod
    def from_directory(cls, study, directory):
        """Reads the result from a study's directory.

        Args:
            study: `Study`.
            directory: path.

        Returns:
            A `SearchResult`.

        Raises:
            ValueError: if trials have ended and none meets the budget; names the cheapest.
            RuntimeError: if every trial failed; names the first cause.
        """
        rows = collect_executions(directory)
        status = [row["status"] for row in rows]
        if rows and "completed" not in status:
            if "infeasible" in status:
                raise InputError(_nothing_meets(study.budget.limits(), rows))
            raise RunError(
                f"All {len(rows)} executions failed, the first with {rows[0]['error']}; see "
                f"{pathlib.Path(directory) / ('trial_' + rows[0]['trial'])}"
            )
        return cls(study, pathlib.Path(directory), rows)

    @property
    def trials(self):
        """Completed trials, best first, each a list of the rows of its executions."""
        trials = {}
        for row in self.rows:
            if row["status"] == "completed":
                trials.setdefault(row["trial"], []).append(row)
        return sorted(trials.values(), key=_score, reverse=True)

    @property
    def best(self):
        """The row of the best trial's first execution, or None if no trial is complete."""
        return self.trials[0][0] if self.trials else None

    @property
    def notes(self):
        """Sentences that name settings of the best trial on a bound of the space."""
        return [] if self.best is None else at_bounds(self.study.space, _settings(self.best))

    def recipe(self, name=None):
        """Returns the recipe of the best trial, with the full schedule of the study.

        Args:
            name: str, or None for "<name of the study>_best".

        Returns:
            A `Recipe`. Before training a final model, give it more epochs and all training images.

        Raises:
            ValueError: if no trial is complete.
        """
        if self.best is None:
            raise InputError(
                f"No trial is complete, so none is the best. Received: {self.directory}"
            )
        path = self.directory / f"trial_{self.best['trial']}" / "execution_0" / "recipe.toml"
        table = Recipe.from_toml(path).to_dict()
        # Hyperband may have shortened the trial's schedule.
        table["schedule"] = self.study.recipe.to_dict()["schedule"]
        return Recipe.from_dict({**table, "name": name or f"{self.study.name}_best"})

    def write(self, results=None):
        """Writes the table and, if trials are complete, the front, its plot and a report.

        Args:
            results: path for a second copy of the table, or None.

        Returns:
            list of `pathlib.Path`, the files written: `executions.csv`, `front.csv`, `report.md`,
            and `front.png` if matplotlib is installed.
        """
        paths = [self.directory / "executions.csv"]
        paths += [] if results is None else [pathlib.Path(results)]
        for path in paths:
            write_table(self.rows, path)
        if self.trials:
            paths.append(self.directory / "front.csv")
            write_front(pareto_front(trial_points(self.rows)), paths[-1])
            paths.append(self.directory / "report.md")
            write_atomically(paths[-1], study_report(self.rows, self.notes))
            if importlib.util.find_spec("matplotlib"):
                paths.append(self.directory / "front.png")
                plot_front(self.rows, paths[-1])
        return paths

    def __str__(self):
        counts = [
            f"{sum(row['status'] == status for row in self.rows)} {status}"
            for status in ("completed", "infeasible", "failed")
        ]
        lines = [f"{self.study.name}: {len(self.rows)} executions ({', '.join(counts)})"]
        for rows in self.trials[:3]:
            accuracies = [row["val_accuracy"] for row in rows]
            spread = f" ± {statistics.stdev(accuracies):.2%}" if len(accuracies) > 1 else ""
            settings = ", ".join(
                f"{name}={_short(value)}" for name, value in _settings(rows[0]).items()
            )
            lines.append(
                f"  trial {rows[0]['trial']}: accuracy {statistics.fmean(accuracies):.2%}{spread}, "
                f"{rows[0]['latency_ms']:.2f} ms, {rows[0]['parameters']:,} parameters: {settings}"
            )
        return "\n".join([*lines, *(f"  on a bound: {note}" for note in self.notes)])


def _settings(row):
    return {
        key.removeprefix("hp."): value
        for key, value in row.items()
        if key.startswith("hp.") and not key.startswith("hp.tuner/")
    }


def _score(rows):
    return statistics.fmean(row["score"] for row in rows)


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _nothing_meets(limits, rows):
    # The score of an infeasible trial is minus its cost, relative to the budget.
    rows = [row for row in rows if row["status"] == "infeasible"]
    cheapest = max(rows, key=lambda row: row["score"])
    figures = ", ".join(f"{name} {cheapest[name]:.6g} (budget {limits[name]:g})" for name in limits)
    settings = ", ".join(
        f"{key.removeprefix('hp.')}={_short(value)}"
        for key, value in cheapest.items()
        if key.startswith("hp.")
    )
    return (
        f"None of {len(rows)} candidates meets the budget. The cheapest has {figures}, with "
        f"{settings}. Raise the budget, or let the space reach cheaper models. "
        f"Received: budget={limits}"
    )


def study_report(rows, notes=()):
    """Writes a report of a study: its trials, front, settings and head signals.

    Args:
        rows: list of dicts, rows of a study's table.
        notes: list of str, from `at_bounds` for the best trial.

    Returns:
        str, Markdown.

    Raises:
        ValueError: if no trial is complete.

    Example:

    ```python
    print(study_report(result.rows))
    ```
    """
    points = trial_points(rows)
    parts = [
        f"## Trials, the best first\n\n{_outcomes(rows)}\n\n{_trials(points)}",
        f"## No trial is faster and as accurate\n\n{_trials(pareto_front(points))}",
    ]
    if notes:
        found = "".join(f"* {note}\n" for note in notes)
        parts.insert(1, f"## The best trial lies on a bound of the space\n\n{found}")
    for name in points[0].hyperparameters:
        settings = sorted({str(point.hyperparameters.get(name)) for point in points})
        # Continuous settings rarely repeat a value, so a table would have a row per trial.
        if 1 < len(settings) <= len(points) / 2:
            parts.append(f"## By {name}\n\n{setting_table(points, name)}")
    if correlations := _correlations(rows):
        parts.append(f"## Do the heads' signals tell the accuracy?\n\n{correlations}")
    return "\n".join(parts)


def setting_table(points, name):
    """Summarises the trials by the value of a hyperparameter.

    Args:
        points: list of `TrialPoint` with latencies as costs.
        name: str, name of the hyperparameter.

    Returns:
        str, a Markdown table.

    Example:

    ```python
    print(setting_table(trial_points(result.rows), "num_heads"))
    ```
    """
    groups = {}
    for point in points:
        groups.setdefault(point.hyperparameters.get(name), []).append(point)
    rows = []
    for setting in sorted(groups, key=lambda value: (str(type(value)), value)):
        found = groups[setting]
        values = [point.value for point in found]
        rows.append(
            [
                _cell(setting),
                str(len(found)),
                _percent(
                    statistics.fmean(values), statistics.stdev(values) if values[1:] else None
                ),
                f"{100 * max(values):.2f}",
                f"{statistics.median(point.cost for point in found):.2f}",
            ]
        )
    header = [name, "trials", "accuracy (%), mean ± spread", "best (%)", "latency (ms), median"]
    return markdown_table(header, rows)


def _trials(points):
    names = list(points[0].hyperparameters)
    rows = [
        [
            point.trial,
            *[_cell(point.hyperparameters.get(name)) for name in names],
            _percent(point.value, point.spread),
            str(point.executions),
            f"{point.cost:.2f}",
        ]
        for point in sorted(points, key=lambda point: -point.value)
    ]
    header = ["trial", *names, "accuracy (%), mean ± spread", "executions", "latency (ms)"]
    return markdown_table(header, rows)


def _outcomes(rows):
    counts = [
        f"{sum(row['status'] == status for row in rows)} {status}"
        for status in ("completed", "infeasible", "failed")
    ]
    return f"{len(rows)} executions: {', '.join(counts)}."


def _correlations(rows):
    found = [
        signal
        for signal in _SIGNALS
        if sum(row.get(signal) is not None for row in rows if row["status"] == "completed") >= 4
    ]
    lines = []
    for signal in found:
        try:
            lines.append(f"* {signal_correlation(rows, signal)}\n")
        except ValueError:  # enough executions, but too few trials
            continue
    return "".join(lines)


def _percent(mean, spread):
    return f"{100 * mean:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "")


def _cell(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)
