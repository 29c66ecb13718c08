"""What the label of a text or a series depends on, word by word or step by step."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.figure_style import NOISE, SIGNAL, draws, new_figure
from lsmha_keras.heads.explanation import Explanation


@dataclasses.dataclass(frozen=True, eq=False)
class SequenceExplanation(Explanation):
    """Which words of a text, or steps of a series, are the reasons for a label.

    Padding is no part of it. A token of the model is made of several neighbouring words; what it
    weighs is spread over them as often as they enter it.

    Attributes:
        method, label, probabilities, class_names: as in `Explanation`.
        image: array `(words, 0)` of texts; of series `(steps, features)`, what the model sees.
        tokens: `(words,)` or `(steps,)` float64, the relevance of each; see `Explanation`. With
            `"occlusion"` by how much the label's logit falls when a word is replaced by one that
            the model does not know, or a step by the mean of the series.
        grid_shape: `(words, 1)`.
        head_maps: with `"maps"`, a dict from block to `(heads, words)`; else `None`.
        words: list of str, the words as they are written; of series the numbers of the steps.

    Example:

    ```python
    explanation = lsmha_keras.explain(model, "Who wrote Ulysses ?")
    dict(zip(explanation.words, explanation.tokens))
    ```
    """

    words: list[str] = dataclasses.field(default_factory=list)

    def upsampled(self, tokens: np.ndarray) -> np.ndarray:
        """Refuses: a text is no picture."""
        raise InputError(
            "Words and steps are not laid over a picture: `tokens` has their relevance, and `plot` "
            f"draws it. Received: an explanation of {len(self.words)} words or steps"
        )

    @draws
    def plot(self) -> Any:
        """Draws the relevance of each word, one below the other.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: if matplotlib is missing.
        """
        note = f"{self.probabilities[self.label]:.1%} · {self.title}"
        figure = new_figure(6.4, 1.1 + 0.22 * len(self.words), self.name, note)
        axes = figure.subplots()
        places = np.arange(len(self.words))
        colors = [SIGNAL if value >= 0 else NOISE for value in self.tokens]
        axes.barh(places, self.tokens, color=colors)
        axes.set_yticks(places, self.words, parse_math=False)
        axes.invert_yaxis()
        axes.axvline(0, color="#52606d", linewidth=0.8)
        return figure

    @draws
    def plot_heads(self) -> Any:
        """Draws what each head looks at: a row a head, a column a word; see `Explanation`."""
        if self.head_maps is None:
            return super().plot_heads()
        note = "Attention of each head, as a mean over queries, weighted as the tokens are pooled"
        rows = [len(maps) for maps in self.head_maps.values()]
        figure = new_figure(
            1.4 + 0.32 * len(self.words), 1.6 + 0.14 * sum(rows) + 0.4 * len(rows), self.name, note
        )
        panels = figure.subplots(len(rows), squeeze=False, sharex=True, height_ratios=rows)
        for axes, (block, maps) in zip(panels.flat, self.head_maps.items(), strict=True):
            axes.imshow(maps, aspect="auto", cmap="YlOrRd", vmin=0, interpolation="nearest")
            axes.set_ylabel(f"block {block}\nhead")
        axes.set_xticks(np.arange(len(self.words)), self.words, rotation=90, parse_math=False)
        return figure
