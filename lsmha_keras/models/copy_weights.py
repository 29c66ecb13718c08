"""Copies weights between layers, quantised and with LoRA; resolves dtype policies."""

import keras

from lsmha_keras.errors import InputError

_MERGEABLE = (None, "int8", "int4")


def copy_weights(source, target, except_for=()):
    """Copies the weights of a layer to another layer of the same config.

    Quantised layers copy their integers and scales. LoRA updates are merged into the kernels, as
    Keras does when it saves a layer; quantised kernels are requantised for that.

    Args:
        source: built `keras.layers.Layer`; it is not changed.
        target: built layer of the same config, with or without LoRA.
        except_for: names of inner layers to skip.

    Raises:
        ValueError: if LoRA is enabled in a layer whose quantisation does not allow merging it, or
            the layers differ in structure.

    References:
        - [Hu et al., 2021](https://arxiv.org/abs/2106.09685), section 4.1
    """
    pairs = zip(_parts(source, except_for), _parts(target, except_for), strict=True)
    for part, copy in pairs:
        if getattr(part, "lora_enabled", False) and part.quantization_mode not in _MERGEABLE:
            raise InputError(
                "LoRA can be merged into kernels in full precision, int8 and int4: train it before "
                "the model is quantised. Received: "
                f"{part.quantization_mode} in {part.path}"
            )
        # Saving and loading, because it handles every kind of quantisation.
        store = {}
        part.save_own_variables(store)
        copy.load_own_variables(
            {key: keras.ops.convert_to_numpy(value) for key, value in store.items()}
        )


def _parts(layer, except_for):
    """Lists a layer and its sublayers by path, as the two may have made them in another order."""
    parts = sorted(layer._flatten_layers(), key=lambda part: part.path or part.name)
    return [part for part in parts if not {*(part.path or "").split("/")} & {*except_for}]


def check_full_precision(model, change):
    """Refuses a quantised model.

    Args:
        model: Keras model.
        change: str, verb for the message, such as "grows".

    Raises:
        ValueError: if a layer is quantised; names the quantisation.
    """
    modes = {getattr(layer, "quantization_mode", None) for layer in model._flatten_layers()}
    if modes := sorted(modes - {None}):
        raise InputError(
            f"A model {change} before it is quantised. Received: a model in {', '.join(modes)}"
        )


def resolve_policies(model):
    """Replaces a map of dtype policies in the layers of a model by each layer's own policy.

    The layers of a loaded quantised model hold the whole map. Keras 3.15.1 looks up a layer's
    quantisation in two ways, of which one misses it then: the model works, but cannot be saved
    again and loses its LoRA updates. Remove this once `Dense.save_own_variables` uses
    `quantization_mode`.

    Args:
        model: built Keras model; its own policy stays.
    """
    for layer in model._flatten_layers(include_self=False):
        policy = layer.dtype_policy
        if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
            # The setter of `dtype_policy` would change the map.
            layer._dtype_policy = policy[layer.path] if layer.path else policy.default_policy
