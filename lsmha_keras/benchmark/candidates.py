"""Makes the candidates of a benchmark from names and models."""

import keras

from lsmha_keras import presets
from lsmha_keras.benchmark.keras_candidate import KerasCandidate
from lsmha_keras.benchmark.peers import (
    import_vit_pytorch_cct,
    make_keras_hub_vit,
    make_timm_model,
    make_vit_pytorch_cct,
)
from lsmha_keras.benchmark.torch_candidate import TorchCandidate
from lsmha_keras.errors import InputError
from lsmha_keras.models.cct_backbone import CCTBackbone
from lsmha_keras.models.cct_image_classifier import CCTImageClassifier
from lsmha_keras.models.load_classifier import load_classifier

VIT_PYTORCH, KERAS_HUB, TIMM = "vit_pytorch.cct", "keras_hub.vit", "timm:"
# Number of classes of an architecture: CIFAR-100's.
_CLASSES = 100


def make_candidates(models, device, fuse=False):
    """Loads models and builds peers.

    Args:
        models: list of built Keras models, presets' names or directories, architectures' names, and
            peers: "vit_pytorch.cct" and "keras_hub.vit", of the sizes of the first model, and
            "timm:NAME".
        device: str, one of `list_devices()`.
        fuse: bool, whether convolutional blocks are folded for inference. Defaults to `False`.

    Returns:
        A list of `KerasCandidate` and `TorchCandidate` with distinct names.

    Raises:
        ImportError: if a peer is not installed.
        ValueError: if a name is unknown, or a peer cannot have the sizes of the first model.

    Example:

    ```python
    ours, peer = make_candidates(["cct_2_3x2_h16", "keras_hub.vit"], "cpu:0")
    ```
    """
    candidates = []
    for model in models:
        if _is_peer(model):
            first = candidates[0].model if candidates else None
            candidates.append(_make_peer(model, first, device))
        else:
            candidates.append(_make_ours(model, fuse))
        names = [candidate.name for candidate in candidates]
        if (count := names.count(names[-1])) > 1:
            candidates[-1].name += f" ({count})"
    return candidates


def check_peer(name):
    """Raises `ValueError` if this is not the name of a peer."""
    if not _is_peer(name):
        raise InputError(
            f"A peer must be {VIT_PYTORCH}, {KERAS_HUB} or {TIMM}MODEL. Received: {name}"
        )


def _is_peer(model):
    return isinstance(model, str) and (model in (VIT_PYTORCH, KERAS_HUB) or model.startswith(TIMM))


def _make_ours(model, fuse):
    if isinstance(model, keras.Model):
        name = model.name
    else:
        name, source = str(model), presets.resolve_preset(model)
        if isinstance(source, dict):
            model = CCTImageClassifier.from_preset(model, num_classes=_CLASSES)
        else:
            model = load_classifier(source)
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, CCTBackbone) and "conv" in backbone.block_kinds:
        model = model.fuse() if fuse and not backbone.fused_conv_blocks else model
        name += " (fused)" if model.backbone.fused_conv_blocks else ""
    return KerasCandidate(name, model)


def _make_peer(name, first, device):
    if not isinstance(first, CCTImageClassifier):
        raise InputError(
            "Peers get the sizes of the first model, which must be a `CCTImageClassifier`. "
            f"Received: {name} beside {first}"
        )
    backbone, classes = first.backbone, first.num_classes
    if name == KERAS_HUB:
        return KerasCandidate(name, make_keras_hub_vit(backbone, classes))
    if name == VIT_PYTORCH:
        _check_vit_pytorch(backbone)
        import_vit_pytorch_cct()  # raises here, not in the peer's process, if it is missing
        arguments = (_make_vit_pytorch, (backbone.get_config(), classes))
    else:
        arguments = (make_timm_model, (name[len(TIMM) :], backbone.image_shape, classes))
    return TorchCandidate(name, *arguments, backbone.image_shape, device)


def _make_vit_pytorch(config, num_classes):
    return make_vit_pytorch_cct(CCTBackbone.from_config(config), num_classes)


def _check_vit_pytorch(backbone):
    plain = isinstance(backbone.num_heads, int) and backbone.head_dim is None
    plain = plain and set(backbone.block_kinds) == {"attention"}
    if not plain or backbone.image_shape[0] != backbone.image_shape[1]:
        raise InputError(
            f"The peer {VIT_PYTORCH} has square images, one number of heads, their width its "
            "share, and no conv blocks or others: name a model like that first. Received: "
            f"image_shape={backbone.image_shape}, num_heads={backbone.num_heads}, "
            f"head_dim={backbone.head_dim}, num_conv_blocks={backbone.num_conv_blocks}, "
            f"blocks={backbone.block_kinds}"
        )
