"""The interactive page of a report: one self-contained HTML file."""

import base64
import json
import pathlib
import re

import numpy as np

from lsmha_keras.shp.report.tables import label_names

_WEB = pathlib.Path(__file__).parent / "web"
_SCRIPTS = ("statistics.js", "tools.js", "matrix.js", "page.js")
# Codes of responses: hundredths, rounded up, plus _ZERO; 0 stands for a label without images.
_ZERO = 155


def render_page(variants, title, scores=None, correlations=None):
    """Renders results as an HTML page that needs no other file and no network.

    Responses are embedded in steps of 0.01, rounded up: for a threshold of whole hundredths, the
    page thus finds the same responses above it as this package does.

    Args:
        variants: dict from a name to `{block: SHPResult}`. The first is the subject of the page,
            the others are for comparison. All have the same blocks.
        title: str.
        scores: `{block: {name: (heads,) array}}` or `None`, other scores of the heads.
        correlations: `{block: {name: float}}` or `None`, as `rank_correlations` returns it.

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
        "about": _about(first),
        "threshold": float(first.threshold),
        "label_names": label_names(first),
        "blocks": sorted(results),
        "variants": [
            {"name": name, "blocks": {block: _block(r) for block, r in by_block.items()}}
            for name, by_block in variants.items()
        ],
        "scores": _plain(scores or {}),
        "rank_correlations": _plain(correlations or {}),
    }
    # "</script>" in a name would end the script element.
    text = json.dumps(report, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    parts = {
        "__STYLE__": _read("page.css"),
        "__REPORT__": text,
        "__SCRIPT__": "\n".join(map(_read, _SCRIPTS)),
    }
    # In one pass, so that marks inside the inserted text are left alone.
    return re.sub("|".join(parts), lambda mark: parts[mark[0]], _read("page.html"))


def encode_responses(matrices):
    """Encodes normalised matrices with one byte per entry; see `render_page`.

    Args:
        matrices: float array.

    Returns:
        uint8 array of the same shape; responses below -1.54 are encoded as -1.54.

    Example:
        >>> encode_responses(np.array([1.0, 0.3, 0.301, 0.0, -9.0, np.nan])).tolist()
        [255, 185, 186, 155, 1, 0]
    """
    # In float32, 0.3 is 30.000001 hundredths; rounding to 1e-4 of them undoes that.
    hundredths = np.ceil(np.round(100 * np.asarray(matrices, "float64"), 4))
    codes = np.clip(hundredths, 1 - _ZERO, 100) + _ZERO
    return np.nan_to_num(codes, nan=0.0).astype("uint8")


def _about(result):
    num_labels = int((result.label_counts > 0).sum())
    return (
        f"What each attention head alone has learnt: {result.label_counts.sum():,} images of "
        f"{num_labels} labels, {result.pooling} pooling"
    )


def _block(result):
    return {
        "heads": len(result.matrices),
        "missing": result.missing_labels,
        "dead": np.flatnonzero(result.dead).tolist(),
        "accuracy": result.readout_accuracy,
        "codes": base64.b64encode(encode_responses(result.matrices).tobytes()).decode("ascii"),
    }


def _plain(value):
    """Converts arrays to lists, and NaN, which JSON lacks, to None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if np.ndim(value):
        return [_plain(item) for item in value]
    return None if np.isnan(value) else float(value)


def _read(name):
    return (_WEB / name).read_text(encoding="utf-8")
