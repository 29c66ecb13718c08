"""Callbacks that change what a model's blocks do from epoch to epoch of a training."""

from __future__ import annotations

import math
from typing import Any

import keras

from lsmha_keras.arguments import plain, positive_int
from lsmha_keras.attention.mae import MixtureOfAttentiveExperts
from lsmha_keras.errors import InputError
from lsmha_keras.heads.mask_important_heads import MaskImportantHeads
from lsmha_keras.layers.token_reduction import TokenReduction


def block_callbacks(recipe, model, source):
    """Makes the callbacks that a recipe and the blocks of its model ask for.

    Args:
        recipe: `Recipe`.
        model: the `CCTImageClassifier` that is trained.
        source: `ImageDataset` that it is trained on.

    Returns:
        A list of Keras callbacks, empty for most recipes.
    """
    schedule, backbone = recipe.schedule, model.backbone
    callbacks = []
    if schedule.token_keep_epochs:
        callbacks.append(AnnealTokenKeep(schedule.token_keep_epochs))
    if schedule.expert_epochs:
        callbacks.append(TrainInTurns(schedule.expert_epochs))
    if backbone.head_dropout > 0 and backbone.head_dropout_by == "importance":
        callbacks.append(MaskImportantHeads(source, seed=recipe.runtime.seed))
    return callbacks


class AnnealTokenKeep(keras.callbacks.Callback):
    """Begins a training with all tokens, and keeps fewer of them from epoch to epoch.

    The share of tokens that a block keeps falls from 1 to its `token_keep` along half a cosine:
    `keep + (1 - keep) (1 + cos(pi p)) / 2` with
    `p = (epoch - warmup_epochs) / (epochs - warmup_epochs)`, held within 0 and 1. Evaluation and
    prediction always keep `token_keep`. It follows from the epoch's number alone, so a training
    that was stopped goes on as it would have.

    The shapes of a training step follow the share: where they change, the step is compiled anew.
    `every` limits how often.

    Args:
        epochs: int, the epoch, counted from 0, from which on blocks keep their `token_keep`.
        warmup_epochs: int, epochs with all tokens before. Defaults to `0`.
        every: int, epochs after which the share may change. Defaults to `1`.

    Raises:
        ValueError: if a number is out of range, or the model keeps all tokens.

    Example:

    ```python
    backbone = lsmha_keras.CCTBackbone(images.shape[1:], num_layers=2, token_keep=0.5)
    classifier = lsmha_keras.CCTImageClassifier(backbone, num_classes=10)
    classifier.fit(images, labels, epochs=3, callbacks=[lsmha_keras.AnnealTokenKeep(2)])
    ```

    References:
        - [Liang et al., 2022](https://arxiv.org/abs/2202.07800), section 4
    """

    def __init__(self, epochs: int, warmup_epochs: int = 0, every: int = 1) -> None:
        super().__init__()
        self.epochs = positive_int("epochs", epochs)
        self.every = positive_int("every", every)
        self.warmup_epochs = plain(warmup_epochs)
        is_int = isinstance(self.warmup_epochs, int) and not isinstance(self.warmup_epochs, bool)
        if not is_int or not 0 <= self.warmup_epochs < self.epochs:
            raise InputError(
                "`warmup_epochs` must be an int from 0 on and below `epochs`. Received: "
                f"warmup_epochs={warmup_epochs!r}, epochs={epochs}"
            )

    def share(self, token_keep: float, epoch: int) -> float:
        """Returns the share of tokens that a block keeps in an epoch, counted from 0."""
        epoch = epoch // self.every * self.every
        passed = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        cosine = math.cos(math.pi * min(1.0, max(0.0, passed)))
        return token_keep + (1 - token_keep) * (1 + cosine) / 2

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the layers that leave out tokens."""
        layers = self.model._flatten_layers()
        self._layers = [layer for layer in layers if isinstance(layer, TokenReduction)]
        if not self._layers:
            raise InputError(
                "The share of tokens can fall where blocks leave some out: build the model with "
                "`token_keep` below 1. Received: a model that keeps all tokens"
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the share of this epoch."""
        self._set([self.share(layer.token_keep, epoch) for layer in self._layers])

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Lets blocks keep their own share in a training without this callback."""
        self._set([layer.token_keep for layer in self._layers])

    def _set(self, shares):
        if shares == [layer.keep_in_training for layer in self._layers]:
            return
        for layer, share in zip(self._layers, shares, strict=True):
            layer.keep_in_training = share
        # The compiled step has the shapes of the share before.
        self.model.make_train_function(force=True)


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
