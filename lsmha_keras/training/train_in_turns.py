"""Trains gates and heads of a mixture of attentive experts in turns."""

from __future__ import annotations

from typing import Any

import keras

from lsmha_keras.arguments import positive_int
from lsmha_keras.attention.mae import MixtureOfAttentiveExperts
from lsmha_keras.errors import InputError


class TrainInTurns(keras.callbacks.Callback):
    """Trains the experts of mixtures of attentive experts for some epochs, then their gates.

    In the experts' epochs each image goes through one expert in each block, drawn by the gate,
    which does not learn. In the gates' epochs all experts are mixed, and their queries, keys and
    values do not learn. What lies outside of these layers learns all the time. The model is built
    with `attention="mae"` and the option `in_turns=True`. What an optimiser has in store, momentum
    and weight decay, goes on moving weights that get no gradients for a while.

    Args:
        expert_epochs: int, epochs of the experts, which come first. Defaults to `4`.
        gate_epochs: int, epochs of the gates after them. Defaults to `1`.

    Raises:
        ValueError: if a number is out of range, or the model has no such layer.

    Example:

    ```python
    backbone = lsmha_keras.CCTBackbone(
        images.shape[1:], num_layers=2, attention="mae", attention_options={"in_turns": True}
    )
    classifier = lsmha_keras.CCTImageClassifier(backbone, num_classes=10)
    classifier.fit(images, labels, epochs=5, callbacks=[lsmha_keras.TrainInTurns()])
    ```

    References:
        - [Peng et al., 2020](https://arxiv.org/abs/2005.06537), section 3.2
    """

    def __init__(self, expert_epochs: int = 4, gate_epochs: int = 1) -> None:
        super().__init__()
        self.expert_epochs = positive_int("expert_epochs", expert_epochs)
        self.gate_epochs = positive_int("gate_epochs", gate_epochs)

    def is_gates_turn(self, epoch: int) -> bool:
        """Returns whether gates learn in an epoch, counted from 0."""
        return epoch % (self.expert_epochs + self.gate_epochs) >= self.expert_epochs

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the layers that take turns."""
        self._layers = [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, MixtureOfAttentiveExperts) and layer.in_turns
        ]
        if not self._layers:
            raise InputError(
                "Turns are taken by mixtures of attentive experts: build the model with "
                "`attention='mae', attention_options={'in_turns': True}`. "
                "Received: a model without such a layer"
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets whose turn it is."""
        gates = self.is_gates_turn(epoch)
        for layer in self._layers:
            layer.set_turn(experts=not gates, gates=gates)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Lets both learn in a training without this callback."""
        for layer in self._layers:
            layer.set_turn(experts=True, gates=True)
