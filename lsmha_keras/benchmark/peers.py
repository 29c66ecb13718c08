"""Models of other packages, to measure ours beside."""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import types

from lsmha_keras.errors import InputError, PackageError


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
        importlib.import_module("torch")  # before the stub: its import inspects all modules
        with _torchvision():
            return importlib.import_module("vit_pytorch.cct")
    except ImportError as error:
        raise PackageError(
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


def make_timm_model(name, image_shape, num_classes):
    """Builds a model of timm, for images of a given shape if it takes one.

    Args:
        name: str, one of `timm.list_models()`.
        image_shape: `(height, width, channels)`.
        num_classes: int.

    Returns:
        A `torch.nn.Module` for images `(batch, channels, height, width)`, with random weights.

    Raises:
        ImportError: if timm is missing.
        ValueError: if timm has no model of that name.
    """
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise PackageError(
            f"The peer timm:{name} needs timm: pip install timm. Missing: {error.name}"
        ) from error
    if not timm.is_model(name):
        raise InputError(
            "A peer of timm must be one of timm.list_models(). Received: "
            f"timm:{name}; near: {', '.join(timm.list_models(f'*{name[:6]}*')[:5]) or 'none'}"
        )
    options = {"num_classes": num_classes, "in_chans": image_shape[2]}
    try:
        return timm.create_model(name, img_size=tuple(image_shape[:2]), **options)
    except TypeError:  # convolutional networks take any size and have no such argument
        return timm.create_model(name, **options)


def make_keras_hub_vit(backbone, num_classes):
    """Builds KerasHub's vision transformer with the sizes of one of ours.

    It has as many blocks, all transformers, of the same widths and number of heads, and as many
    tokens: square patches in place of our tokenizer, and their mean in place of our pooling.

    Args:
        backbone: `CCTBackbone`.
        num_classes: int.

    Returns:
        A `keras_hub.models.ViTImageClassifier`, with random weights.

    Raises:
        ValueError: if the tokens are not those of square patches, or the numbers of heads differ.
    """
    import keras_hub

    shape = (None, *backbone.image_shape)
    patches = {
        side / tokens
        for side, tokens in zip(shape[1:3], backbone.tokenizer.grid_shape(shape), strict=True)
    }
    patch = patches.pop()
    if patches or patch != int(patch) or not isinstance(backbone.num_heads, int):
        raise InputError(
            "The peer keras_hub.vit needs a model with one number of heads whose tokens are those "
            f"of square patches. Received: num_heads={backbone.num_heads}, "
            f"image_shape={backbone.image_shape}, {backbone.output_shape[1]} tokens"
        )
    vit = keras_hub.models.ViTBackbone(
        image_shape=backbone.image_shape,
        patch_size=int(patch),
        num_layers=backbone.num_layers,
        num_heads=backbone.num_heads,
        hidden_dim=backbone.hidden_dim,
        mlp_dim=backbone.mlp_dim,
        use_class_token=False,
    )
    return keras_hub.models.ViTImageClassifier(vit, num_classes, pooling="gap")


def use_all_cores():
    """Lets PyTorch use all cores of the process, as JAX and TensorFlow do by default."""
    import torch

    usable = getattr(os, "sched_getaffinity", None)
    torch.set_num_threads(len(usable(0)) if usable else os.cpu_count())


@contextlib.contextmanager
def _torchvision():
    """Provides a stub of torchvision while vit-pytorch is imported.

    The `__init__.py` of vit-pytorch imports models that need torchvision; its CCT does not.
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
