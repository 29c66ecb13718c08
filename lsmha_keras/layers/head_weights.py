"""The weights of attention, head by head: read, written, and handed on without some heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Self

import numpy as np
from keras import ops

from lsmha_keras.arguments import plain
from lsmha_keras.errors import InputError
from lsmha_keras.layers.weight_arguments import built_with_weights


class HeadWeights:
    """What `LargeScaleMultiHeadAttention` knows of the heads in its kernels.

    A kind of attention whose heads have weights beside the `qkv` and `projection` of plain
    attention overrides `take_head_weights`, and `pruned_options` where its arguments name heads.
    A kind whose heads cannot be removed one by one overrides `head_units`.
    """

    # Of the layer.
    num_heads: int
    projection: Any
    weights: Any
    _head_dim: int

    @property
    def width(self) -> int:
        """Width of one head, an int; known once the layer is built."""
        return self._head_dim

    def prune(self, keep: Sequence[int]) -> Self:
        """Makes a smaller layer with some of this layer's heads.

        It computes what this layer does with a `head_mask` that is 0 for the other heads.

        Args:
            keep: list of indices of heads, at least one. Their order is kept.

        Returns:
            A built layer of the same kind, with `head_dim` set.

        Raises:
            ValueError: if a head is unknown, none is left, the layer is quantised, or this kind
                cannot lose these heads.

        Example:

        ```python
        layer = lsmha_keras.LargeScaleMultiHeadAttention(num_heads=8)
        layer.build((None, 64, 32))
        layer.prune([0, 3, 5]).num_heads  # 3
        ```
        """
        self.head_units()
        keep = self.check_kept(keep)
        smaller = {"num_heads": len(keep), "head_dim": self.width, **self.pruned_options(keep)}

        def build():
            new = type(self).from_config({**self.get_config(), **smaller})
            new.build((None, None, self.projection.kernel.shape[1]))
            new.take_heads(self, keep)
            return new

        return built_with_weights(build)

    def head_units(self) -> list[list[int]]:
        """Lists what can be removed: lists of the heads that can only go together.

        Raises:
            ValueError: if heads of this kind cannot be removed.
        """
        own = [dense.weights for dense in (getattr(self, "qkv", None), self.projection) if dense]
        known = {id(weight) for weights in own for weight in weights}
        inherits = type(self).take_head_weights is HeadWeights.take_head_weights
        if inherits and any(id(weight) not in known for weight in self.weights):
            self.refuse_pruning("it does not override `take_head_weights`, and has weights beside")
        return [[head] for head in range(self.num_heads)]

    def refuse_pruning(self, reason: str) -> NoReturn:
        """Raises the error of a kind whose heads cannot be removed."""
        raise InputError(
            f"Heads cannot be removed from `{type(self).__name__}`: {reason}. Plain attention can "
            'lose them: `lsmha_keras.convert_attention(model, "multi_head")` comes first, with '
            f"`approximate=True` if need be. Received: {self.num_heads} heads of that kind"
        )

    def check_kept(self, keep: Sequence[int]) -> list[int]:
        """Returns the heads that are kept, ascending.

        Raises:
            ValueError: if one is no head of this layer, or there is none.
        """
        heads = list(plain(list(keep)))
        unknown = [h for h in heads if isinstance(h, bool) or h not in range(self.num_heads)]
        if unknown or not heads:
            raise InputError(
                f"Heads are numbered from 0 to {self.num_heads - 1}, and one at least stays. "
                f"Received: keep={heads}"
            )
        return sorted(set(heads))

    def pruned_options(self, keep: list[int]) -> dict[str, Any]:
        """Returns the arguments, of this kind alone, of a layer that has some of the heads.

        Args:
            keep: list of ints, ascending.

        Raises:
            ValueError: if there is no such layer.
        """
        return {}

    def take_heads(self, layer: HeadWeights, keep: list[int]) -> None:
        """Takes the weights of some heads of a larger layer of the same kind.

        Args:
            layer: built layer, which is left as it is.
            keep: list of ints, ascending, as many as this layer has heads.

        Raises:
            ValueError: if the layer is quantised.
        """
        self.take_head_weights(layer, keep)
        kernel, *bias = (ops.convert_to_numpy(w) for w in merged_weights(layer.projection))
        rows = kernel.reshape(layer.num_heads, self.width, -1)[keep]
        self.projection.set_weights([rows.reshape(-1, rows.shape[-1]), *bias])

    def take_head_weights(self, layer: HeadWeights, keep: list[int]) -> None:
        """Takes all weights of some heads but those of the output projection; see `take_heads`."""
        self.take_dense("qkv", layer, keep, 3)

    def take_dense(self, name: str, layer: HeadWeights, keep: list[int], parts: int) -> None:
        """Takes the columns of some heads of a projection.

        Args:
            name: str, of the attribute that holds the projection here and there.
            layer: the larger layer.
            keep: list of ints.
            parts: int, how many tensors with a part for each head it projects to.
        """
        found = layer.read_dense(getattr(layer, name), parts)
        self.write_dense(getattr(self, name), [part[:, keep] for part in found])

    def read_dense(self, dense: Any, parts: int) -> list[np.ndarray]:
        """Returns a projection's weights: arrays `(C, heads, head_dim)`, the bias as a last row."""
        weights = [ops.convert_to_numpy(w) for w in merged_weights(dense)]
        joined = np.concatenate([np.reshape(w, (-1, w.shape[-1])) for w in weights])
        shape = (len(joined), -1, self.width)
        return [part.reshape(shape) for part in np.split(joined, parts, axis=1)]

    def write_dense(self, dense: Any, parts: Sequence[np.ndarray]) -> None:
        """Sets a projection's weights from arrays as `read_dense` returns them."""
        joined = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        rows = dense.kernel.shape[0]
        dense.set_weights([joined[:rows], *joined[rows:]])


def merged_weights(dense):
    """Kernel and bias of a dense layer, with what LoRA learned in the kernel."""
    if dense.quantization_mode is not None:
        raise InputError(
            "Attention is changed before the model is quantised. Received: "
            f"{dense.path} in {dense.quantization_mode}"
        )
    return [dense.kernel, *([dense.bias] if dense.use_bias else [])]
