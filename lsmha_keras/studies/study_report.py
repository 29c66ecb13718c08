"""What a study found out, as Markdown."""

import statistics

from lsmha_keras.studies.signal_correlation import signal_correlation
from lsmha_keras.studies.trial_points import pareto_front, trial_points
from lsmha_keras.tables import markdown_table

_SIGNALS = ("shp_snr", "shp_readout_accuracy")


def study_report(rows, notes=()):
    """Lays out what a study found out: its trials, its front, each setting, the heads' signals.

    Args:
        rows: list of dicts, rows of a study's table.
        notes: list of str, what `at_bounds` says of the best trial.

    Returns:
        str, Markdown.

    Raises:
        ValueError: if no trial was completed.

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
        # A continuous one has hardly two trials with one value: no table of it.
        if 1 < len(settings) <= len(points) / 2:
            parts.append(f"## By {name}\n\n{setting_table(points, name)}")
    if correlations := _correlations(rows):
        parts.append(f"## Do the heads' signals tell the accuracy?\n\n{correlations}")
    return "\n".join(parts)


def setting_table(points, name):
    """Lays out what the trials with each setting of a hyperparameter reached.

    Args:
        points: list of `TrialPoint`, its cost the latency.
        name: str, of the hyperparameter.

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
                _short(setting),
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
            *[_short(point.hyperparameters.get(name)) for name in names],
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
        except ValueError:  # many executions of a few trials
            continue
    return "".join(lines)


def _percent(mean, spread):
    return f"{100 * mean:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "")


def _short(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)
