"""Times whole classifiers beside vit-pytorch's CCT, which runs eagerly in PyTorch."""

import contextlib
import functools

import keras
import numpy as np

from lsmha_keras import presets
from lsmha_keras.benchmark.memory import StepProcess, lack_of_memory
from lsmha_keras.benchmark.peers import (
    import_vit_pytorch_cct,
    make_vit_pytorch_cct,
    use_all_cores,
)
from lsmha_keras.benchmark.timing import make_step, make_torch_step, summarise, time_in_turn
from lsmha_keras.models.cct_backbone import CCTBackbone
from lsmha_keras.models.cct_image_classifier import CCTImageClassifier

CASE = ("model", "phase", "batch", "heads")
FIGURES = ("library", "median_ms", "fastest_ms", "slowest_ms", "ratio_to_ours", "runs", "note")
PACKAGES = ("torch", "vit-pytorch")

OURS, PEER = "ours", "vit_pytorch.cct"
_CLASSES = 100


def measure(model, phase, batch, heads, runs=10, limit=60.0):
    """Times one step of a classifier and of its peer, in turn; the peer has its own process.

    Both have random weights and the dropout and stochastic depth of `CCTBackbone`. Ours runs as
    `predict` and `fit` run it on the current backend.

    Args:
        model: str, name of an architecture such as "cct_7_3x1".
        phase: str, "inference", or "training": the gradients of the cross entropy with respect to
            all weights, without the optimizer.
        batch: int.
        heads: int, of every block.
        runs: int, number of timed steps of each, after warm-up.
        limit: float, seconds; a model with a slower step is not timed.

    Returns:
        A list of two dicts with the keys `FIGURES`, ours and the peer's.

    Raises:
        ImportError: if the peer is not installed.

    Example:

    ```python
    ours, peer = measure("cct_7_3x1", "inference", batch=1, heads=64)
    ```
    """
    backbone = CCTBackbone(**{**presets.parse_architecture(model), "num_heads": heads})
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, *backbone.image_shape)).astype("float32")
    labels = rng.integers(0, _CLASSES, batch)
    steps = {OURS: _make_our_step(backbone, phase, images, labels)}
    notes = {OURS: "", PEER: lack_of_memory(_peer_gib(backbone, phase, batch))}
    with contextlib.ExitStack() as stack:
        if not notes[PEER]:
            import_vit_pytorch_cct()  # raises here, not in the peer's process, if it is missing
            peer = StepProcess(make_peer_step, backbone.get_config(), phase, images, labels)
            steps[PEER] = stack.enter_context(peer)
        seconds, left_out = time_in_turn(steps, runs, limit)
    notes |= left_out
    return [
        {
            "library": library,
            **summarise(seconds.get(library, []), seconds.get(OURS, [])),
            "note": notes[library],
        }
        for library in notes
    ]


def _peer_gib(backbone, phase, batch):
    """Estimates the peer's memory; the factors were measured with 4 and 16 heads at batch 64."""
    tokens, width = backbone.output_shape[1:]
    scores, activations = backbone.num_heads * tokens**2, tokens * width
    floats = 3 * scores + 16 * activations
    if phase == "training":  # every block keeps its tensors for the gradients
        floats = backbone.num_layers * (3.25 * scores + 20 * activations)
    return 4 * batch * floats / 2**30


def _make_our_step(backbone, phase, images, labels):
    classifier = CCTImageClassifier(backbone, _CLASSES)

    def loss(logits):
        entropy = keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return keras.ops.mean(entropy)

    # As `compile` chooses for `fit`: TensorFlow uses XLA if there is an accelerator.
    xla = bool(classifier.jit_compile)
    step = make_step(classifier, classifier, loss if phase == "training" else None, xla=xla)
    return functools.partial(step, keras.ops.convert_to_tensor(images))


def make_peer_step(config, phase, images, labels):
    """Makes a step of vit-pytorch's CCT, for `StepProcess`.

    Args:
        config: dict, of the `CCTBackbone` whose sizes it gets.
        phase: "inference" or "training".
        images: `(batch, height, width, channels)` float32, normalised.
        labels: `(batch,)` ints.

    Returns:
        A function without arguments.
    """
    import torch

    use_all_cores()
    backbone = CCTBackbone.from_config(config)
    peer = make_vit_pytorch_cct(backbone, _CLASSES).train(phase == "training")
    labels = torch.from_numpy(labels)

    def run(images):
        logits = peer(images)
        return torch.nn.functional.cross_entropy(logits, labels) if peer.training else logits

    weights = [weight for weight in peer.parameters() if weight.requires_grad]
    step = make_torch_step(run, weights, training=peer.training)
    # (batch, height, width, channels) -> (batch, channels, height, width)
    return functools.partial(step, torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
