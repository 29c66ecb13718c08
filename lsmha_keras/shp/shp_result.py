"""The single-head performance of one block."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.files import write_atomically
from lsmha_keras.shp.statistics import BlockStatistics, block_statistics, normalize_matrices
from lsmha_keras.types import PathLike

POOLINGS = ("recomputed", "frozen")


@dataclasses.dataclass(frozen=True, eq=False)
class SHPResult:
    """The response of each head of a block, on its own, to each label.

    Args:
        block: int, index of the block.
        class_means: `(heads, labels, labels)` array; entry `[h, i, j]` is the mean, over images of
            label i, of head h's contribution to output unit j. Stored as float32. Rows of labels
            without images are NaN.
        label_counts: `(labels,)` ints, number of images of each label.
        pooling: `"recomputed"` or `"frozen"`; see `single_head_performance`.
        threshold: float; normalised entries strictly above it become ones. Defaults to `0.3`.
        label_names: list of str or `None`.
        readout_accuracy: float in 0 .. 1, the accuracy of the block's whole readout on these
            images, or `None`.

    Raises:
        ValueError: if a shape is wrong or `pooling` unknown.

    Example:

    ```python
    result = lsmha_keras.single_head_performance(model, readouts, "cifar100")[1]
    print(result.summary())
    result.at(0.4).clusters[7]  # the clusters of head 7 at another threshold
    ```

    References:
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832)
    """

    block: int
    class_means: np.ndarray
    label_counts: np.ndarray
    pooling: str = "recomputed"
    threshold: float = 0.3
    label_names: list | None = None
    readout_accuracy: float | None = None

    def __post_init__(self):
        means = np.asarray(self.class_means, "float32")
        counts = np.asarray(self.label_counts, "int64")
        if means.ndim != 3 or means.shape[1:] != (len(counts), len(counts)):
            raise InputError(
                "`class_means` must have shape (heads, labels, labels) with one entry of "
                f"`label_counts` per label. Received: shapes {means.shape} and {counts.shape}"
            )
        if self.label_names is not None and len(self.label_names) != len(counts):
            raise InputError(
                f"There must be one name per label, {len(counts)} here. "
                f"Received: {len(self.label_names)} names"
            )
        check_pooling(self.pooling)
        object.__setattr__(self, "class_means", means)
        object.__setattr__(self, "label_counts", counts)

    @functools.cached_property
    def matrices(self) -> np.ndarray:
        """`(heads, labels, labels)` float32: class means divided by each head's maximum."""
        return normalize_matrices(self.class_means)[0]

    @functools.cached_property
    def dead(self) -> np.ndarray:
        """`(heads,)` bool: heads without a positive class mean."""
        return normalize_matrices(self.class_means)[1]

    @property
    def boolean(self) -> np.ndarray:
        """`(heads, labels, labels)` bool: where the matrices exceed the threshold."""
        return self.matrices > float(self.threshold)

    @functools.cached_property
    def statistics(self) -> BlockStatistics:
        """The `BlockStatistics` at the threshold."""
        return block_statistics(self.matrices, self.threshold)

    @property
    def clusters(self) -> list[list[list[int]]]:
        """For each head a list of clusters, each a list of labels."""
        return self.statistics.clusters

    @property
    def noise(self) -> float:
        """Float, mean over heads of the number of ones outside clusters."""
        return float(self.statistics.noise.mean())

    @property
    def cluster_noise(self) -> float:
        """Float, as `noise`, of ones in the columns of clustered labels only."""
        return float(self.statistics.cluster_noise.mean())

    @property
    def coverage(self) -> np.ndarray:
        """`(labels,)` ints, number of heads that have the label on a cluster."""
        return self.statistics.coverage

    @property
    def snr(self) -> float:
        """Float, the signal-to-noise ratio."""
        return self.statistics.snr

    @property
    def missing_labels(self) -> list[int]:
        """List of the labels without images."""
        return np.flatnonzero(self.label_counts == 0).tolist()

    def at(self, threshold: float) -> Self:
        """Returns the same result at another threshold."""
        return dataclasses.replace(self, threshold=threshold)

    def summary(self) -> str:
        """Returns the main figures as several lines of text."""
        found, measured = self.statistics, self.label_counts > 0
        coverage = found.coverage[measured]
        accuracy = self.readout_accuracy
        lines = [
            f"Block {self.block}: {len(self.matrices)} heads, {measured.sum()} labels, "
            f"{self.label_counts.sum()} images, pooling {self.pooling}, "
            f"threshold {self.threshold:g}",
            *([] if accuracy is None else [f"  readout accuracy    {accuracy:.2%}"]),
            f"  clusters per head   {found.num_clusters.mean():.2f}",
            f"  labels per cluster  {found.mean_cluster_size:.2f}",
            f"  noise per head      {self.noise:.1f}, {self.cluster_noise:.1f} of it in the "
            "columns of clusters",
            f"  heads per label     mean {coverage.mean():.2f}, from {coverage.min()} to "
            f"{coverage.max()}, none for {(coverage == 0).sum()} labels",
            f"  SNR                 {found.snr:.3g} (of the fields: {found.field_snr:.3g})",
        ]
        if self.dead.any():
            lines.append(f"  dead heads          {np.flatnonzero(self.dead).tolist()}")
        if len(self.matrices) == 1:
            lines.append("  There is one head: its matrix is that of the whole block.")
        if missing := self.missing_labels:
            names = [self.label_names[i] if self.label_names else str(i) for i in missing]
            lines.append(f"  Left out, as they have no images: {', '.join(names)}")
        return "\n".join(lines)

    def plot(self, **kwargs: Any) -> Any:
        """Draws the matrices; see `lsmha_keras.shp.report.plots.plot_matrices`.

        Args:
            **kwargs: passed on.

        Returns:
            A matplotlib `Figure`.
        """
        from lsmha_keras.shp.report.plots import plot_matrices

        return plot_matrices(self, **kwargs)

    def save(self, path: PathLike) -> None:
        """Writes everything to a compressed `.npz`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays = {name: value for name, value in fields.items() if value is not None}
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Reads what `save` wrote.

        Args:
            path: the file.

        Returns:
            An `SHPResult`.

        Raises:
            ValueError: if `save` did not write the file.
        """
        with np.load(path) as file:
            fields = dict(file)
        missing = {"block", "class_means", "label_counts"} - set(fields)
        unknown = set(fields) - {field.name for field in dataclasses.fields(cls)}
        if missing or unknown:
            raise InputError(
                f"The file was not written by `SHPResult.save`. Received: {path} with the arrays "
                f"{sorted(fields)}"
            )
        scalars = {k: v.item() for k, v in fields.items() if v.ndim == 0}
        names = {k: v.tolist() for k, v in fields.items() if k == "label_names"}
        return cls(**{**fields, **scalars, **names})


def check_pooling(pooling):
    """Raises `ValueError` unless `pooling` is one of the two modes."""
    if pooling not in POOLINGS:
        raise InputError(
            f"`pooling` must be one of {', '.join(map(repr, POOLINGS))}. "
            f"Received: pooling={pooling!r}"
        )
