"""Measures single-head performance, readout fitting and the callback beside training and `predict`.

`python -m benchmarks.shp --output shp.csv` appends to a table, on the backend of
KERAS_BACKEND. All are timed in turn, in one process; peaks of memory are measured in processes of
their own.
"""

import argparse
import multiprocessing
import pathlib
import statistics
import time

import keras
import numpy as np

from lsmha_keras.benchmark.memory import peak_mib
from lsmha_keras.data.open_dataset import open_dataset_for_model
from lsmha_keras.files import append_atomically
from lsmha_keras.models import CCTImageClassifier
from lsmha_keras.shp.callback import SHPCallback
from lsmha_keras.shp.head_outputs import compile_setting
from lsmha_keras.shp.performance import HeadFields
from lsmha_keras.shp.readout_trainer import ReadoutTrainer
from lsmha_keras.shp.readouts import HeadReadout
from lsmha_keras.text_files import csv_text
from lsmha_keras.training.devices import describe_hardware, describe_versions

_PREDICT, _LOOP = "model.predict", "one forward pass per head, others masked"
_SHP, _BOTH = (f"SHP of all heads, {names}" for names in ("recomputed", "recomputed and frozen"))
_READOUTS = "an epoch of fitting the readouts of all blocks"
_TRAINING, _CALLBACK = "training without augmentation", "the callback, once per 50,000 images"
_EPOCH = 50_000  # images that an epoch of CIFAR-100 trains on

# What each is compared with, per image.
_COMPARED = {_SHP: _PREDICT, _BOTH: _PREDICT, _READOUTS: _PREDICT, _LOOP: _SHP}
_COMPARED |= {_TRAINING: _PREDICT, _CALLBACK: _TRAINING}


def measure(
    preset="cct_2_3x2_h16_cifar100",
    num_images=10_000,
    batch_size=256,
    runs=3,
    dataset=None,
    data_dir=None,
):
    """Measures the times.

    Args:
        preset: name of a preset with weights, or its directory.
        num_images: int. The loop over heads uses a twentieth of them, training a quarter, and the
            callback its default number, if there are as many.
        batch_size: int, of inference.
        runs: int, number of measurements of each, after a warm-up.
        dataset: name of a dataset, for its test images, or `None` for random ones.
        data_dir: folder that holds the dataset.

    Returns:
        A list of dicts, one for each, with the seconds per 10,000 images and the ratio of the
        median to that of the one it is compared with. The callback's time is for 50,000 images,
        an epoch of CIFAR-100.
    """
    model = CCTImageClassifier.from_preset(preset)
    model.compile(
        keras.optimizers.AdamW(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    images, labels = _images(model, num_images, dataset, data_dir)
    steps = _make_steps(model, images, labels, batch_size)
    seconds = {name: [] for name in steps}
    for run in range(runs + 1):
        for name, (step, count) in steps.items():
            start = time.perf_counter()
            step()
            if run:
                seconds[name].append((time.perf_counter() - start) * 10_000 / count)
    about = {"preset": preset, "images": len(images), "batch_size": batch_size}
    return [_row(name, seconds, about) for name in seconds]


def measure_memory(preset="cct_2_3x2_h16_cifar100", num_images=10_000, batch_size=256):
    """Measures the peak memory of SHP for few images and for many; both are streamed.

    Args:
        preset: name of a preset with weights, or its directory.
        num_images: int, many; a tenth of them is few.
        batch_size: int.

    Returns:
        A list of two dicts with `peak_mib`.

    Raises:
        OSError: if the system is not Linux.
    """
    rows = []
    for count in (num_images // 10, num_images):
        # Spawned, not forked: threads of frameworks do not survive a fork.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak = pool.apply(_peak, (preset, count, batch_size))
        about = {"preset": preset, "images": count, "batch_size": batch_size}
        rows.append({**_describe("memory of SHP"), **about, "peak_mib": round(peak, 1)})
    return rows


def _images(model, num_images, dataset, data_dir):
    if dataset is None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (num_images, *model.backbone.image_shape), dtype="uint8")
        return images, np.arange(num_images) % model.num_classes
    found = open_dataset_for_model(
        dataset, "test", data_dir, None, lambda: model.backbone.image_shape[:2]
    )
    rows = np.arange(min(num_images, len(found)))
    return found.load(rows), found.labels[rows]


def _make_steps(model, images, labels, batch_size):
    """Returns a dictionary from name to a function and the number of images it counts for."""
    count = len(images)
    few = max(batch_size, count // 20 // batch_size * batch_size)
    some = max(few, count // 4)
    trainer = ReadoutTrainer(model, model.num_classes)
    readouts = trainer.train((images[:few], labels[:few]), 1, verbose=0)
    recomputed, both = (
        HeadFields(model, readouts.blocks, poolings)
        for poolings in (("recomputed",), ("recomputed", "frozen"))
    )
    loops = [_MaskedReadout(model, block, readouts) for block in readouts.blocks]
    callback = SHPCallback((images, labels), (images, labels))
    callback.set_model(model)
    callback.on_train_begin()
    options = {"batch_size": batch_size, "verbose": 0}
    return {
        _PREDICT: (lambda: model.predict(images, **options), count),
        _SHP: (lambda: recomputed.measure(readouts, (images, labels), **options), count),
        _BOTH: (lambda: both.measure(readouts, (images, labels), **options), count),
        _READOUTS: (lambda: trainer.train((images, labels), 1, verbose=0), count),
        _LOOP: (lambda: [loop.run(images[:few], batch_size) for loop in loops], few),
        _TRAINING: (
            lambda: model.fit(images[:some], labels[:some], batch_size=128, verbose=0),
            some,
        ),
        _CALLBACK: (lambda: callback.on_epoch_end(0, {}), _EPOCH),
    }


class _Stream(keras.utils.PyDataset):
    """Batches of random images, made on demand."""

    def __init__(self, image_shape, num_labels, count, batch_size):
        super().__init__()
        self.image_shape, self.num_labels = image_shape, num_labels
        self.count, self.batch_size = count, batch_size

    def __len__(self):
        return -(-self.count // self.batch_size)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        size = min(self.batch_size, self.count - index * self.batch_size)
        images = rng.integers(0, 256, (size, *self.image_shape), dtype="uint8")
        return images, rng.integers(0, self.num_labels, size)


def _peak(preset, count, batch_size):
    model = CCTImageClassifier.from_preset(preset)
    shape, num_labels = model.backbone.image_shape, model.num_classes
    options = {"batch_size": batch_size, "verbose": 0}
    first = _Stream(shape, num_labels, 2 * batch_size, batch_size)
    readouts = ReadoutTrainer(model, num_labels).train(first, 1, verbose=0)
    fields = HeadFields(model, readouts.blocks)
    stream = _Stream(shape, num_labels, count, batch_size)
    return peak_mib(lambda: fields.measure(readouts, stream, **options))


class _MaskedReadout(keras.Model):
    """A block's readout with all heads but one masked, the definition of that head's field."""

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


def _row(name, seconds, about):
    median = statistics.median(seconds[name])
    row = {
        **_describe(name),
        **about,
        "median_s_per_10000": round(median, 3),
        "fastest_s": round(min(seconds[name]), 3),
        "slowest_s": round(max(seconds[name]), 3),
        "runs": len(seconds[name]),
    }
    if name in _COMPARED:
        other = _COMPARED[name]
        # The spread of the ratio itself: both times of a pair come from the same turn.
        ratios = [a / b for a, b in zip(seconds[name], seconds[other], strict=True)]
        row["compared_with"] = other
        row["ratio"] = round(median / statistics.median(seconds[other]), 3)
        row |= {"ratio_min": round(min(ratios), 3), "ratio_max": round(max(ratios), 3)}
    return row


def _describe(name):
    return {
        "backend": keras.config.backend(),
        "what": name,
        "machine": describe_hardware(),
        "versions": " ".join(f"{k}={v}" for k, v in describe_versions().items()),
    }


_COLUMNS: tuple[str, ...] = (
    "backend",
    "what",
    "preset",
    "images",
    "batch_size",
    "median_s_per_10000",
)
_COLUMNS += ("fastest_s", "slowest_s", "compared_with", "ratio", "ratio_min", "ratio_max")
_COLUMNS += ("peak_mib", "runs", "machine", "versions")


def main(arguments=None):
    """Runs the benchmark from the command line.

    Args:
        arguments: list of str; None takes the process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="shp.csv", help="csv file to append to")
    parser.add_argument("--preset", default="cct_2_3x2_h16_cifar100")
    parser.add_argument("--dataset", help="its test images are taken (default: random images)")
    parser.add_argument("--data-dir", help="folder with the datasets")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true", help="measure times only")
    given = parser.parse_args(arguments)
    sizes = (given.preset, given.images, given.batch_size)
    rows = [] if given.no_memory else measure_memory(*sizes)
    rows += measure(*sizes, given.runs, given.dataset, given.data_dir)
    path = pathlib.Path(given.output)
    is_new = not path.exists()
    append_atomically(path, csv_text(rows, _COLUMNS, header=is_new))
    for row in rows:
        print(_line(row))


def _line(row):
    if "peak_mib" in row:
        return f"{row['peak_mib']:9.1f} MiB at the peak  {row['what']}, {row['images']:,} images"
    text = f"{row['median_s_per_10000']:9.2f} s per 10,000 images  {row['what']}"
    if "ratio" in row:
        spread = f"{row['ratio_min']:.2f} .. {row['ratio_max']:.2f}"
        text += f": {row['ratio']:.2f} ({spread}) times {row['compared_with']}"
    return text


if __name__ == "__main__":
    main()
