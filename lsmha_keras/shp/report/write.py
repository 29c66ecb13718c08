"""Writes a report on single-head performance: arrays, tables, figures and a page."""

import json
import math
import pathlib

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.figure_style import FORMATS, add_line, save_figure
from lsmha_keras.files import fill_directory
from lsmha_keras.shp.controls import THRESHOLDS
from lsmha_keras.shp.head_score_table import rank_correlations
from lsmha_keras.shp.report import plots
from lsmha_keras.shp.report.page import render_page
from lsmha_keras.shp.report.tables import (
    block_rows,
    head_rows,
    label_rows,
    labels_covered,
    sweep_rows,
)
from lsmha_keras.text_files import write_rows

# Enough for a screen: a folder holds many figures.
_DPI = 150


def write_report(
    results,
    output_dir,
    controls=None,
    head_scores=None,
    thresholds=THRESHOLDS,
    title="Single-head performance",
    accuracy=None,
    exemplars=None,
    seeds=(),
    beside=None,
    samples="images",
):
    """Writes a report on the heads of a model to a folder.

    * `index.html`: a self-contained page to explore all heads;
    * `blocks.csv`, `statistics.csv` (a row per block and head), `labels.csv` (how many heads cover
      each label), `threshold_sweep.csv`, `rank_correlations.csv`, `readout_seeds.csv`, and all of
      these in `statistics.json`;
    * `shp.npz`: the mean fields, `<variant>/block_<i>` of shape `(heads, labels, labels)`, with
      `label_counts` and `label_names`;
    * figures: `along_blocks` and, for each block, its matrices, the Boolean matrices, the coverage
      of labels, the map of heads and labels, and the threshold sweep; each as `.png`, `.svg` and
      `.pdf`.

    Args:
        results: `{block: SHPResult}`.
        output_dir: folder, made if missing; files of an earlier report are overwritten.
        controls: dict from a control's name to `{block: SHPResult}` with the same blocks.
        head_scores: dict as `head_scores` returns it, for some or all of the blocks.
        thresholds: list of floats, for the threshold sweep.
        title: str, title of the page, and what the figures say they are of: model and data.
        accuracy: float in 0 .. 1, of the model itself on these images, or `None`.
        exemplars: `Exemplars`, as `find_exemplars` returns them, or `None`.
        seeds: list of `{block: SHPResult}`, the same measured with readouts of other seeds.
        beside: dict from a name to `{block: SHPResult}`, other models, for the page alone.
        samples: str, what the data are called: "images", "texts" or "series".

    Returns:
        The path of `index.html`.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: if there are no results, or a control lacks a block.

    Example:

    ```python
    page = write_report(results, "runs/shp", controls={"untrained trunk": untrained})
    ```
    """
    variants = {"trained": results, **(controls or {})}
    _check_blocks(variants)
    output_dir = pathlib.Path(output_dir)
    with fill_directory(output_dir) as folder:
        _write_tables(folder, variants, head_scores, thresholds, title, accuracy, seeds)
        _write_arrays(folder / "shp.npz", variants)
        _draw(folder, variants, thresholds, title, accuracy, samples)
        page = render_page(
            *(variants, title, head_scores, _correlations(results, head_scores), accuracy),
            *(exemplars, seeds, beside, samples),
        )
        (folder / "index.html").write_text(page, encoding="utf-8")
    return output_dir / "index.html"


def _correlations(results, head_scores):
    covered = {block: labels_covered(result) for block, result in results.items()}
    return rank_correlations(head_scores or {}, covered)


def _write_tables(output_dir, variants, head_scores, thresholds, title, accuracy, seeds):
    results = variants["trained"]
    correlations = _correlations(results, head_scores)
    by_seed = {f"seed {seed}": found for seed, found in enumerate([results, *seeds])}
    tables = {
        "blocks": block_rows(variants),
        "statistics": head_rows(variants, head_scores),
        "labels": label_rows(variants),
        "threshold_sweep": sweep_rows(variants, thresholds),
        "rank_correlations": [{"block": b, **row} for b, row in correlations.items()],
        "readout_seeds": block_rows(by_seed) if seeds else [],
    }
    for name, rows in tables.items():
        _write_csv(output_dir / f"{name}.csv", rows)
    content = {"title": title, "accuracy": accuracy, **tables}
    _write_json(output_dir / "statistics.json", content)


def _check_blocks(variants):
    blocks = set(variants["trained"])
    if not blocks:
        raise InputError("There must be results of at least one block. Received: results={}")
    for name, results in variants.items():
        if set(results) != blocks:
            raise InputError(
                f"Every control must have the blocks {sorted(blocks)}. "
                f"Received: {name!r} with {sorted(results)}"
            )


def _write_csv(path, rows):
    if rows:
        # Rows of the first variant have more columns than the others; `write_rows` takes both.
        write_rows(path, [{key: _short(value) for key, value in row.items()} for row in rows])


def _short(value):
    return f"{value:.6g}" if isinstance(value, float) else value


def _write_json(path, content):
    text = json.dumps(_json_value(content), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _json_value(value):
    """Replaces infinities and NaN, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_arrays(path, variants):
    arrays = {
        f"{name}/block_{block}": result.class_means
        for name, results in variants.items()
        for block, result in results.items()
    }
    first = next(iter(variants["trained"].values()))
    arrays["label_counts"] = first.label_counts
    if first.label_names:
        arrays["label_names"] = np.array(first.label_names)
    np.savez_compressed(path, **arrays)


def _draw(output_dir, variants, thresholds, title, accuracy, samples):
    results = variants["trained"]
    controls = {name: found for name, found in variants.items() if name != "trained"}
    first = next(iter(results.values()))
    text = (
        f"{title} · {first.label_counts.sum():,} {samples} · threshold {first.threshold:g} · "
        f"{first.pooling} pooling"
    )
    along = plots.plot_along_blocks(results, controls, accuracy)
    _save(output_dir, {"along_blocks": along}, text)
    for block, result in results.items():
        others = {name: by_block[block] for name, by_block in controls.items()}
        figures = {
            "matrices": plots.plot_matrices(result),
            "boolean": plots.plot_boolean(result),
            "coverage": plots.plot_coverage(result, others),
            "head_label_map": plots.plot_head_label_map(result),
            "threshold_sweep": plots.plot_threshold_sweep(result, thresholds, others),
        }
        _save(output_dir, {f"block_{block}_{name}": f for name, f in figures.items()}, text)


def _save(output_dir, figures, text):
    for name, figure in figures.items():
        add_line(figure, text)
        for ending in FORMATS:
            save_figure(figure, output_dir / f"{name}{ending}", _DPI)
