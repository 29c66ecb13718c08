"""Weights from one layer to another, quantised or not, with what LoRA learned added to them."""

import keras


def copy_weights(source, target):
    """Gives a layer the weights of another one that is made alike.

    Of quantised layers the numbers and their scales are copied. What LoRA learned is added to the
    kernels, as Keras does when it saves a layer; quantised kernels are quantised anew for that.

    Args:
        source: built `keras.layers.Layer`, which is left as it is.
        target: built layer of the same config, whether LoRA is enabled in it or not.

    Raises:
        ValueError: if LoRA is enabled in a layer whose quantisation it cannot be added to, or the
            layers are not alike.

    References:
        - [Hu et al., 2021](https://arxiv.org/abs/2106.09685), section 4.1
    """
    pairs = zip(_parts(source), _parts(target), strict=True)
    for part, copy in pairs:
        if getattr(part, "lora_enabled", False) and part.quantization_mode not in _MERGEABLE:
            raise ValueError(
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


_MERGEABLE = (None, "int8", "int4")


def _parts(layer):
    """Lists a layer and those in it by their names, as they were not all made in one order."""
    return sorted(layer._flatten_layers(), key=lambda part: part.path or part.name)
