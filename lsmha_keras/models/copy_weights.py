"""Quantised layers and LoRA: weights from one layer to another, and a policy for each layer."""

import keras

from lsmha_keras.errors import InputError

_MERGEABLE = (None, "int8", "int4")


def copy_weights(source, target, except_for=()):
    """Gives a layer the weights of another one that is made alike.

    Of quantised layers the numbers and their scales are copied. What LoRA learned is added to the
    kernels, as Keras does when it saves a layer; quantised kernels are quantised anew for that.

    Args:
        source: built `keras.layers.Layer`, which is left as it is.
        target: built layer of the same config, whether LoRA is enabled in it or not.
        except_for: names of layers inside of them that are left as they are.

    Raises:
        ValueError: if LoRA is enabled in a layer whose quantisation it cannot be added to, or the
            layers are not alike.

    References:
        - [Hu et al., 2021](https://arxiv.org/abs/2106.09685), section 4.1
    """
    pairs = zip(_parts(source, except_for), _parts(target, except_for), strict=True)
    for part, copy in pairs:
        if getattr(part, "lora_enabled", False) and part.quantization_mode not in _MERGEABLE:
            raise InputError(
                "What LoRA learned can be added to kernels in full precision, int8 and int4: train "
                "it before the model is quantised. Received: "
                f"{part.quantization_mode} in {part.path}"
            )
        # The same way as into a file and back, which knows all kinds of quantisation.
        store = {}
        part.save_own_variables(store)
        copy.load_own_variables(
            {key: keras.ops.convert_to_numpy(value) for key, value in store.items()}
        )


def _parts(layer, except_for):
    """Lists a layer and those in it by their names, as they were not all made in one order."""
    parts = sorted(layer._flatten_layers(), key=lambda part: part.path or part.name)
    return [part for part in parts if not {*(part.path or "").split("/")} & {*except_for}]


def check_full_precision(model, change):
    """Refuses a quantised model.

    Args:
        model: Keras model.
        change: str, what happens to it, for the message: "grows".

    Raises:
        ValueError: names the quantisation.
    """
    modes = {getattr(layer, "quantization_mode", None) for layer in model._flatten_layers()}
    if modes := sorted(modes - {None}):
        raise InputError(
            f"A model {change} before it is quantised. Received: one in {', '.join(modes)}"
        )


def resolve_policies(model):
    """Replaces a map of policies, in the layers of a model, by what it holds for each.

    In a layer that has the whole map, such as those of a quantised model that was loaded, Keras
    (3.15.1) looks for the quantisation in two ways and finds none in one of them: the model works,
    but cannot be saved again, and loses what LoRA learned. It can go with the version in which
    `Dense.save_own_variables` asks `quantization_mode`.

    Args:
        model: built Keras model, whose own policy stays.
    """
    for layer in model._flatten_layers(include_self=False):
        policy = layer.dtype_policy
        if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
            # Not by its setter, which would change the map.
            layer._dtype_policy = policy[layer.path] if layer.path else policy.default_policy
