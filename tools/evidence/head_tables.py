"""The tables of `zoo/HEADS.md`, made from the csv files that `lsmha zoo heads` writes."""

import pathlib
import statistics

from lsmha_keras.commands._zoo_heads import COLUMNS
from lsmha_keras.text_files import markdown_table, read_rows

# What may be lost by a model that lost heads, in points.
LOSS = 0.5


def curves_table(results_dir):
    """Tabulates points lost against the share of heads removed, for every score, untuned (H1).

    Args:
        results_dir: path of `zoo/results`, with `heads/curves.csv`.

    Returns:
        str, a Markdown table: a row for each preset and score; of random rankings the mean over
        draws.
    """
    rows = _read(results_dir, "curves")
    fractions = sorted({float(row["fraction"]) for row in rows})
    header = ["preset", "score", *(f"{100 * f:g} % gone" for f in fractions)]
    header.append(f"most heads at up to {LOSS} points")
    lines = []
    for (preset, score), group in _grouped(rows, "preset", "score").items():
        lost = {f: _loss(group, f) for f in fractions}
        lines.append([preset, score, *map(_points, lost.values()), _most(group)])
    return markdown_table(header, lines)


def tuned_table(results_dir):
    """Tabulates accuracy before and after a short fine-tuning (H2).

    Args:
        results_dir: path of `zoo/results`, with `heads/tuned.csv`.

    Returns:
        str, a Markdown table: mean over seeds and, of more than one, standard deviation.
    """
    header = ["preset", "chosen by", "heads removed", "images tuned on", "seeds"]
    header += ["before (%)", "after (%)", "standard deviation"]
    keys = ("preset", "score", "removed", "tuning_images")
    lines = []
    for key, group in _grouped(_read(results_dir, "tuned"), *keys).items():
        before, after = ([100 * float(row[k]) for row in group] for k in _ACCURACIES)
        spread = f"{statistics.stdev(after):.2f}" if len(after) > 1 else ""
        means = [f"{statistics.mean(values):.2f}" for values in (before, after)]
        lines.append([*key[:3], f"{int(key[3]):,}", str(len(group)), *means, spread])
    return markdown_table(header, lines)


_ACCURACIES = ("accuracy_untuned", "accuracy")


def flips_table(results_dir):
    """Tabulates what turning a superclass's heads around costs it, and the rest (H3).

    Args:
        results_dir: path of `zoo/results`, with `heads/flips.csv`.

    Returns:
        str, a Markdown table: points lost, means over the superclasses; and the number of them that
        lose more than the rest does, and more than with random heads.
    """
    header = ["preset", "superclasses", "heads turned", "the superclass loses", "the rest loses"]
    header += ["random heads: it loses", "the rest loses", "it loses more than the rest"]
    header += ["and more than with random heads"]
    lines = []
    for (preset,), group in _grouped(_read(results_dir, "flips"), "preset").items():
        lost, rest = (
            {kind: _lost(group, kind, part) for kind in _TURNED} for part in ("", "_rest")
        )
        means = [statistics.mean(part[kind]) for kind in _TURNED for part in (lost, rest)]
        more = sum(map(float.__gt__, lost["chosen"], rest["chosen"]))
        random = sum(map(float.__gt__, lost["chosen"], lost["random"]))
        turned = str(len(group[0]["heads"].split()))
        counts = [f"{more} of {len(group)}", f"{random} of {len(group)}"]
        lines.append([preset, str(len(group)), turned, *map(_points, means), *counts])
    return markdown_table(header, lines)


_TURNED = ("chosen", "random")


def _lost(group, kind, part):
    """Points that each superclass, or the rest (`part="_rest"`), loses."""
    return [100 * (float(row[f"whole{part}"]) - float(row[f"{kind}{part}"])) for row in group]


def agreement_table(results_dir):
    """Tabulates how alike three views of the heads are, block by block (H4).

    Args:
        results_dir: path of `zoo/results`, with `heads/agreement.csv`.

    Returns:
        str, a Markdown table: adjusted Rand index of clusters of heads and rank correlation, each
        with its p value under permutations.
    """
    header = ["preset", "block", "views", "clusters", "adjusted Rand index", "p"]
    header += ["rank correlation", "p"]
    lines = [
        [
            *(row[key] for key in ("preset", "block", "pair", "clusters")),
            *(_number(row[key]) for key in ("rand_index", "rand_p")),
            *(_number(row[key]) for key in ("correlation", "correlation_p")),
        ]
        for row in _read(results_dir, "agreement")
    ]
    return markdown_table(header, lines)


def speed_table(results_dir):
    """Tabulates how much faster models are with fewer heads or maps (H5).

    Args:
        results_dir: path of `zoo/results`, with `head_speed.csv` of `benchmarks/heads.py`.

    Returns:
        str, a Markdown table: medians, and in brackets the 90th percentiles.
    """
    header = ["model", "backend", "batch", "heads", "maps", "milliseconds", "times as fast"]
    rows = read_rows(pathlib.Path(results_dir) / "head_speed.csv", _SPEED)
    lines = [
        [
            *(row["parent"], row["backend"], row["batch"]),
            *(row[key].split()[0] for key in ("heads", "maps")),  # the same in all blocks
            f"{float(row['p50_ms']):,.1f} ({float(row['p90_ms']):,.1f})",
            f"{float(row['speedup']):.2f}",
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


_SPEED = ("backend", "parent", "batch", "heads", "maps", "p50_ms", "p90_ms", "speedup")

TABLES = {
    "H1": curves_table,
    "H2": tuned_table,
    "H3": flips_table,
    "H4": agreement_table,
    "H5": speed_table,
}


def _read(results_dir, part):
    return read_rows(pathlib.Path(results_dir) / "heads" / f"{part}.csv", COLUMNS[part])


def _grouped(rows, *keys):
    found = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def _loss(group, fraction):
    """Points lost, mean over draws; `None` where this share was not measured."""
    lost = [-100 * float(row["difference"]) for row in group if float(row["fraction"]) == fraction]
    return statistics.mean(lost) if lost else None


def _points(lost):
    return "" if lost is None else f"{lost:.2f}"


def _most(group):
    """The largest number of heads that went, before more went, for at most `LOSS` points."""
    most = 0
    for fraction in sorted({float(row["fraction"]) for row in group}):
        if _loss(group, fraction) > LOSS:
            break
        most = next(int(row["removed"]) for row in group if float(row["fraction"]) == fraction)
    return str(most)


def _number(text):
    return f"{float(text):.2f}" if text else ""
