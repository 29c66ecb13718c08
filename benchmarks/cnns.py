"""Times one image in the presets and in the CNNs that `front.csv` compares them with.

`python -m benchmarks.cnns --output cnn_latency.csv` adds to a table. All models are ONNX files that
take a uint8 image, run by the same code in the same runtime, and take turns. The CNNs are those of
github.com/chenyaofo/pytorch-cifar-models, built here from their published sizes, with random
weights: the time of an image does not depend on them.
"""

import argparse
import functools
import pathlib
import tempfile

import numpy as np
import torch
from torch import nn

from lsmha_keras import presets
from lsmha_keras.benchmark.results_table import ResultsTable
from lsmha_keras.benchmark.timing import summarise, time_in_turn
from lsmha_keras.predictor import Predictor
from lsmha_keras.runtimes.description import KEY, Description

CASE = ("runtime",)
FIGURES: tuple[str, ...] = ("model", "parameters", "multiply_adds", "median_ms", "fastest_ms")
FIGURES += ("slowest_ms", "ratio_to_ours", "runs")
PRESETS: tuple[str, ...] = ("lsmha-small", "lsmha-base", "cct_2_3x2_h16_cifar100")
PRESETS += ("cct_2_3x2_h16_c1_cifar100_60_epochs",)
_SIZE = (32, 32, 3)


def _conv(inputs, outputs, kernel=3, stride=1, groups=1, activation=None):
    """Returns convolution, batch normalisation and activation as a list."""
    padding = (kernel - 1) // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), *([activation()] if activation else [])]


class _Residual(nn.Module):
    def __init__(self, branch, shortcut=None, activation=None):
        super().__init__()
        self.branch, self.shortcut = nn.Sequential(*branch), nn.Sequential(*(shortcut or []))
        self.activation = activation() if activation else nn.Identity()

    def forward(self, x):
        return self.activation(self.branch(x) + self.shortcut(x))


class _Shuffle(nn.Module):
    """Two branches side by side, their channels shuffled (Ma et al., 2018)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        half = outputs // 2
        self.split = stride == 1
        width = half if self.split else inputs
        self.branch = nn.Sequential(
            *_conv(width, half, 1, activation=nn.ReLU),
            *_conv(half, half, 3, stride, groups=half),
            *_conv(half, half, 1, activation=nn.ReLU),
        )
        shortcut = [*_conv(width, width, 3, stride, groups=width)]
        shortcut += _conv(width, half, 1, activation=nn.ReLU)
        self.shortcut = nn.Sequential(*([] if self.split else shortcut))

    def forward(self, x):
        kept, changed = x.chunk(2, dim=1) if self.split else (x, x)
        x = torch.cat([self.shortcut(kept), self.branch(changed)], dim=1)
        return x.unflatten(1, (2, x.shape[1] // 2)).transpose(1, 2).flatten(1, 2)


def _head(width, classes):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def _resnet(blocks, classes):
    layers, inputs = _conv(3, 16, activation=nn.ReLU), 16
    for width in (16, 32, 64):
        for _ in range(blocks):
            stride = 2 if width != inputs else 1
            branch = [*_conv(inputs, width, 3, stride, activation=nn.ReLU), *_conv(width, width)]
            shortcut = _conv(inputs, width, 1, stride) if stride == 2 else []
            layers.append(_Residual(branch, shortcut, nn.ReLU))
            inputs = width
    return [*layers, *_head(64, classes)]


# Expansion, channels, blocks and stride of the stages (Sandler et al., 2018), for 32x32 images.
_MOBILENET = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2)]
_MOBILENET += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def _multiple_of_8(width):
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


def _mobilenet(factor, classes):
    inputs = _multiple_of_8(32 * factor)
    layers = _conv(3, inputs, activation=nn.ReLU6)
    for expansion, channels, blocks, first_stride in _MOBILENET:
        outputs = _multiple_of_8(channels * factor)
        for index in range(blocks):
            stride, wide = 1 if index else first_stride, inputs * expansion
            branch = _conv(inputs, wide, 1, activation=nn.ReLU6) if expansion > 1 else []
            branch += _conv(wide, wide, 3, stride, groups=wide, activation=nn.ReLU6)
            branch += _conv(wide, outputs, 1)
            residual = stride == 1 and inputs == outputs
            layers += [_Residual(branch)] if residual else branch
            inputs = outputs
    last = _multiple_of_8(1280 * max(1.0, factor))
    return [*layers, *_conv(inputs, last, 1, activation=nn.ReLU6), *_head(last, classes)]


def _shufflenet(widths, classes):
    first, *widths, last = widths
    layers, inputs = _conv(3, first, activation=nn.ReLU), first
    for width, blocks in zip(widths, (4, 8, 4), strict=True):
        for index in range(blocks):
            layers.append(_Shuffle(inputs, width, 1 if index else 2))
            inputs = width
    return [*layers, *_conv(inputs, last, 1, activation=nn.ReLU), *_head(last, classes)]


def _repvgg(widths, classes):
    """The form for inference: each block is one convolution (Ding et al., 2021)."""
    layers, inputs = _conv(3, 64, activation=nn.ReLU), 64
    for width, blocks, first_stride in zip(widths, (2, 4, 14, 1), (1, 2, 2, 2), strict=True):
        for index in range(blocks):
            layers += _conv(inputs, width, 3, 1 if index else first_stride, activation=nn.ReLU)
            inputs = width
    return [*layers, *_head(inputs, classes)]


CNNS = {
    "resnet20": functools.partial(_resnet, 3),
    "resnet56": functools.partial(_resnet, 9),
    "mobilenetv2_x0_5": functools.partial(_mobilenet, 0.5),
    "mobilenetv2_x1_0": functools.partial(_mobilenet, 1.0),
    "mobilenetv2_x1_4": functools.partial(_mobilenet, 1.4),
    "shufflenetv2_x1_0": functools.partial(_shufflenet, (24, 116, 232, 464, 1024)),
    "repvgg_a2": functools.partial(_repvgg, (96, 192, 384, 1408)),
}


def make_cnn(name, classes=100):
    """Builds a CNN with random weights, for inference.

    Args:
        name: str, a key of `CNNS`.
        classes: int.

    Returns:
        A `torch.nn.Module` from float32 images `(batch, 3, 32, 32)` to logits `(batch, classes)`.

    Example:

    ```python
    make_cnn("resnet20")(torch.zeros(1, 3, 32, 32)).shape
    ```
    """
    return nn.Sequential(*CNNS[name](classes)).eval()


def count_cost(model):
    """Returns the parameters of a CNN and its multiply-adds for one image."""
    counts = []

    def count(layer, _, outputs):
        positions = outputs[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1
        counts.append(layer.weight.numel() * positions)

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return sum(weight.numel() for weight in model.parameters()), sum(counts)


class _Photo(nn.Module):
    """Takes `(batch, height, width, channels)` uint8 images, as the files of the presets do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model((images.float() / 127.5 - 1).permute(0, 3, 1, 2))


def write_onnx(name, path):
    """Writes a CNN as a file that `Predictor` takes.

    Args:
        name: str, a key of `CNNS`.
        path: path of the file.

    Returns:
        The parameters and multiply-adds, as `count_cost`.
    """
    import onnx

    model = make_cnn(name)
    images = torch.zeros(1, *_SIZE, dtype=torch.uint8)
    # The exporter without `dynamo` needs no other package.
    torch.onnx.export(_Photo(model).eval(), (images,), str(path), dynamo=False)
    graph = onnx.load(path)
    entry = graph.metadata_props.add()
    description = Description(name=name, image_shape=_SIZE, num_classes=100)
    entry.key, entry.value = KEY, description.to_json()
    onnx.save(graph, path)
    return count_cost(model)


def measure(models, runtime, runs=200, num_threads=None):
    """Times one image in presets and CNNs, in turn.

    Args:
        models: list of str, names of presets and keys of `CNNS`; the first one is what others are
            compared with.
        runtime: str, "onnxruntime" or "openvino".
        runs: int, timed calls of each.
        num_threads: int or `None`, as for `Predictor`.

    Returns:
        A list with a dict for each model, its keys `FIGURES`; `ratio_to_ours` is relative to the
        first model. Parameters and multiply-adds of the presets are in `front.csv`.
    """
    image = np.random.default_rng(0).integers(0, 256, (1, *_SIZE), dtype="uint8")
    with tempfile.TemporaryDirectory() as folder:
        steps, costs = {}, {}
        for name in models:
            source, costs[name] = name, ("", "")
            if name in CNNS:
                source = pathlib.Path(folder) / f"{name}.onnx"
                costs[name] = write_onnx(name, source)
            predictor = Predictor(source, runtime=runtime, num_threads=num_threads)
            steps[name] = functools.partial(predictor.logits, image)
        seconds, _ = time_in_turn(steps, runs)
    rows = []
    for name, found in seconds.items():
        parameters, multiply_adds = costs[name]
        row = {"model": presets.ALIASES.get(name, name), **summarise(found, seconds[models[0]])}
        row |= {"parameters": parameters, "multiply_adds": multiply_adds}
        rows.append({key: row[key] for key in FIGURES})
    return rows


def main(arguments=None):
    """Runs the benchmark from the command line.

    Args:
        arguments: list of str; None takes the process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="cnn_latency.csv", help="csv file to add to")
    parser.add_argument("--models", nargs="+", default=[*PRESETS, *CNNS], help="presets and CNNs")
    parser.add_argument("--runtimes", nargs="+", default=["openvino", "onnxruntime"])
    parser.add_argument("--runs", type=int, default=200, help="timed images of each model")
    given = parser.parse_args(arguments)
    results = ResultsTable(given.output, CASE, FIGURES, packages=("onnxruntime", "openvino"))
    for runtime in given.runtimes:
        if results.holds({"runtime": runtime}):
            print(f"{runtime}: in {given.output} already")
            continue
        rows = measure(given.models, runtime, given.runs)
        results.put({"runtime": runtime}, rows)
        for row in rows:
            print(f"{runtime}: {row['median_ms']:9.3f} ms  {row['model']}")


if __name__ == "__main__":
    main()
