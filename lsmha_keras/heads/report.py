"""Writes explanations of a photo or a text into a folder: pictures, a table, and a page."""

import base64
import io
import pathlib

import numpy as np

from lsmha_keras.figure_style import save_figure
from lsmha_keras.files import fill_directory
from lsmha_keras.heads.explanation import COLORS
from lsmha_keras.heads.sequence_explanation import SequenceExplanation
from lsmha_keras.text_files import write_rows
from lsmha_keras.web_page import render_web_page

_WEB = pathlib.Path(__file__).parent / "web"
_TOP = 5
_HEAD_NOTE = (
    "Attention of one head, as a mean over queries, weighted as the tokens are pooled. It shows "
    "where the head looks, not what it concludes."
)
_NOTES = {
    "relevance": "Attention weighted by the derivatives of the label's logit, in logits "
    "(Chefer et al., 2021). What lowers the logit is left out.",
    "rollout": "The attention of all blocks multiplied, skip connections included with one half "
    "(Abnar and Zuidema, 2020). It does not depend on the label.",
    "flow": "How much could flow through the attention of all blocks to each token "
    "(Abnar and Zuidema, 2020). It does not depend on the label.",
    "maps": "Attention of the last block, a mean over its heads. It does not depend on the label.",
    "occlusion": "By how much the label's logit falls when a token's cell takes the photo's mean "
    "colour. Where it rises, nothing is painted. It is the check of the other methods.",
}
_SEQUENCE_NOTES = {
    "occlusion": "By how much the label's logit falls when a word is replaced by one that the "
    "model does not know, or a time step by the mean of the series. Where it rises, nothing is "
    "coloured. It is the check of the other methods.",
}


def write_explanations(explanations, output_dir, title, about=""):
    """Writes explanations of one photo, text or series.

    * `index.html`: a page that needs no other file and no network;
    * `<method>.png` and `.svg`: the photo and the relevance over it, or a bar for each word, and
      `heads.png` and `.svg`, the maps of all heads, if `"maps"` is among the methods;
    * `relevance.csv`: a row per token or word, a column per method.

    Args:
        explanations: dict from method to `Explanation`, as `explain_all` returns it.
        output_dir: folder; made if missing, and files in it are written over. When something fails,
            it is as it was.
        title: str, title of the page.
        about: str, the line below it.

    Returns:
        The path of `index.html`.

    Raises:
        ImportError: if matplotlib is missing.
        OSError: if something cannot be written.

    Example:

    ```python
    write_explanations(explain_all(model, "photo.jpg"), "runs/photo", "photo.jpg")
    ```
    """
    output_dir = pathlib.Path(output_dir)
    with fill_directory(output_dir) as folder:
        for method, explanation in explanations.items():
            figures = {method: explanation.plot()}
            if explanation.head_maps is not None:
                figures["heads"] = explanation.plot_heads()
            for name, figure in figures.items():
                for ending in (".png", ".svg"):
                    save_figure(figure, folder / f"{name}{ending}")
        write_rows(folder / "relevance.csv", _rows(explanations))
        page = render_page(explanations, title, about)
        (folder / "index.html").write_text(page, encoding="utf-8")
    return output_dir / "index.html"


def render_page(explanations, title, about=""):
    """Renders explanations as an HTML page without any other file or network access.

    Args:
        explanations: as for `write_explanations`.
        title: str.
        about: str.

    Returns:
        The page as a str.

    Example:

    ```python
    page = render_page(explain_all(model, "photo.jpg"), "photo.jpg")
    ```
    """
    first = next(iter(explanations.values()))
    is_sequence = isinstance(first, SequenceExplanation)
    notes = {**_NOTES, **(_SEQUENCE_NOTES if is_sequence else {})}
    data = {
        "title": title,
        "about": about,
        **_shown(first),
        "grid": list(first.grid_shape),
        "colors": COLORS.tolist(),
        "classes": _classes(first),
        "methods": [
            {"title": e.title, "tokens": _short(e.tokens), "note": notes[method]}
            for method, e in explanations.items()
        ],
        "heads": [
            {"block": block, "maps": [_short(tokens) for tokens in maps]}
            for e in explanations.values()
            for block, maps in (e.head_maps or {}).items()
        ],
        "head_note": _HEAD_NOTE,
    }
    return render_web_page(_WEB, data)


def _rows(explanations):
    first = next(iter(explanations.values()))
    for token in range(len(first.tokens)):
        row, column = divmod(token, first.grid_shape[1])
        place = {"row": row, "column": column}
        if isinstance(first, SequenceExplanation):
            place = {"place": token, "word": first.words[token]}
        values = {method: f"{e.tokens[token]:.6g}" for method, e in explanations.items()}
        yield {**place, **values}


def _shown(explanation):
    if isinstance(explanation, SequenceExplanation):
        return {"words": explanation.words}
    return {"photo": _data_url(explanation.image)}


def _classes(explanation):
    best = explanation.probabilities.argsort()[::-1][:_TOP].tolist()
    listed = best if explanation.label in best else [*best, explanation.label]
    return [
        {
            "name": explanation.class_name(k),
            "share": float(explanation.probabilities[k]),
            "explained": k == explanation.label,
        }
        for k in listed
    ]


def _short(tokens):
    return [float(f"{value:.5g}") for value in tokens]


def _data_url(image):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
