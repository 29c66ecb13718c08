"""Scores of heads as a table: a row a head, a column a method."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np

from lsmha_keras.errors import InputError, nearest
from lsmha_keras.shp.statistics import spearman
from lsmha_keras.text_files import read_rows, write_rows
from lsmha_keras.types import PathLike

# Each score, and whether heads matter more the higher it is: those that look everywhere, and those
# that repeat others, are the first to go.
SCORES = {
    "shp_coverage": 1,
    "shp_clusters": 1,
    "shp_snr": 1,
    "accuracy_drop": 1,
    "mask_gradient": 1,
    "attention_entropy": -1,
    "attention_distance": 1,
    "offset": 1,
    "map_redundancy": -1,
    "output_redundancy": -1,
    "random": 1,
}
# Short for the first.
ALIASES = {"shp": "shp_coverage"}


class HeadScoreTable(Mapping):
    """What `head_scores` measures: a mapping from block to `{method: (heads,) array}`.

    Args:
        values: such a dict; every block has the same methods.
        weights: str, a digest of the model's weights, or "" if it is not known.

    Raises:
        ValueError: if blocks have different methods, or a method not one value for each head.

    Example:

    ```python
    table = HeadScoreTable({0: {"accuracy_drop": [0.1, 0.0]}})
    table.importance("accuracy_drop")  # {0: array([0.1, 0. ])}
    print(table)
    ```
    """

    def __init__(self, values: Mapping[int, Mapping[str, Any]], weights: str = "") -> None:
        self._values = {
            int(block): {name: np.asarray(x, "float64") for name, x in scores.items()}
            for block, scores in values.items()
        }
        self.weights = weights
        methods = [list(scores) for scores in self._values.values()]
        shapes = [{x.shape for x in scores.values()} for scores in self._values.values()]
        if any(names != methods[0] for names in methods) or any(
            len(found) > 1 or any(len(shape) != 1 for shape in found) for found in shapes
        ):
            raise InputError(
                "Each block must have the same methods, and each method one score for each head. "
                f"Received: methods {methods}, shapes {shapes}"
            )

    @property
    def methods(self) -> list[str]:
        """The names of the columns."""
        return [name for scores in list(self._values.values())[:1] for name in scores]

    def __getitem__(self, block: int) -> dict[str, np.ndarray]:
        return self._values[block]

    def __iter__(self) -> Iterator[int]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def importance(self, method: str) -> dict[int, np.ndarray]:
        """Returns one score, turned so that the heads with the lowest values are the first to go.

        Args:
            method: str, a column; `"shp"` is short for `"shp_coverage"`. Scores of your own are
                taken as they are.

        Returns:
            A dict from block to a float64 array `(heads,)`.

        Raises:
            ValueError: if there is no such column; names the nearest.
        """
        name = ALIASES.get(method, method)
        if name not in self.methods:
            raise InputError(
                f"The table has the scores {', '.join(self.methods)}{nearest(name, self.methods)}. "
                f"Received: {method!r}"
            )
        return {block: SCORES.get(name, 1) * scores[name] for block, scores in self.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Returns a dict for each head: its block, its number and its scores."""
        return [
            {"block": block, "head": head, **{name: float(x[head]) for name, x in scores.items()}}
            for block, scores in self.items()
            for head in range(len(next(iter(scores.values()), ())))
        ]

    def save(self, path: PathLike) -> None:
        """Writes the table as csv, whole or not at all; `load` reads it."""
        columns = ["block", "head", *self.methods, "weights"]
        write_rows(path, [{**row, "weights": self.weights} for row in self.rows()], columns)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Reads a csv file with the columns `block`, `head` and one for each method.

        Raises:
            ValueError: if the file does not exist, lacks a column or a head, or holds other than
                numbers.
        """
        rows = read_rows(path, ["block", "head"])
        if not rows:
            raise InputError(f"There must be scores of heads. Received: none at {path}")
        methods = [name for name in rows[0] if name not in ("block", "head", "weights")]
        found: dict[int, dict[int, list[float]]] = {}
        try:
            for row in rows:
                heads = found.setdefault(int(row["block"]), {})
                heads[int(row["head"])] = [float(row[name]) for name in methods]
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} must hold numbers. Received: {row}") from error
        values = {}
        for block, heads in found.items():
            if sorted(heads) != list(range(len(heads))):
                raise InputError(
                    f"{path} must have a row for each head. Received: of block {block} the heads "
                    f"{sorted(heads)}"
                )
            columns = np.array([heads[head] for head in range(len(heads))]).reshape(len(heads), -1)
            values[block] = dict(zip(methods, columns.T, strict=True))
        return cls(values, rows[0].get("weights") or "")

    def __str__(self) -> str:
        lines = [["block", "head", *self.methods]]
        for row in self.rows():
            block, head, *scores = row.values()
            lines.append([str(block), str(head), *(f"{score:.4g}" for score in scores)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in lines
        )


def weights_digest(model: Any) -> str:
    """Returns 12 hexadecimal digits that change with any weight of a model."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:12]


def rank_correlations(scores, coverage):
    """Compares scores of heads with their coverage by Spearman's rank correlation, block by block.

    Args:
        scores: what `head_scores` returns.
        coverage: dict from block to an array `(heads,)`, such as the number of labels on the
            clusters of each head.

    Returns:
        A dict from block to a dict from a score's name to a float in -1 .. 1, or NaN where score
        or coverage is the same for all heads.

    Raises:
        ValueError: if a block has no coverage or not one value per head.

    Example:
        >>> rank_correlations({1: {"accuracy_drop": [0.1, 0.5, 0.2]}}, {1: [0, 4, 3]})
        {1: {'accuracy_drop': 1.0}}
    """
    for block, by_name in scores.items():
        for values in by_name.values():
            if np.shape(values) != np.shape(coverage.get(block)):
                raise InputError(
                    f"`coverage` must have a value for each of the {len(values)} heads of block "
                    f"{block}. Received: {coverage.get(block)}"
                )
    return {
        block: {name: spearman(values, coverage[block]) for name, values in by_name.items()}
        for block, by_name in scores.items()
    }
