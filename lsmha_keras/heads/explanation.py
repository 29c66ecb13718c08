"""What an image's label depends on, as numbers and as a picture."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.figure_style import draws, new_figure, save_figure
from lsmha_keras.types import PathLike

# From no relevance to all of it: clear, yellow, orange, red.
COLORS = np.array([[255, 243, 176], [253, 190, 80], [240, 100, 40], [165, 15, 35]], "float64")
_TITLES = {
    "rollout": "attention rollout",
    "flow": "attention flow",
    "relevance": "gradient-weighted relevance",
    "maps": "attention of the last block",
    "occlusion": "occlusion",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Where in an image the reasons for a label are; what `lsmha_keras.explain` returns.

    Attributes:
        method: str, how it was found.
        image: `(height, width, 3)` uint8, the part of the photo that the model sees, in a multiple
            of the model's size.
        tokens: `(tokens,)` float64, the relevance of each token, row by row. With `"rollout"`,
            `"flow"` and `"maps"` shares that sum to 1; with `"relevance"` in logits; with
            `"occlusion"` by how much the label's logit falls, negative where it rises.
        grid_shape: `(grid_height, grid_width)` of the tokens.
        label: int, the class that is explained.
        probabilities: `(classes,)` float64, of all classes.
        class_names: list of str or `None`.
        head_maps: with `"maps"`, a dict from block to what each head looks at, `(heads, tokens)`;
            else `None`.

    Example:

    ```python
    explanation = lsmha_keras.explain(model, "photo.jpg")
    explanation.save("photo_relevance.svg")
    ```
    """

    method: str
    image: np.ndarray
    tokens: np.ndarray
    grid_shape: tuple[int, int]
    label: int
    probabilities: np.ndarray
    class_names: list[str] | None = None
    head_maps: dict[int, np.ndarray] | None = None

    @property
    def name(self) -> str:
        """Name of the class that is explained; "class 3" if the classes have no names."""
        return self.class_name(self.label)

    def class_name(self, label: int) -> str:
        """Name of a class, such as "class 3" if the classes have no names."""
        return self.class_names[label] if self.class_names else f"class {label}"

    @property
    def title(self) -> str:
        """The method in words."""
        return _TITLES[self.method]

    @property
    def map(self) -> np.ndarray:
        """`(height, width)` float32: the tokens' relevance at the size of `image`."""
        return self.upsampled(self.tokens)

    def upsampled(self, tokens: np.ndarray) -> np.ndarray:
        """Lays values of tokens over the image, bilinearly.

        Convolutional blocks keep the grid, so a token stands for its cell however many of them come
        first; they look beyond it.

        Args:
            tokens: `(tokens,)` array.

        Returns:
            `(height, width)` float32.
        """
        from PIL import Image

        height, width = self.image.shape[:2]
        grid = np.reshape(tokens, self.grid_shape).astype("float32")
        return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR))

    def overlay(self, tokens: np.ndarray | None = None) -> np.ndarray:
        """Paints relevance over the image, which is grey where nothing matters.

        Args:
            tokens: `(tokens,)` array, such as a head's map; `None` for `self.tokens`. What is
                negative is not painted.

        Returns:
            `(height, width, 3)` uint8.
        """
        share = np.maximum(self.upsampled(self.tokens if tokens is None else tokens), 0)
        share = share / (share.max() or 1)
        place = share * (len(COLORS) - 1)
        below = np.minimum(place.astype(int), len(COLORS) - 2)
        between = (place - below)[..., None]
        color = (1 - between) * COLORS[below] + between * COLORS[below + 1]
        grey = np.repeat(self.image @ np.array([0.299, 0.587, 0.114])[:, None], 3, axis=-1)
        strength = (0.75 * np.sqrt(share))[..., None]  # what is weak is to be seen too
        return np.rint((1 - strength) * grey + strength * color).astype("uint8")

    @draws
    def plot(self) -> Any:
        """Draws the image and its overlay side by side, for a slide.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: if matplotlib is missing.
        """
        height, width = self.image.shape[:2]
        note = f"{self.probabilities[self.label]:.1%} · {self.title}"
        figure = new_figure(6.4, 0.75 + 3.1 * height / width, self.name, note)
        for axes, picture in zip(figure.subplots(1, 2), (self.image, self.overlay()), strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.axis("off")
        return figure

    @draws
    def plot_heads(self) -> Any:
        """Draws what each head looks at: a row of overlays per block.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: if matplotlib is missing.
            ValueError: if the method is not `"maps"`.
        """
        if self.head_maps is None:
            raise InputError(
                "Only an explanation with `method='maps'` knows single heads. "
                f"Received: method={self.method!r}"
            )
        across = min(16, max(len(maps) for maps in self.head_maps.values()))
        rows = [
            (block, start, maps[start : start + across])
            for block, maps in self.head_maps.items()
            for start in range(0, len(maps), across)
        ]
        note = "Attention of each head, as a mean over queries, weighted as the tokens are pooled"
        figure = new_figure(0.7 * across + 0.6, 0.85 * len(rows) + 0.7, self.name, note)
        panels = figure.subplots(len(rows), across, squeeze=False)
        for axes in panels.flat:
            axes.axis("off")
        for line, (block, start, maps) in zip(panels, rows, strict=True):
            for column, (axes, tokens) in enumerate(zip(line, maps, strict=False)):
                axes.imshow(self.overlay(tokens))
                axes.set_title(f"{block}/{start + column}", fontsize=6, pad=2)
        return figure

    def save(self, path: PathLike) -> None:
        """Saves the figure that `plot` draws.

        Args:
            path: file that ends with .png, .svg or .pdf.

        Raises:
            ImportError: if matplotlib is missing.
            OSError: if it cannot be written; nothing is left behind.
            ValueError: if it ends with something else.
        """
        save_figure(self.plot(), path)
