"""Makes a model's weights known to PyTorch, as `parameters()` and in `state_dict()`."""

import keras


def register_torch_parameters(model):
    """Registers all variables of a model as PyTorch parameters; does nothing on other backends.

    KerasHub 0.32 sets a model's attributes past PyTorch while it is built, so that `parameters()`
    of its models is empty: a training loop trains nothing, and the gradients of Keras's own `fit`,
    which calls `zero_grad`, add up from step to step.

    Args:
        model: a built Keras model.
    """
    if keras.config.backend() != "torch":
        return
    import torch

    values = {}
    for variable in model.variables:
        # Members of a committee have variables of the same paths.
        path, number = variable.path, 1
        while path in values:
            path, number = f"{variable.path}_{number}", number + 1
        values[path] = variable.value
    known = model._modules.get("_torch_params")
    if known is None or [*map(id, known.values())] != [*map(id, values.values())]:
        model._torch_params = torch.nn.ParameterDict(values)  # where Keras looks for them


def torch_parameters_up_to_date(cls):
    """Class decorator: `named_parameters` and `state_dict` see weights that came after building.

    Quantising and LoRA, of the model or of a part of it, replace variables and add some.

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

    # `parameters`, `zero_grad` and `DistributedDataParallel` ask `named_parameters`.
    for name in ("named_parameters", "state_dict", "load_state_dict"):
        setattr(cls, name, renewing(name))
    return cls
