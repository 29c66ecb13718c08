"""Gives the layers of a quantised model policies of their own."""

import keras


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
