"""Converts a trained model to another kind of attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lsmha_keras.attention.registry import find_attention
from lsmha_keras.layers.glmix_block import GLMixBlock
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models.cct_base_backbone import CCTBaseBackbone
from lsmha_keras.models.copy_weights import copy_weights


def convert_attention(
    model: Any,
    attention: str | Sequence[str],
    options: Mapping[str, Any] | None = None,
    approximate: bool = False,
) -> Any:
    """Builds a model with another kind of attention in every transformer block.

    The weights are converted to plain attention and from there to the new kind. Weights outside of
    attention are kept, with LoRA updates merged. Fine-tune the model if the conversion is not
    exact.

    Args:
        model: a `CCTImageClassifier` or a `CCTBackbone`, not quantised; it is not changed.
        attention: str, name of the new kind; see `list_attention`.
        options: dict of arguments specific to this kind, or `None`.
        approximate: bool, whether to accept the closest weights where no exact ones exist.
            Defaults to `False`.

    Returns:
        A new model of the same class.

    Raises:
        ValueError: if the kind or an option is unknown, the model is quantised, or the conversion
            would not be exact and `approximate` is not set.

    Example:

    ```python
    model = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16_cifar100")
    routed = lsmha_keras.convert_attention(model, "moh", {"num_shared": 4, "top_k": 12})
    ```
    """
    if not isinstance(model, CCTBaseBackbone):
        converted = convert_attention(model.backbone, attention, options, approximate)
        return model.with_backbone(converted)
    find_attention(attention)
    config = {**model.get_config(), "attention": attention, "attention_options": options}
    converted = type(model).from_config(config)
    for layer in converted.layers:
        if not layer.weights:
            continue
        source = model.get_layer(layer.name)
        if isinstance(layer, GLMixBlock):
            _convert(source.mixer.attention, layer.mixer.attention, approximate)
        elif isinstance(layer, TransformerBlock):
            _convert(source.attention, layer.attention, approximate)
        copy_weights(source, layer, except_for=("attention",))
    return converted


def _convert(source, target, approximate):
    weights, exact = source.multi_head_weights()
    source.check_exact(exact, approximate)
    target.check_exact(target.take_multi_head_weights(weights), approximate)
    copy_weights(source.projection, target.projection)
