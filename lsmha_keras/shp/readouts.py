"""Readouts: one small classifier per block, on the outputs of all its heads."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from lsmha_keras.checksums import write_checksums
from lsmha_keras.errors import InputError
from lsmha_keras.files import write_atomically
from lsmha_keras.layers.attention_core import open_empty_masks
from lsmha_keras.layers.sequence_pooling import SequencePooling
from lsmha_keras.presets import resolve_preset
from lsmha_keras.types import PathLike


class HeadReadout(keras.layers.Layer):
    """Sequence pooling over all heads, then a linear layer without bias.

    Args:
        num_labels: int.
        seed: int, of the random initial weights.
        **kwargs: base layer arguments, such as `name`.

    Call arguments:
        heads: head outputs `(batch, tokens, heads, head_dim)`.
        padding_mask: optional boolean tensor `(batch, tokens)`, `False` for padding, which gets no
            weight.

    Returns:
        Logits `(batch, num_labels)`.
    """

    def __init__(self, num_labels, seed=0, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        # Seeded: an initializer without a seed draws one from Python's global random state.
        pool, linear = (
            keras.initializers.TruncatedNormal(stddev=0.02, seed=2 * seed + i) for i in range(2)
        )
        self.pooler = SequencePooling(pool, dtype="float32", name="pooler")
        self.linear = keras.layers.Dense(
            num_labels, use_bias=False, kernel_initializer=linear, dtype="float32", name="linear"
        )

    def build(self, input_shape):
        batch, tokens, num_heads, head_dim = input_shape
        self.num_heads = num_heads
        self.pooler.build((batch, tokens, num_heads * head_dim))
        self.linear.build((batch, num_heads * head_dim))

    def call(self, heads, padding_mask=None):
        return self.linear(self.pool(heads, "frozen", padding_mask))

    def pool(self, heads, pooling, padding_mask=None):
        """Pools over tokens, with one set of weights for all heads or one for each.

        Args:
            heads: head outputs `(batch, tokens, heads, head_dim)`.
            pooling: `"frozen"`, with the weights of the whole readout, or `"recomputed"`, with each
                head's own, as if the other heads were zero. The bias shifts the scores of all
                tokens alike and so has no effect.
            padding_mask: as in the call.

        Returns:
            `(batch, heads * head_dim)`, the concatenated pooled outputs of the heads.
        """
        batch, tokens, num_heads, head_dim = ops.shape(heads)
        if pooling == "frozen":
            flat = ops.reshape(heads, (batch, tokens, num_heads * head_dim))
            return self.pooler(flat, padding_mask=padding_mask)
        kernel = ops.reshape(self.pooler.scores.kernel, (num_heads, head_dim))
        scores = ops.sum(heads * kernel, axis=-1)  # (batch, tokens, heads)
        if padding_mask is not None:
            scores, padding_mask = open_empty_masks(scores, padding_mask)
            scores = ops.where(padding_mask[..., None], scores, -np.inf)
        weights = ops.softmax(scores, axis=1)
        pooled = ops.sum(weights[..., None] * heads, axis=1)  # (batch, heads, head_dim)
        return ops.reshape(pooled, (batch, num_heads * head_dim))


# Name in a preset's directory.
FILE_NAME = "shp_readouts.npz"
_ARRAYS = ("pool_kernel", "pool_bias", "kernel")


class BlockReadouts:
    """A sequence pooling and a linear layer without bias for each block, on its head outputs.

    `a = softmax_over_tokens(A w + b)`, `p = sum_t a_t A_t`, `logits = p W`, where A are the
    concatenated head outputs of a block: head h has columns `[h head_dim, (h + 1) head_dim)`.

    Args:
        weights: `{block: (w, b, W)}` with arrays of shapes `(inner, 1)`, `(1,)` and
            `(inner, labels)`, where inner is heads times head_dim.
        accuracy: `{block: float}`, accuracies in 0 .. 1, or `None`.
        label_names: list of str or `None`.
        epochs: int, number of epochs they were fitted for, or `None` if unknown.

    Raises:
        ValueError: if there are no blocks, or the shapes do not fit.

    Example:

    ```python
    readouts = lsmha_keras.fit_readout(model, "cifar100")
    readouts.save("readouts.npz")
    readouts = BlockReadouts.load("readouts.npz")
    print(readouts.accuracy)
    ```
    """

    def __init__(
        self,
        weights: Mapping[int, Any],
        accuracy: Mapping[int, float] | None = None,
        label_names: Sequence[str] | None = None,
        epochs: int | None = None,
    ) -> None:
        self.weights = {
            int(block): tuple(np.asarray(array, "float32") for array in arrays)
            for block, arrays in sorted(weights.items(), key=lambda item: int(item[0]))
        }
        if not self.weights:
            raise InputError("There must be a readout for at least one block. Received: none")
        self.num_labels = next(iter(self.weights.values()))[2].shape[-1]
        for block, arrays in self.weights.items():
            self._check_shapes(block, [array.shape for array in arrays])
        self.accuracy = {int(block): float(value) for block, value in (accuracy or {}).items()}
        self.label_names = None if label_names is None else [str(name) for name in label_names]
        self.epochs = epochs

    @property
    def blocks(self) -> list[int]:
        """List of the indices of the blocks, ascending."""
        return list(self.weights)

    def digest(self) -> str:
        """Returns the SHA-256 of the weights as hexadecimal digits."""
        found = hashlib.sha256()
        for block, arrays in self.weights.items():
            found.update(repr([block, *(array.shape for array in arrays)]).encode())
            for array in arrays:
                found.update(array.tobytes())
        return found.hexdigest()

    def save(self, path: PathLike) -> None:
        """Writes the readouts to an `.npz`, or into a preset's directory.

        Args:
            path: a file, or a directory for a file `shp_readouts.npz`. In a preset's directory the
                checksums are updated.
        """
        path = pathlib.Path(path)
        directory = path if path.is_dir() else None
        path = path / FILE_NAME if directory else path
        arrays = {
            f"block_{block}/{name}": array
            for block, arrays in self.weights.items()
            for name, array in zip(_ARRAYS, arrays, strict=True)
        }
        about = {name: getattr(self, name) for name in ("accuracy", "label_names", "epochs")}
        arrays["about"] = json.dumps(about)
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
        if directory and (directory / "config.json").exists():
            write_checksums(directory)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Reads what `save` wrote.

        Args:
            path: the file, or the name or directory of a preset that has one.

        Returns:
            A `BlockReadouts`.

        Raises:
            ValueError: if there is no such file, or it is not one that `save` wrote.
        """
        path = _find(path)
        with np.load(path) as file:
            arrays = dict(file)
        weights = {}
        try:
            about = json.loads(str(arrays.pop("about")))
            for key in arrays:
                block = int(key.partition("/")[0].removeprefix("block_"))
                weights[block] = tuple(arrays[f"block_{block}/{name}"] for name in _ARRAYS)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"The file was not written by `BlockReadouts.save`. Received: {path}"
            ) from error
        return cls(weights, about["accuracy"], about["label_names"], about.get("epochs"))

    def _check_shapes(self, block, shapes):
        inner = shapes[0][0]
        if shapes != [(inner, 1), (1,), (inner, self.num_labels)]:
            raise InputError(
                "A readout must have arrays of shapes (inner, 1), (1,) and (inner, labels), with "
                f"as many labels in every block. Received: block {block} with shapes {shapes}"
            )


def _find(path):
    if os.path.isfile(path):
        return path

    directory = pathlib.Path(path) if os.path.isdir(path) else resolve_preset(path)
    if isinstance(directory, dict) or not (directory / FILE_NAME).is_file():
        raise InputError(
            f"There is no file {FILE_NAME}: fit readouts with `lsmha_keras.fit_readout` and save "
            f"them there. Received: {path}"
        )
    return directory / FILE_NAME
