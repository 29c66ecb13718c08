"""How good explanations are: what a model answers as parts of the images go or come."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lsmha_keras.arguments import check_takes_images, positive_int
from lsmha_keras.data.labelled import ImageBatches
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.heads.explain import (
    METHODS,
    check_classifier,
    grid_shape,
    painted,
    token_relevance,
)
from lsmha_keras.images import resize_batch
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
        shares: `(steps + 1,)`, the share of the tokens that is gone or there, 0 to 1.
        deletion: dict from method to `(images, steps + 1)`: the probability of the label as the
            most relevant tokens are painted over first. A good explanation makes it fall early.
        insertion: dict of the same shapes: as they come first, on an image of its mean colour.
            A good explanation makes it rise early.
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

    Images are explained for the class that the model finds most likely, right or wrong. Tokens'
    cells take the mean colour of the image, as with `"occlusion"`, which therefore is judged by its
    own kind of question.

    Args:
        model: a `CCTImageClassifier`.
        data: labelled images of any kind; see `ImageBatches`.
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
    check_takes_images(model, "`explanation_curves`")
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
        images = np.rint(resize_batch(images, model.image_shape[:2]))
        labels = model.predict(images, batch_size=batch_size, verbose=0).argmax(axis=1)
        orders = _orders(model, images, labels, methods, rng)
        for method, order in orders.items():
            found[method].append(_curves(model, images, labels, order, steps, batch_size))
        progress.add()
    progress.finish()
    both = {method: np.concatenate(parts, axis=1) for method, parts in found.items()}
    return ExplanationCurves(
        np.linspace(0, 1, steps + 1),
        {method: curves[0] for method, curves in both.items()},
        {method: curves[1] for method, curves in both.items()},
    )


def _orders(model, images, labels, methods, rng):
    """Tokens of each image, the most relevant first: a dict from method to `(images, tokens)`."""
    explained = [method for method in methods if method != RANDOM]
    relevance = token_relevance(model, images, labels, explained) if explained else {}
    if RANDOM in methods:
        relevance[RANDOM] = rng.uniform(size=(len(images), np.prod(grid_shape(model))))
    return {method: np.argsort(-relevance[method], axis=1, kind="stable") for method in methods}


def _curves(model, images, labels, order, steps, batch_size):
    """Probabilities of the labels, `(2, images, steps + 1)`: deletion, then insertion."""
    tokens = order.shape[1]
    ranks = np.argsort(order, axis=1)  # of each token
    counts = np.rint(np.linspace(0, tokens, steps + 1))
    chosen = ranks[:, None] < counts[:, None]  # (images, steps + 1, tokens)
    masks = np.stack([chosen, ~chosen])  # painted in deletion, and in insertion
    copies = np.broadcast_to(images[None, :, None], (*masks.shape[:3], *images.shape[1:]))
    inputs = painted(
        copies.reshape(-1, *images.shape[1:]), masks.reshape(-1, tokens), grid_shape(model)
    )
    outputs = model.predict(inputs, batch_size=batch_size, verbose=0)
    shares = model.probabilities(outputs).reshape(*masks.shape[:3], -1)
    return np.take_along_axis(shares, labels[None, :, None, None], axis=3)[..., 0]
