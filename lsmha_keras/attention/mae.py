"""Mixture of attentive experts: each image weights the heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import plain, positive_int
from lsmha_keras.attention.routing import check_gates
from lsmha_keras.errors import InputError
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention
from lsmha_keras.layers.unsaved_weight import UnsavedWeight


@keras.saving.register_keras_serializable(package="lsmha_keras")
class MixtureOfAttentiveExperts(LargeScaleMultiHeadAttention):
    """Multi-head attention as a mixture of experts, each of which leaves some heads out.

    Expert `i` is all heads but `leave_out` of them, from `i` on and cyclic, times
    `H / (H - leave_out)`. A gate, one softmax per image over the mean token, weights the experts.
    The mixture is the same as heads weighted by
    `w_j = H / (H - leave_out) * (1 - sum of the gates that leave j out)`, which is what is
    computed: the weights of an image sum to `H`, and uniform gates, those at the start, give plain
    attention.

    Gate and heads are trained together, or with `in_turns` as in the paper, by the callback
    `TrainInTurns`: heads while each image goes through one expert that the gate draws, then the
    gate while queries, keys and values get no gradients.

    Per image, beside plain attention's, with tokens of width `C`: parameters
    `C gate_dim + gate_dim + gate_dim H + H`, multiply-adds `gate_dim (C + H)`.

    Args:
        num_heads: int, number of heads, `H`.
        leave_out: int, heads that an expert leaves out. One of many is almost nothing: with 25
            heads a weight lies in [0, 1.04]. Defaults to `1`.
        gate_dim: int, width of the gate's hidden layer. Defaults to `64`.
        gate_of_head: list with the gate of each head, or `None`: each head has its own. After
            pruning, the remaining heads keep theirs, and the weights of all gates sum to
            `num_gates`.
        num_gates: int, how many gates there are with `gate_of_head`.
        in_turns: bool, whether `TrainInTurns` can train gate and heads in turns. Defaults to
            `False`.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if no head would be left.

    References:
        - [Peng et al., 2020](https://arxiv.org/abs/2005.06537)
    """

    def __init__(
        self,
        num_heads: int,
        leave_out: int = 1,
        gate_dim: int = 64,
        gate_of_head: Sequence[int] | None = None,
        num_gates: int | None = None,
        in_turns: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, **kwargs)
        self.leave_out = positive_int("leave_out", leave_out)
        self.gate_dim = positive_int("gate_dim", gate_dim)
        self.gate_of_head, self.num_gates = plain(gate_of_head), plain(num_gates)
        self.in_turns = plain(in_turns)
        self._gates, self._num_gates = check_gates(self.num_heads, gate_of_head, num_gates)
        if self.leave_out >= self._num_gates:
            raise InputError(
                "`leave_out` must leave heads to every expert. Received: "
                f"leave_out={leave_out}, num_heads={num_heads}"
            )

    def build_heads(self, input_shape):
        super().build_heads(input_shape)
        arguments = {"dtype": "float32"}
        self.gate_hidden = keras.layers.Dense(
            self.gate_dim, activation="relu", name="gate_hidden", **arguments
        )
        self.gate = keras.layers.Dense(
            self._num_gates, kernel_initializer="zeros", name="gate", **arguments
        )
        self.gate_hidden.build((input_shape[0], input_shape[-1]))
        self.gate.build((input_shape[0], self.gate_dim))
        if self.in_turns:
            # Whether experts learn, and gates.
            self.turn = UnsavedWeight((2,), name="turn")
            self.turn.build()
            self.expert_seed = keras.random.SeedGenerator(self.seed)

    def set_turn(self, experts: bool, gates: bool) -> None:
        """Says what learns from now on, with `in_turns`: the experts, the gates, or both."""
        self.turn.assign([float(experts), float(gates)])

    def attend(self, x, padding_mask, training, return_attention_scores):
        heads, scores = super().attend(x, padding_mask, training, return_attention_scores)
        gates = self._gate_shares(x, padding_mask)
        weights = self._weigh(gates)
        if training and self.in_turns:
            experts_learn, gates_learn = self.turn.weight[0], self.turn.weight[1]
            chances = ops.log(ops.stop_gradient(gates))
            drawn = keras.random.categorical(chances, 1, seed=self.expert_seed)[:, 0]
            expert = ops.one_hot(drawn, self._num_gates, dtype="float32")
            weights = gates_learn * weights + (1 - gates_learn) * self._weigh(expert)
            learn = ops.cast(experts_learn, heads.dtype)
            heads = learn * heads + (1 - learn) * ops.stop_gradient(heads)
        return heads * ops.cast(weights[:, :, None, None], heads.dtype), scores

    def head_weights(self, x: Any, padding_mask: Any = None) -> Any:
        """Returns the heads' weights, float32, `(batch, heads)`; those of an image sum to `H`."""
        return self._weigh(self._gate_shares(x, padding_mask))

    def _gate_shares(self, x, padding_mask):
        """Returns the share of each expert, float32, `(batch, experts)`."""
        x = ops.cast(x, "float32")
        if padding_mask is None:
            mean = ops.mean(x, axis=1)
        else:
            valid = ops.cast(padding_mask, "float32")[..., None]
            mean = ops.sum(x * valid, axis=1) / ops.maximum(ops.sum(valid, axis=1), 1)
        return ops.softmax(self.gate(self.gate_hidden(mean)), axis=-1)

    def _weigh(self, gates):
        """Returns what a mixture of the experts with these shares weights each head by."""
        left_out = ops.matmul(gates, self._left_out())
        return self._num_gates / (self._num_gates - self.leave_out) * (1 - left_out)

    def _left_out(self):
        """Which heads each expert leaves out, `(experts, heads)`."""
        eye = np.eye(self._num_gates, dtype="float32")
        left_out = sum(np.roll(eye, shift, axis=1) for shift in range(self.leave_out))
        return left_out[:, self._gates]

    def count_multiply_adds(self, tokens):
        gate = self.gate_dim * (self.projection.kernel.shape[1] + self._num_gates)
        return super().count_multiply_adds(tokens) + gate

    def multi_head_weights(self):
        uniform = not any(np.any(w) for w in self.gate.get_weights())
        return super().multi_head_weights()[0], uniform

    def pruned_options(self, keep):
        return {
            "gate_of_head": [self._gates[head] for head in keep],
            "num_gates": self._num_gates,
        }

    def take_head_weights(self, layer, keep):
        super().take_head_weights(layer, keep)
        for name in ("gate_hidden", "gate"):
            getattr(self, name).set_weights(getattr(layer, name).get_weights())

    def get_config(self):
        return {
            **super().get_config(),
            "leave_out": self.leave_out,
            "gate_dim": self.gate_dim,
            "gate_of_head": self.gate_of_head,
            "num_gates": self.num_gates,
            "in_turns": self.in_turns,
        }
