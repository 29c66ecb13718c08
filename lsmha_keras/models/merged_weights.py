"""The weights of a layer with what LoRA learned added to them."""

import keras


def merged_weights(layer):
    """Returns a layer's weights as `get_weights` did before LoRA, its product added to the kernels.

    Args:
        layer: built `keras.layers.Layer`, which is left as it is.

    Returns:
        A list of NumPy arrays, for `set_weights` of a layer without LoRA.

    References:
        - [Hu et al., 2021](https://arxiv.org/abs/2106.09685), section 4.1
    """
    adapted = [part for part in layer._flatten_layers() if getattr(part, "lora_enabled", False)]
    added = {id(w) for part in adapted for w in (part.lora_kernel_a, part.lora_kernel_b)}
    # `kernel` is the sum, `_kernel` the variable below it.
    kernels = {id(part._kernel): part.kernel for part in adapted}
    return [
        keras.ops.convert_to_numpy(kernels.get(id(weight), weight))
        for weight in layer.weights
        if id(weight) not in added
    ]
