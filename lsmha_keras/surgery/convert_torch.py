"""Converts checkpoints of the reference PyTorch CCT."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from lsmha_keras._imports import needed_package
from lsmha_keras.errors import InputError, MissingFileError
from lsmha_keras.layers.position_embedding import sine_embedding
from lsmha_keras.models import (
    CCTBackbone,
    CCTImageClassifier,
    CCTImageClassifierPreprocessor,
    CCTImageConverter,
)

# Depth -> heads of the reference models; a checkpoint does not record its heads.
_REFERENCE_HEADS = {2: 2, 4: 2, 6: 4, 7: 4, 8: 4, 14: 6, 16: 6}
_BLOCK = "classifier.blocks.{}."


def convert_torch_checkpoint(
    checkpoint: Any,
    num_heads: int | None = None,
    image_shape: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> CCTImageClassifier:
    """Builds a classifier from a checkpoint in the format of the reference Compact Transformers.

    The tensors determine the architecture: blocks, widths, kernels, classes, and whether the
    position embedding is learnable, sine or absent. No code in the file is run: `.pth` is read with
    `torch.load(weights_only=True)`, `.safetensors` without PyTorch.

    Args:
        checkpoint: path of a `.pth`, `.pt` or `.safetensors` file, or a dict from the reference's
            names to arrays or tensors. Wrappers such as `{"state_dict": ...}` and prefixes such as
            `"module."` are removed.
        num_heads: int, heads of every block. `None` means the reference's for this depth.
        image_shape: `(height, width)` or `(height, width, channels)`. `None` means a square, with
            the side inferred from the length of the position embedding.
        class_names: list of str or `None`.
        mean: floats, one per channel, by which the training images in [0, 1] were normalised. A
            checkpoint does not record it; a wrong mean silently costs accuracy.
        std: floats, one per channel, the standard deviation, likewise.

    Returns:
        A `CCTImageClassifier` with the checkpoint's weights; its logits equal the reference's.

    Raises:
        ValueError: if tensors are missing, unexpected or of the wrong shape (they are named), or if
            `num_heads`, the image size or the normalisation is needed and missing, or does not
            fit.
        FileNotFoundError: if the file does not exist.
        ImportError: if reading the file needs a package that is not installed.

    Example:

    ```python
    classifier = lsmha_keras.convert_torch_checkpoint(
        "cct_7_3x1_32_cifar100.pth",
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
    )
    classifier.save_to_preset("my_cct_7_3x1_cifar100")
    ```

    References:
        - [SHI-Labs/Compact-Transformers](https://github.com/SHI-Labs/Compact-Transformers)
    """
    tensors = _read(checkpoint)
    config = _infer_config(tensors, num_heads, image_shape)
    backbone = CCTBackbone(**config)
    normalisation = _check_normalisation(mean, std, backbone.image_shape[2])
    converter = CCTImageConverter.for_images(backbone.image_shape, *normalisation)
    classifier = CCTImageClassifier(
        backbone,
        num_classes=tensors["classifier.fc.weight"].shape[0],
        preprocessor=CCTImageClassifierPreprocessor(converter),
        class_names=class_names,
    )
    _assign(classifier, tensors)
    return classifier


def _check_normalisation(mean, std, channels):
    wrong = any(value is None or len(value) != channels for value in (mean, std))
    if wrong or min(std) <= 0:
        raise InputError(
            f"`mean` and `std` must be {channels} numbers each, by which the training images in "
            "[0, 1] were normalised; a checkpoint does not record them. The reference uses, for "
            "CIFAR-10, 0.4914 0.4822 0.4465 and 0.2470 0.2435 0.2616; for CIFAR-100, 0.5071 0.4867 "
            "0.4408 and 0.2675 0.2565 0.2761; for ImageNet, 0.485 0.456 0.406 and 0.229 0.224 "
            "0.225. "
            f"Received: mean={mean}, std={std}"
        )
    return mean, std


def _read(checkpoint):
    """Returns a dict of NumPy arrays under the reference's names."""
    if not isinstance(checkpoint, dict):
        path = pathlib.Path(checkpoint)
        if not path.is_file():
            raise MissingFileError(f"The checkpoint does not exist. Received: {str(path)!r}")
        checkpoint = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    for wrapper in ("state_dict", "model", "model_state_dict"):
        checkpoint = checkpoint.get(wrapper, checkpoint)
    arrays = {re.sub(r"^(module|model)\.", "", key): value for key, value in checkpoint.items()}
    if "classifier.fc.weight" not in arrays or "tokenizer.conv_layers.0.0.weight" not in arrays:
        raise InputError(
            "This is not a checkpoint of a compact convolutional transformer: it lacks "
            "'classifier.fc.weight' or 'tokenizer.conv_layers.0.0.weight'. "
            f"Received: tensors {sorted(map(str, arrays))[:5]}..."
        )
    return {key: np.asarray(value, dtype="float32") for key, value in arrays.items()}


def _read_pth(path):
    need = f"Reading {path.name} needs PyTorch, unless it is saved as .safetensors"
    torch = needed_package("torch", "torch", need)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises many kinds on damaged or foreign files.
        raise InputError(
            "The file cannot be read as a PyTorch checkpoint of plain tensors. "
            f"Received: {str(path)!r} ({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from error


def _read_safetensors(path):
    numpy = needed_package("safetensors.numpy", "torch", f"Reading {path.name} needs safetensors")
    from safetensors import SafetensorError

    try:
        return numpy.load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"The file cannot be read as safetensors. Received: {str(path)!r} ({error})"
        ) from error


def _infer_config(tensors, num_heads, image_shape):
    if "classifier.class_emb" in tensors:
        raise InputError(
            "Checkpoints with a class token instead of sequence pooling cannot be converted. "
            "Received: a tensor 'classifier.class_emb'"
        )
    convs = _count(tensors, r"tokenizer\.conv_layers\.(\d+)\.0\.weight")
    layers = _count(tensors, r"classifier\.blocks\.(\d+)\.self_attn\.qkv\.weight")
    first_conv = tensors["tokenizer.conv_layers.0.0.weight"]  # (out, in, k, k)
    hidden_dim = tensors["classifier.fc.weight"].shape[1]
    num_heads = num_heads or _REFERENCE_HEADS.get(layers)
    if num_heads is None:
        raise InputError(
            f"The reference has no model with {layers} blocks, so its number of heads is "
            "unknown: pass `num_heads`. Received: num_heads=None"
        )
    block = _BLOCK.format(0)
    inner_dim = tensors[block + "self_attn.qkv.weight"].shape[0] // 3
    if inner_dim % num_heads:
        raise InputError(
            f"`num_heads` must divide the attention's width {inner_dim}. "
            f"Received: num_heads={num_heads}"
        )
    kernel_size, channels = first_conv.shape[-1], first_conv.shape[1]
    if image_shape is not None:
        image_shape = (*image_shape[:2], *(image_shape[2:] or (channels,)))
    embedding = tensors.get("classifier.positional_emb")
    return {
        "image_shape": image_shape or _infer_image_shape(embedding, kernel_size, convs, channels),
        "hidden_dim": hidden_dim,
        "num_layers": layers,
        "num_heads": num_heads,
        "head_dim": None if inner_dim == hidden_dim else inner_dim // num_heads,
        "mlp_dim": tensors[block + "linear1.weight"].shape[0],
        "tokenizer_layers": convs,
        "tokenizer_kernel_size": kernel_size,
        "tokenizer_filters": first_conv.shape[0] if convs > 1 else 64,
        "position_embedding": _position_embedding_kind(embedding),
        "use_qkv_bias": block + "self_attn.qkv.bias" in tensors,
    }


def _count(tensors, pattern):
    found = {int(match[1]) for key in tensors if (match := re.fullmatch(pattern, key))}
    if found != set(range(len(found))) or not found:
        raise InputError(f"Expected tensors {pattern} numbered from 0. Received: {sorted(found)}")
    return len(found)


def _infer_image_shape(embedding, kernel_size, convs, channels):
    if embedding is None:
        raise InputError(
            "Without a position embedding, a checkpoint does not tell its image size: pass "
            "`image_shape`. Received: image_shape=None"
        )
    grid = round(embedding.shape[1] ** 0.5)
    if grid * grid != embedding.shape[1]:
        raise InputError(
            f"{embedding.shape[1]} tokens do not form a square: pass `image_shape`. "
            "Received: image_shape=None"
        )
    # Each convolution has stride k // 2 - 1 and each pooling stride 2.
    side = grid * (2 * max(1, kernel_size // 2 - 1)) ** convs
    return (side, side, channels)


def _position_embedding_kind(embedding):
    if embedding is None:
        return "none"
    sine = sine_embedding(*embedding.shape[1:])
    return "sine" if np.allclose(embedding[0], sine, atol=1e-5) else "learnable"


def _assign(classifier, tensors):
    """Assigns every tensor to its variable; each must be used exactly once."""
    unused = set(tensors)
    for variable, key, convert in _mapping(classifier):
        if key not in tensors:
            raise InputError(f"The checkpoint lacks a tensor. Received: no {key!r}")
        value = convert(tensors[key])
        if tuple(variable.shape) != value.shape:
            raise InputError(
                f"{key!r} must have shape {tuple(variable.shape)}. Received: {value.shape}"
            )
        variable.assign(value)
        unused.discard(key)
    if classifier.backbone.position_embedding == "sine":
        unused.discard("classifier.positional_emb")
    if unused:
        raise InputError(f"The checkpoint has unknown tensors. Received: {sorted(unused)}")


def _mapping(classifier):
    """Yields (variable, reference key, conversion) for every weight of the classifier."""
    backbone = classifier.backbone
    for i, conv in enumerate(backbone.tokenizer.convs):
        # (out, in, k, k) -> (k, k, in, out)
        key = f"tokenizer.conv_layers.{i}.0.weight"
        yield conv.kernel, key, lambda weight: weight.transpose(2, 3, 1, 0)
    if backbone.position_embedding == "learnable":
        embedding = backbone.position_embedding_layer.embedding
        yield embedding, "classifier.positional_emb", np.asarray
    for i, block in enumerate(backbone.blocks):
        prefix = _BLOCK.format(i)
        yield from _norm(block.attention_norm, prefix + "pre_norm")
        yield from _dense(block.attention.qkv, prefix + "self_attn.qkv")
        yield from _dense(block.attention.projection, prefix + "self_attn.proj")
        yield from _norm(block.mlp_norm, prefix + "norm1")
        yield from _dense(block.mlp_hidden, prefix + "linear1")
        yield from _dense(block.mlp_output, prefix + "linear2")
    yield from _norm(backbone.layer_norm, "classifier.norm")
    yield from _dense(classifier.pooler.scores, "classifier.attention_pool")
    yield from _dense(classifier.output_dense, "classifier.fc")


def _dense(layer, key):
    yield layer.kernel, key + ".weight", np.transpose
    if layer.use_bias:
        yield layer.bias, key + ".bias", np.asarray


def _norm(layer, key):
    yield layer.gamma, key + ".weight", np.asarray
    yield layer.beta, key + ".bias", np.asarray
