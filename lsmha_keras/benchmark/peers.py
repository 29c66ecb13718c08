"""PyTorch implementations by others that ours are measured beside."""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import types


def import_vit_pytorch_cct():
    """Imports `vit_pytorch.cct`, with or without torchvision.

    Returns:
        The module.

    Raises:
        ImportError: if PyTorch, vit-pytorch or einops is missing.

    Example:

    ```python
    model = import_vit_pytorch_cct().cct_7(img_size=32, num_classes=100)
    ```
    """
    try:
        importlib.import_module("torch")  # before the stand-in: it looks through all modules
        with _torchvision():
            return importlib.import_module("vit_pytorch.cct")
    except ImportError as error:
        raise ImportError(
            "The peer needs PyTorch, einops and vit-pytorch: pip install torch einops && "
            f"pip install --no-deps vit-pytorch. Missing: {error.name}"
        ) from error


def make_vit_pytorch_cct(backbone, num_classes):
    """Builds vit-pytorch's CCT with the sizes and dropout rates of one of ours.

    Args:
        backbone: square `CCTBackbone` without conv blocks.
        num_classes: int.

    Returns:
        A `torch.nn.Module` for images `(batch, channels, height, width)`, with random weights.
    """
    return import_vit_pytorch_cct().CCT(
        img_size=backbone.image_shape[0],
        embedding_dim=backbone.hidden_dim,
        n_conv_layers=backbone.tokenizer_layers,
        kernel_size=backbone.tokenizer_kernel_size,
        stride=1,
        padding=backbone.tokenizer_kernel_size // 2,
        num_layers=backbone.num_layers,
        num_heads=backbone.num_heads,
        mlp_ratio=backbone.mlp_dim / backbone.hidden_dim,
        num_classes=num_classes,
        dropout_rate=backbone.dropout_rate,
        attention_dropout=backbone.attention_dropout,
        stochastic_depth_rate=backbone.stochastic_depth_rate,
        positional_embedding="learnable",
    )


def use_all_cores():
    """Lets PyTorch use every core it may, as JAX and TensorFlow do by themselves."""
    import torch

    usable = getattr(os, "sched_getaffinity", None)
    torch.set_num_threads(len(usable(0)) if usable else os.cpu_count())


@contextlib.contextmanager
def _torchvision():
    """Stands in for torchvision while vit-pytorch is imported.

    Its `__init__.py` imports models that need torchvision; the CCT does not.
    """
    names = ("torchvision", "torchvision.transforms")
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision"):
        yield
        return
    stub = types.ModuleType("torchvision")
    stub.__spec__ = importlib.machinery.ModuleSpec("torchvision", None)
    stub.__getattr__ = lambda name: types.ModuleType(name)
    sys.modules |= dict(zip(names, (stub, types.ModuleType(names[1])), strict=True))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
