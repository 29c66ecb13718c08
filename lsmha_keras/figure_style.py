"""The style of the figures: colours that colour-blind readers can tell apart, small text."""

import functools
import io
import pathlib

from lsmha_keras.errors import InputError, PackageError
from lsmha_keras.files import write_atomically

FORMATS = (".png", ".svg", ".pdf")

INK, MUTED, EMPTY = "#1f2933", "#9aa5b1", "#eef1f4"
SIGNAL, NOISE = "#0b5fa5", "#e07b00"

# What was trained comes first; the controls follow.
_LINES = ((SIGNAL, "-"), ("#7b8794", "--"), (NOISE, "-."), ("#009e73", ":"), ("#a3478f", "--"))

_SETTINGS = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "image.interpolation": "nearest",
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "legend.frameon": False,
    "figure.dpi": 150,
}


def draws(function):
    """Wraps a function that draws, so that it uses the settings of this module."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        with import_matplotlib().rc_context(_SETTINGS):
            return function(*args, **kwargs)

    return wrapper


def import_matplotlib():
    """Returns matplotlib, or raises `ImportError` with what to install."""
    try:
        import matplotlib
    except ImportError as error:
        raise PackageError('Figures need matplotlib: pip install "lsmha-keras[plots]"') from error
    return matplotlib


def new_figure(width, height, title, note=None):
    """Returns a figure with a title and a line below it; sizes in inches.

    It does not use pyplot, so it needs no display and is freed like any other object.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    if note is not None:
        add_line(figure, note)
    return figure


def add_line(figure, text):
    """Writes a line below a figure's title and the lines that are there already.

    Args:
        figure: `matplotlib.figure.Figure` of `new_figure`.
        text: str.
    """
    title = figure.get_suptitle() + "\n"  # so that there is room for the line
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    offset = 0.14 + 0.18 * title.count("\n")  # inches
    place = 1 - offset / figure.get_figheight()
    figure.text(0.01, place, text, ha="left", va="top", fontsize=8.5, color="#52606d")


def line_style(index):
    """Returns colour and line style of the trained model (0) or of a control (1, ...)."""
    color, style = _LINES[index % len(_LINES)]
    return {"color": color, "linestyle": style}


def response_colors():
    """Returns the colour map of responses: orange below zero, blue above, grey where unknown.

    Its steps of 0.1 keep the files of figures small.
    """
    from matplotlib.colors import LinearSegmentedColormap

    colors = ["#8a4b00", "#f0a94e", "#ffffff", "#5fa3dc", "#08325c"]
    return LinearSegmentedColormap.from_list("response", colors, N=21).with_extremes(bad="#c3cad2")


def listed_colors(*colors):
    """Returns a colour map of these colours."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(colors)


def swatches(colors, names):
    """Returns the entries of a legend of filled squares."""
    from matplotlib.patches import Patch

    return [Patch(color=color, label=name) for color, name in zip(colors, names, strict=True)]


def save_figure(figure, path, dpi=200):
    """Saves a figure, whole or not at all.

    Args:
        figure: `matplotlib.figure.Figure`.
        path: file that ends with .png, .svg or .pdf.
        dpi: int, pixels per inch, also of the pictures inside of .svg and .pdf.

    Raises:
        OSError: if it cannot be written.
        ValueError: if it ends with something else.

    Example:

    ```python
    save_figure(explanation.plot_heads(), "heads.png")
    ```
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"Figures are saved as {', '.join(FORMATS)}. Received: {path}")
    content = io.BytesIO()
    figure.savefig(content, format=suffix[1:], dpi=dpi)
    write_atomically(path, content.getvalue())
