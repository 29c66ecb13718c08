"""Measures single-head performance and readout fitting beside `predict` and a loop over heads.

`python -m lsmha_keras.benchmark.shp --output shp.csv` appends to a table, on the backend that
KERAS_BACKEND names. All are measured in turn, in one process, on the same random images.
"""

import argparse
import csv
import pathlib
import statistics
import time

import keras
import numpy as np

from lsmha_keras.shp.head_fields import HeadFields
from lsmha_keras.shp.head_outputs import compile_setting
from lsmha_keras.shp.head_readout import HeadReadout
from lsmha_keras.shp.readout_trainer import ReadoutTrainer
from lsmha_keras.training.environment import describe_hardware, describe_versions

_PREDICT, _LOOP = "model.predict", "one forward pass per head, others masked"


def measure(preset="cct_2_3x2_h16_cifar100", num_images=10_000, batch_size=256, runs=3):
    """Measures all of them.

    Args:
        preset: name of a preset with weights.
        num_images: int. The loop over heads, the slowest, goes through a twentieth of them.
        batch_size: int.
        runs: int, how often each is measured after a first time that does not count.

    Returns:
        A list of dictionaries, one for each, with the seconds per 10,000 images and the ratio of
        the medians to `model.predict`.
    """
    from lsmha_keras.models import CCTImageClassifier

    model = CCTImageClassifier.from_preset(preset)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, *model.backbone.image_shape), dtype="uint8")
    labels = np.arange(num_images) % model.num_classes
    steps = _make_steps(model, images, labels, batch_size)
    seconds = {name: [] for name in steps}
    for run in range(runs + 1):
        for name, (step, count) in steps.items():
            start = time.perf_counter()
            step()
            if run:
                seconds[name].append((time.perf_counter() - start) * 10_000 / count)
    predict = statistics.median(seconds[_PREDICT])
    return [
        _row(name, found, predict, preset, num_images, batch_size)
        for name, found in seconds.items()
    ]


def _make_steps(model, images, labels, batch_size):
    """Returns a dictionary from name to a function and the number of images it goes through."""
    count = len(images)
    few = max(batch_size, count // 20 // batch_size * batch_size)
    trainer = ReadoutTrainer(model, model.num_classes)
    options = {"batch_size": batch_size, "verbose": 0}
    readouts = trainer.train((images[:few], labels[:few]), 1, **options)
    fields = {
        poolings: HeadFields(model, readouts.blocks, poolings)
        for poolings in (("recomputed",), ("recomputed", "frozen"))
    }
    steps = {_PREDICT: (lambda: model.predict(images, batch_size, verbose=0), count)}
    for poolings, step in fields.items():
        steps[f"SHP of all heads, {' and '.join(poolings)}"] = (
            lambda step=step: step.measure(readouts, (images, labels), **options),
            count,
        )
    epoch = "an epoch of fitting the readouts of all blocks"
    steps[epoch] = (lambda: trainer.train((images, labels), 1, **options), count)
    loops = [_MaskedReadout(model, block, readouts) for block in readouts.blocks]
    steps[_LOOP] = (lambda: [loop.run(images[:few], batch_size) for loop in loops], few)
    return steps


class _MaskedReadout(keras.Model):
    """A block's readout with all heads but some masked: what the fields are by definition."""

    def __init__(self, model, block, readouts):
        super().__init__(name="masked_readout")
        self.source, self.block = model, block
        heads = model.backbone.blocks[block].attention.num_heads
        self.masks = np.eye(heads, dtype="float32")
        self.readout = HeadReadout(readouts.num_labels)
        self.readout.build((None, None, heads, len(readouts.weights[block][2]) // heads))
        self.readout.set_weights(readouts.weights[block])
        self.built = True
        self.compile(jit_compile=compile_setting())

    def call(self, inputs):
        name = f"block_{self.block}/head_outputs"
        masks = {self.block: inputs["mask"]}
        return self.readout(self.source.backbone.trace(inputs["images"], [name], masks)[name])

    def run(self, images, batch_size):
        """Runs the model once for each head."""
        images = keras.ops.convert_to_numpy(self.source.preprocess_samples(images))
        for mask in self.masks:
            masks = np.repeat(mask[None], len(images), axis=0)
            self.predict({"images": images, "mask": masks}, batch_size=batch_size, verbose=0)


def _row(name, seconds, predict, preset, num_images, batch_size):
    median = statistics.median(seconds)
    return {
        "backend": keras.config.backend(),
        "what": name,
        "preset": preset,
        "images": num_images,
        "batch_size": batch_size,
        "median_s_per_10000": round(median, 3),
        "fastest_s": round(min(seconds), 3),
        "slowest_s": round(max(seconds), 3),
        "ratio_to_predict": round(median / predict, 3),
        "runs": len(seconds),
        "machine": describe_hardware(),
        "versions": " ".join(f"{k}={v}" for k, v in describe_versions().items()),
    }


def main(arguments=None):
    """Runs the benchmark from the command line.

    Args:
        arguments: list of str; None takes the process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="shp.csv", help="csv file to append to")
    parser.add_argument("--preset", default="cct_2_3x2_h16_cifar100")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args(arguments)
    rows = measure(given.preset, given.images, given.batch_size, given.runs)
    path = pathlib.Path(given.output)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        if is_new:
            writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        spread = f"({row['fastest_s']:.2f} .. {row['slowest_s']:.2f})"
        print(
            f"{row['median_s_per_10000']:9.2f} s per 10,000 images {spread:>20} "
            f"{row['ratio_to_predict']:7.2f}x  {row['what']}"
        )


if __name__ == "__main__":
    main()
