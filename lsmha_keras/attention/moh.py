"""Mixture of heads: each token chooses which heads it listens to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import plain, whole_number
from lsmha_keras.attention.routing import balance_loss, check_gates, choose
from lsmha_keras.errors import InputError
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention


@keras.saving.register_keras_serializable(package="lsmha_keras")
class MixtureOfHeads(LargeScaleMultiHeadAttention):
    """Multi-head attention with gates: some heads are always on, each token chooses others.

    The first `num_shared` heads get `num_shared * softmax(x W_s)`, the others
    `top_k * p / sum of the chosen p` with `p = softmax(x W_r)`, zero where a head is not chosen;
    the two groups are weighted by `2 softmax(x W_a)`. So gates are 1 on average, and with all heads
    chosen and routers of zero this is plain attention. Routers compute in float32.

    All heads are computed and multiplied: keys and values are needed for the tokens that chose
    them. Chosen heads save no time here; an ideal kernel would save `1 - (num_shared + top_k) / H`
    of scores and values.

    Per image of `T` tokens of width `C`, beside plain attention's: parameters
    `C (H - num_shared) + C num_shared + 2 C`, multiply-adds `T` times that.

    Args:
        num_heads: int, number of heads, `H`.
        num_shared: int, heads that are always on, or `None` for an eighth of them.
        top_k: int, how many of the others each token chooses, or `None` for as many as make three
            quarters of all heads active. 0 is allowed if all heads are shared.
        balance_loss: float, weight of the loss that keeps the choice even, `heads * sum f_i P_i`,
            added in training. Defaults to `0.01`.
        gate_of_head: list with the gate of each head, or `None`: each head has its own. After
            pruning, the remaining heads keep theirs, and tokens still choose among all of them.
        num_gates: int, how many gates there are with `gate_of_head`.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if there are more shared heads than heads, or more are chosen than there are.

    References:
        - [Jin et al., 2024](https://arxiv.org/abs/2410.11842)
    """

    def __init__(
        self,
        num_heads: int,
        num_shared: int | None = None,
        top_k: int | None = None,
        balance_loss: float = 0.01,
        gate_of_head: Sequence[int] | None = None,
        num_gates: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, **kwargs)
        self.num_shared, self.top_k = plain(num_shared), plain(top_k)
        self.balance_loss = plain(balance_loss)
        self.gate_of_head, self.num_gates = plain(gate_of_head), plain(num_gates)
        self._gates, heads = check_gates(self.num_heads, gate_of_head, num_gates)
        shared = heads // 8 if num_shared is None else self.num_shared
        whole_number("num_shared", shared, 0, heads)
        routed = heads - shared
        lowest = min(1, routed)
        chosen = max(lowest, round(0.75 * heads) - shared) if top_k is None else self.top_k
        chosen = min(chosen, routed) if top_k is None else chosen
        if not isinstance(chosen, int) or not lowest <= chosen <= routed:
            raise InputError(
                f"`top_k` must be an int from {lowest} to {routed}, the heads that are not shared. "
                f"Received: top_k={top_k}, num_shared={num_shared}"
            )
        self._shared, self._routed, self._chosen = shared, routed, chosen

    def build_heads(self, input_shape):
        super().build_heads(input_shape)
        # One shared head has nothing to be weighted against.
        units = {"shared_router": self._shared if self._shared > 1 else 0, "router": self._routed}
        if self._shared and self._routed:
            units["balance_router"] = 2
        for name, count in units.items():
            kernel = None
            if count:
                kernel = self.add_weight(
                    shape=(input_shape[-1], count),
                    initializer=self.kernel_initializer.clone(),
                    name=name,
                )
            setattr(self, name, kernel)

    def attend(self, x, padding_mask, training, return_attention_scores):
        heads, scores = super().attend(x, padding_mask, training, return_attention_scores)
        gates = self.gates(x, padding_mask, training)  # (batch, tokens, heads)
        gates = ops.cast(ops.swapaxes(gates, 1, 2)[..., None], heads.dtype)
        return heads * gates, scores

    def gates(self, x: Any, padding_mask: Any = None, training: bool | None = None) -> Any:
        """Returns what each token multiplies each head by, float32, `(batch, tokens, heads)`."""
        x = ops.cast(x, "float32")
        groups = []
        if self._shared == 1:
            groups.append(ops.ones_like(x[..., :1]))
        elif self._shared:
            groups.append(self._shared * _probabilities(x, self.shared_router))
        if self._routed:
            p = _probabilities(x, self.router)
            chosen = choose(p, self._chosen)
            kept = p * chosen
            groups.append(self._chosen * kept / ops.sum(kept, axis=-1, keepdims=True))
            if training and self.balance_loss:
                self.add_loss(self.balance_loss * balance_loss(p, chosen, padding_mask))
        if len(groups) == 2:
            balance = 2 * _probabilities(x, self.balance_router)
            groups = [gate * balance[..., i : i + 1] for i, gate in enumerate(groups)]
        gates = ops.concatenate(groups, axis=-1)
        return gates if self.num_gates is None else ops.take(gates, self._gates, axis=-1)

    def routers(self) -> Any:
        """Lists the routers' kernels."""
        names = ("shared_router", "router", "balance_router")
        return [w for name in names if (w := getattr(self, name, None)) is not None]

    def count_multiply_adds(self, tokens):
        routers = sum(int(np.prod(router.shape)) for router in self.routers())
        return super().count_multiply_adds(tokens) + tokens * routers

    def multi_head_weights(self):
        zero = not any(np.any(ops.convert_to_numpy(router)) for router in self.routers())
        return super().multi_head_weights()[0], zero and self._chosen == self._routed

    def take_multi_head_weights(self, weights):
        super().take_multi_head_weights(weights)
        if self._chosen < self._routed:
            return False  # Zero routers would choose the same heads for every token.
        for router in self.routers():
            router.assign(ops.zeros(router.shape, router.dtype))
        return True

    def pruned_options(self, keep):
        gates = {"gate_of_head": [self._gates[head] for head in keep]}
        gates["num_gates"] = self._shared + self._routed
        return {**gates, "num_shared": self._shared, "top_k": self._chosen}

    def take_head_weights(self, layer, keep):
        super().take_head_weights(layer, keep)
        for router, source in zip(self.routers(), layer.routers(), strict=True):
            router.assign(source)

    def get_config(self):
        return {
            **super().get_config(),
            "num_shared": self.num_shared,
            "top_k": self.top_k,
            "balance_loss": self.balance_loss,
            "gate_of_head": self.gate_of_head,
            "num_gates": self.num_gates,
        }


def _probabilities(x, kernel):
    return ops.softmax(ops.matmul(x, ops.cast(kernel, "float32")), axis=-1)
