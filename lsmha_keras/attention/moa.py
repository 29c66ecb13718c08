"""Mixture of attention heads: each token chooses experts that share keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import plain
from lsmha_keras.attention.grouped import GroupedQueryAttention
from lsmha_keras.attention.routing import balance_loss, check_gates, choose
from lsmha_keras.errors import InputError


@keras.saving.register_keras_serializable(package="lsmha_keras")
class MixtureOfAttentionHeads(GroupedQueryAttention):
    """Multi-query attention in which each token chooses `top_k` of the heads.

    Each head is an expert with a query and an output projection of its own; keys and values are
    shared by all. The gates are `top_k * p / sum of the chosen p` with `p = softmax(x W)`, zero for
    heads that are not chosen, or `p` itself with `renormalise=False`, as in the published code. The
    router computes in float32. All heads are computed and multiplied, so that shapes are fixed:
    unchosen heads save no time here.

    Per image of `T` tokens of width `C`, with `I = num_heads * d`: parameters
    `2 C d + 2 C I + C H + C`, multiply-adds `2 T C (I + d) + 2 T^2 I + T C H`. An ideal kernel
    would take `top_k * d` for `I`.

    Args:
        num_heads: int, number of experts, `H`.
        top_k: int, how many each token chooses, or `None` for half of them.
        renormalise: bool, whether the gates of a token sum to `top_k`. Defaults to `True`.
        balance_loss: float, weight of `H * sum f_i P_i`, added in training. Defaults to `0.01`.
        z_loss: float, weight of the mean squared logarithm of the router's normaliser, added in
            training. Defaults to `0.001`.
        gate_of_head: list with the gate of each head, or `None`: each head has its own. After
            pruning, the remaining heads keep theirs, and tokens still choose among all of them.
        num_gates: int, how many gates there are with `gate_of_head`.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if `top_k` is not from 1 to `num_heads`.

    References:
        - [Zhang et al., 2022](https://arxiv.org/abs/2210.05144)
    """

    def __init__(
        self,
        num_heads: int,
        top_k: int | None = None,
        renormalise: bool = True,
        balance_loss: float = 0.01,
        z_loss: float = 0.001,
        gate_of_head: Sequence[int] | None = None,
        num_gates: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, num_kv_heads=1, **kwargs)
        self.top_k, self.renormalise = plain(top_k), plain(renormalise)
        self.balance_loss, self.z_loss = plain(balance_loss), plain(z_loss)
        self.gate_of_head, self.num_gates = plain(gate_of_head), plain(num_gates)
        self._gates, self._num_gates = check_gates(self.num_heads, gate_of_head, num_gates)
        self._chosen = max(1, self._num_gates // 2) if top_k is None else self.top_k
        if not isinstance(self._chosen, int) or not 1 <= self._chosen <= self._num_gates:
            raise InputError(
                f"`top_k` must be an int from 1 to {self._num_gates}, the number of heads. "
                f"Received: top_k={top_k}"
            )

    def build_heads(self, input_shape):
        super().build_heads(input_shape)
        # Not zero: with equal probabilities every token would choose the first heads.
        self.router = self.add_weight(
            shape=(input_shape[-1], self._num_gates),
            initializer=self.kernel_initializer.clone(),
            name="router",
        )

    def attend(self, x, padding_mask, training, return_attention_scores):
        heads, scores = super().attend(x, padding_mask, training, return_attention_scores)
        gates = self.gates(x, padding_mask, training)
        return heads * ops.cast(ops.swapaxes(gates, 1, 2)[..., None], heads.dtype), scores

    def gates(self, x: Any, padding_mask: Any = None, training: bool | None = None) -> Any:
        """Returns what each token multiplies each head by, float32, `(batch, tokens, heads)`."""
        logits = ops.matmul(ops.cast(x, "float32"), ops.cast(self.router, "float32"))
        p = ops.softmax(logits, axis=-1)
        chosen = choose(p, self._chosen)
        if training and self.balance_loss:
            self.add_loss(self.balance_loss * balance_loss(p, chosen, padding_mask))
        if training and self.z_loss:
            squares = ops.square(ops.logsumexp(logits, axis=-1))
            self.add_loss(self.z_loss * _mean(squares, padding_mask))
        gates = p * chosen
        if self.renormalise:
            gates = self._chosen * gates / ops.sum(gates, axis=-1, keepdims=True)
        return gates if self.num_gates is None else ops.take(gates, self._gates, axis=-1)

    def count_multiply_adds(self, tokens):
        router = self._num_gates * self.projection.kernel.shape[1]
        return super().count_multiply_adds(tokens) + tokens * router

    def multi_head_weights(self):
        weights, _ = super().multi_head_weights()
        even = not np.any(ops.convert_to_numpy(self.router))
        return weights, even and self.renormalise and self._chosen == self._num_gates

    def take_multi_head_weights(self, weights):
        same = super().take_multi_head_weights(weights)
        if self._chosen == self._num_gates:
            self.router.assign(ops.zeros(self.router.shape, self.router.dtype))
        return same and self.renormalise and self._chosen == self._num_gates

    def pruned_options(self, keep):
        gates = [self._gates[head] for head in keep]
        return {"gate_of_head": gates, "num_gates": self._num_gates, "top_k": self._chosen}

    def take_head_weights(self, layer, keep):
        super().take_head_weights(layer, keep)
        self.router.assign(layer.router)

    def get_config(self):
        config = super().get_config()
        del config["num_kv_heads"]
        return {
            **config,
            "top_k": self.top_k,
            "renormalise": self.renormalise,
            "balance_loss": self.balance_loss,
            "z_loss": self.z_loss,
            "gate_of_head": self.gate_of_head,
            "num_gates": self.num_gates,
        }


def _mean(values, padding_mask):
    if padding_mask is None:
        return ops.mean(values)
    valid = ops.cast(padding_mask, values.dtype)
    return ops.sum(values * valid) / ops.maximum(ops.sum(valid), 1)
