"""Candidates of a benchmark: Keras and PyTorch models by name or object, ready to be timed."""

import functools
import itertools
import pickle
import warnings

import keras

from lsmha_keras import presets
from lsmha_keras.benchmark.multiply_adds import count_multiply_adds, make_inputs
from lsmha_keras.benchmark.peers import (
    import_vit_pytorch_cct,
    make_keras_hub_vit,
    make_timm_model,
    make_vit_pytorch_cct,
    use_all_cores,
)
from lsmha_keras.benchmark.timing import make_step, make_torch_step
from lsmha_keras.errors import InputError
from lsmha_keras.models import load_classifier
from lsmha_keras.models.cct_backbone import CCTBackbone
from lsmha_keras.models.cct_base_backbone import CCTBaseBackbone
from lsmha_keras.models.cct_image_classifier import CCTImageClassifier

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
        # Times are kept by name, so that two candidates of one name would share them.
        name, taken = candidates[-1].name, {other.name for other in candidates[:-1]}
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        names = itertools.chain([name], numbered)
        candidates[-1].name = next(name for name in names if name not in taken)
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
    if isinstance(backbone, CCTBaseBackbone) and "conv" in backbone.block_kinds:
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


class KerasCandidate:
    """A Keras model as `predict` runs it, without preprocessing, on the current backend.

    It can be pickled, to be measured in another process.

    Args:
        name: str.
        model: built `keras.Model` that takes one tensor.

    Example:

    ```python
    step = KerasCandidate("mine", model).make_step(batch_size=8)
    step()
    ```
    """

    own_process = False

    def __init__(self, name, model):
        self.name = name
        self.model = model

    def make_step(self, batch_size):
        """Returns a function that runs the model on random images and waits for the result."""
        # As `compile` chooses for `predict`: TensorFlow with or without XLA.
        step = make_step(self.model, self.model, xla=bool(self.model.jit_compile))
        return functools.partial(step, make_inputs(self.model, batch_size))

    def warm_up(self):
        """Runs something small that starts threads and loads libraries."""
        layers = [keras.layers.Conv2D(8, 3), keras.layers.Dense(8)]
        small = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        KerasCandidate("small", small).make_step(1)()

    def count(self):
        """Returns the numbers of parameters and of multiply-adds for one image.

        Returns:
            Two ints and "", or an int, `None` and why the multiply-adds are unknown.
        """
        parameters = self.model.count_params()
        try:
            return parameters, count_multiply_adds(self.model), ""
        except ValueError as error:
            return parameters, None, f"not counted: {error}"

    def copy(self):
        """Returns a copy with new variables, on Keras's current device."""
        return pickle.loads(pickle.dumps(self))

    def __getstate__(self):
        return {"name": self.name, "model": pickle.dumps(self.model)}

    def __setstate__(self, state):
        self.name = state["name"]
        with warnings.catch_warnings():
            # Wrong for KerasHub's tasks, which compile themselves when they are made.
            warnings.filterwarnings("ignore", r"`compile\(\)` was not called")
            self.model = pickle.loads(state["model"])


class TorchCandidate:
    """A PyTorch model in evaluation mode, run eagerly. It can be pickled, for another process.

    Args:
        name: str.
        make: function at the top level of a module; returns a `torch.nn.Module` for images
            `(batch, channels, height, width)`.
        arguments: tuple of picklable arguments for `make`.
        image_shape: `(height, width, channels)`.
        device: str, "cpu:0" or "gpu:0" and so on.

    Raises:
        ValueError: if PyTorch does not have the device.

    Example:

    ```python
    candidate = TorchCandidate("linear", make_linear, (3, 10), image_shape=(32, 32, 3))
    candidate.make_step(batch_size=8)()
    ```
    """

    own_process = True

    def __init__(self, name, make, arguments, image_shape, device="cpu:0"):
        import torch

        if not device.startswith("cpu") and not torch.cuda.is_available():
            raise InputError(
                f"The peer {name} runs in PyTorch, which sees no GPU here: install PyTorch for it, "
                f"or leave the peer out. Received: device={device!r}"
            )
        self.name = name
        self._make, self._arguments = make, arguments
        height, width, channels = image_shape
        self._sample_shape = (channels, height, width)
        self._device = device.replace("gpu", "cuda")

    def copy(self):
        """Returns this object: the model is made in the process that measures it."""
        return self

    def make_step(self, batch_size):
        """Returns a function that runs the model on random images and waits for the result."""
        import torch

        use_all_cores()
        model = self._make(*self._arguments).eval().to(self._device)
        images = torch.rand(batch_size, *self._sample_shape, device=self._device)
        return functools.partial(make_torch_step(model, [], training=False), images)

    def warm_up(self):
        """Runs something small that starts threads and loads libraries."""
        import torch

        torch.nn.Conv2d(self._sample_shape[0], 8, 3)(torch.rand(1, *self._sample_shape))

    def count(self):
        """Returns parameters, multiply-adds of one image and an empty str; see `KerasCandidate`."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        model = self._make(*self._arguments).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *self._sample_shape))
        parameters = sum(weight.numel() for weight in model.parameters())
        return parameters, counter.get_total_flops() // 2, ""
