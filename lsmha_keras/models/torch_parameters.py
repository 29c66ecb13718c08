"""Makes a model's weights visible to PyTorch in `parameters()` and `state_dict()`."""

import keras


def register_torch_parameters(model):
    """Registers all variables of a model as PyTorch parameters; does nothing on other backends.

    KerasHub 0.32 bypasses PyTorch's attribute tracking while it builds a model, so `parameters()`
    is empty: a training loop trains nothing, and `zero_grad` in Keras's own `fit` resets nothing,
    so that gradients add up from step to step.

    Args:
        model: a built Keras model.
    """
    if keras.config.backend() != "torch":
        return
    import torch

    values = {}
    for variable in model.variables:
        # Members of a committee may have variables of the same path.
        path, number = variable.path, 1
        while path in values:
            path, number = f"{variable.path}_{number}", number + 1
        values[path] = variable.value
    known = model._modules.get("_torch_params")
    if known is None or [*map(id, known.values())] != [*map(id, values.values())]:
        model._torch_params = torch.nn.ParameterDict(values)  # where Keras looks it up


def torch_parameters_up_to_date(cls):
    """Class decorator: `named_parameters` and `state_dict` see variables created after building.

    Quantisation and LoRA replace and add variables.

    Args:
        cls: class of Keras models that call `register_torch_parameters` once they are built.

    Returns:
        `cls`, on backends other than torch unchanged.
    """
    if keras.config.backend() != "torch":
        return cls

    def renewing(name):
        def method(self, *args, **kwargs):
            register_torch_parameters(self)
            return getattr(super(cls, self), name)(*args, **kwargs)

        method.__name__ = name
        return method

    # `parameters`, `zero_grad` and `DistributedDataParallel` call `named_parameters`.
    for name in ("named_parameters", "state_dict", "load_state_dict"):
        setattr(cls, name, renewing(name))
    return cls
