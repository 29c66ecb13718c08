"""How good explanations are: what a model answers as parts of its inputs go or come."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lsmha_keras.arguments import positive_int
from lsmha_keras.data.labelled import ImageBatches
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.heads.explain import (
    METHODS,
    check_classifier,
    count_parts,
    hide,
    token_relevance,
)
from lsmha_keras.images import resize_batch
from lsmha_keras.models.block_walk import prepared
from lsmha_keras.progress import Progress
from lsmha_keras.text_files import write_rows
from lsmha_keras.types import PathLike

RANDOM = "random"
# Images that are explained at a time; a batch holds all of their attention.
_EXPLAINED = 20


@dataclasses.dataclass(frozen=True, eq=False)
class ExplanationCurves:
    """Deletion and insertion curves of explanations.

    Attributes:
        shares: `(steps + 1,)`, the share of the parts that is gone or there, 0 to 1.
        deletion: dict from method to `(images, steps + 1)`: the probability of the label as the
            most relevant parts are hidden first. A good explanation makes it fall early.
        insertion: dict of the same shapes: as they come first, where all is hidden. A good
            explanation makes it rise early.
    """

    shares: np.ndarray
    deletion: dict[str, np.ndarray]
    insertion: dict[str, np.ndarray]

    def rows(self) -> list[dict[str, Any]]:
        """Summarises each method by the areas under its curves.

        Returns:
            A list of dicts: `method`, `num_images`, `deletion` and `insertion`, means over images
            of the area under the curve, 0 to 1, and `deletion_error` and `insertion_error`, the
            standard errors of these means. Little `deletion` and much `insertion` are good.
        """
        return [
            {
                "method": method,
                "num_images": len(self.deletion[method]),
                **self._area("deletion", self.deletion[method]),
                **self._area("insertion", self.insertion[method]),
            }
            for method in self.deletion
        ]

    def _area(self, name, curves):
        areas = np.trapezoid(curves, self.shares, axis=1)
        error = areas.std(ddof=1) / len(areas) ** 0.5 if len(areas) > 1 else float("nan")
        return {name: round(areas.mean(), 4), f"{name}_error": round(error, 4)}

    def save(self, path: PathLike) -> None:
        """Writes `rows` as a csv file."""
        write_rows(path, self.rows())


def explanation_curves(
    model: Any,
    data: Any,
    methods: Sequence[str] = (*METHODS, RANDOM),
    steps: int = 8,
    batch_size: int = 64,
    seed: int = 0,
    verbose: int | str = "auto",
    **batch_options: Any,
) -> ExplanationCurves:
    """Measures explanations by what happens when the parts they name are taken away or given.

    Samples are explained for the class that the model finds most likely, right or wrong. What is
    hidden of an image takes its mean colour, hidden words are unknown ones, and hidden time steps
    take the mean of the series, as with `"occlusion"`, which therefore is judged by its own kind of
    question.

    Args:
        model: a `CCTImageClassifier`, `CCTTextClassifier` or `CCTSequenceClassifier`.
        data: labelled images, texts or series of any kind; see `ImageBatches`.
        methods: methods of `lsmha_keras.explain`, and `"random"`, an order that is drawn anew for
            each image. Defaults to all.
        steps: int, steps of a curve. Defaults to `8`.
        batch_size: int, images of a run of the model. Defaults to `64`.
        seed: int, of the random orders and the choice of `max_images`.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.
        **batch_options: `split`, `data_dir` and `max_images` of `ImageBatches`.

    Returns:
        An `ExplanationCurves`.

    Raises:
        ImportError: if SciPy is missing, which `"flow"` needs.
        ValueError: if a method is unknown or cannot follow the model; see `lsmha_keras.explain`.

    Example:

    ```python
    curves = lsmha_keras.explanation_curves(model, "cifar100", max_images=500)
    curves.save("curves.csv")
    ```

    References:
        - [Petsiuk et al., 2018](https://arxiv.org/abs/1806.07421)
    """
    check_classifier(model)
    known = (*METHODS, RANDOM)
    for method in methods:
        if method not in known:
            raise InputError(
                f"`methods` must be some of {known}{nearest(method, known)}. "
                f"Received: method={method!r}"
            )
    steps, rng = positive_int("steps", steps), np.random.default_rng(seed)
    found: dict[str, list] = {method: [] for method in methods}
    batches = ImageBatches(data, _EXPLAINED, model, seed=seed, **batch_options)
    progress = Progress(len(batches), verbose)
    for images, _ in batches.epoch():
        if len(model.image_shape) == 3:
            samples = np.rint(resize_batch(images, model.image_shape[:2]))
        else:
            samples = prepared(model, images)
        labels = model.predict(samples, batch_size=batch_size, verbose=0).argmax(axis=1)
        for method, ranks in _ranks(model, samples, labels, methods, rng).items():
            found[method].append(_curves(model, samples, labels, ranks, steps, batch_size))
        progress.add()
    progress.finish()
    both = {method: np.concatenate(parts, axis=1) for method, parts in found.items()}
    return ExplanationCurves(
        np.linspace(0, 1, steps + 1),
        {method: curves[0] for method, curves in both.items()},
        {method: curves[1] for method, curves in both.items()},
    )


def _ranks(model, samples, labels, methods, rng):
    """Rank of each part by relevance, from 0: a dict from method to `(samples, parts)`."""
    explained = [method for method in methods if method != RANDOM]
    relevance = token_relevance(model, samples, labels, explained) if explained else {}
    counts = count_parts(model, samples)
    places = np.arange(samples.shape[1] if samples.ndim < 4 else counts[0])
    if RANDOM in methods:
        relevance[RANDOM] = rng.uniform(size=(len(samples), len(places)))
    found = {}
    for method in methods:
        there = np.where(places < counts[:, None], relevance[method], -np.inf)  # padding comes last
        order = np.argsort(-there, axis=1, kind="stable")
        found[method] = np.argsort(order, axis=1)
    return found


def _curves(model, samples, labels, ranks, steps, batch_size):
    """Probabilities of the labels, `(2, samples, steps + 1)`: deletion, then insertion."""
    parts = count_parts(model, samples)[:, None, None]
    first = np.rint(np.linspace(0, 1, steps + 1)[:, None] * parts)
    ranks = ranks[:, None]  # (samples, 1, parts)
    masks = np.stack([ranks < first, (ranks >= first) & (ranks < parts)])
    copies = np.broadcast_to(samples[None, :, None], (*masks.shape[:3], *samples.shape[1:]))
    inputs = hide(model, copies.reshape(-1, *samples.shape[1:]), masks.reshape(-1, masks.shape[-1]))
    outputs = model.predict(inputs, batch_size=batch_size, verbose=0)
    shares = model.probabilities(outputs).reshape(*masks.shape[:3], -1)
    return np.take_along_axis(shares, labels[None, :, None, None], axis=3)[..., 0]
