"""The interactive page of a report: one self-contained HTML file."""

import pathlib

import numpy as np

import lsmha_keras
from lsmha_keras.shp.report.page_data import THRESHOLDS, block_data, exemplar_data
from lsmha_keras.shp.report.tables import label_names
from lsmha_keras.web_page import render_web_page

_WEB = pathlib.Path(__file__).parent / "web"
_SCRIPTS = (
    "state.js",
    "tools.js",
    "matrix.js",
    "heads.js",
    "map.js",
    "charts.js",
    "figures.js",
    "page.js",
)
_PAPER = (
    "R. D. Gross, T. Halevi, E. Koresh, Y. Tzach and I. Kanter: Low-latency vision transformers "
    "via large-scale multi-head attention. Physica A 675 (2025), arXiv:2506.23832"
)


def render_page(
    variants,
    title,
    scores=None,
    correlations=None,
    accuracy=None,
    exemplars=None,
    seeds=(),
    beside=None,
    samples="images",
):
    """Renders results as an HTML page that needs no other file and no network.

    The page shows responses in steps of 0.01, rounded up, and the clusters and figures that this
    package finds at the thresholds 0.05, 0.06, ..., 0.95.

    Args:
        variants: dict from a name to `{block: SHPResult}`. The first is the subject of the page,
            the others are for comparison. All have the same blocks.
        title: str.
        scores: `{block: {name: (heads,) array}}` or `None`, other scores of the heads.
        correlations: `{block: {name: float}}` or `None`, as `rank_correlations` returns it.
        accuracy: float in 0 .. 1 or `None`, the accuracy of the model itself on these images.
        exemplars: `Exemplars` or `None`, the images that excite the subject's heads most.
        seeds: list of `{block: SHPResult}`, the subject measured with readouts of other seeds.
        beside: dict from a name to `{block: SHPResult}` or `None`, other models on data with the
            same labels; their blocks and numbers of heads may differ.
        samples: str, what the data are called: "images", "texts" or "series".

    Returns:
        The page as a str.

    Example:

    ```python
    page = render_page({"trained": results, "Gaussian null": null}, "My model")
    pathlib.Path("page.html").write_text(page, encoding="utf-8")
    ```
    """
    results = next(iter(variants.values()))
    first = next(iter(results.values()))
    report = {
        "title": title,
        "about": f"What each attention head alone has learnt: {_setting(first, samples)}",
        "setting": _setting(first, samples),
        "samples": samples,
        "cite": [
            _PAPER,
            f"{title}. Single-head performance, measured with lsmha-keras "
            f"{lsmha_keras.__version__}",
        ],
        "threshold": float(first.threshold),
        "thresholds": THRESHOLDS,
        "label_names": label_names(first),
        "blocks": sorted(results),
        "accuracy": accuracy,
        "variants": [
            {"name": name, "blocks": {block: block_data(r) for block, r in by_block.items()}}
            for name, by_block in {**variants, **(beside or {})}.items()
        ],
        "spread": _spread(results, seeds),
        "scores": _plain(scores or {}),
        "rank_correlations": _plain(correlations or {}),
        "exemplars": exemplar_data(exemplars),
    }
    return render_web_page(_WEB, report, _SCRIPTS)


def _setting(result, samples):
    num_labels = int((result.label_counts > 0).sum())
    count = f"{result.label_counts.sum():,} {samples} of {num_labels} labels"
    return f"{count}, {result.pooling} pooling"


def _spread(results, seeds):
    """Standard deviation of each block's figures over seeds, at the results' threshold."""
    if not seeds:
        return None
    spread = {}
    for block in results:
        runs = [by_block[block] for by_block in (results, *seeds)]
        accuracy, snr = [r.readout_accuracy for r in runs], [r.snr for r in runs]
        spread[block] = {"accuracy": _deviation(accuracy), "snr": _deviation(snr)}
    return {"seeds": 1 + len(seeds), "blocks": spread}


def _deviation(values):
    known = None not in values and np.isfinite(values).all()
    return float(np.std(values, ddof=1)) if known else None


def _plain(value):
    """Converts arrays to lists, and NaN, which JSON lacks, to None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if np.ndim(value):
        return [_plain(item) for item in value]
    return None if np.isnan(value) else float(value)
