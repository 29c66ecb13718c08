"""Measures the images per second of the input pipelines, beside Keras's own RandAugment.

`python -m benchmarks.data --output data_benchmark.csv` prints and writes a table. All
pipelines are measured in turn, several times, in one process, on random 32x32 images in batches.
"""

import argparse
import importlib.metadata
import platform
import statistics
import time

import keras
import numpy as np

from lsmha_keras.data.augmentation_policy import AugmentationPolicy
from lsmha_keras.data.datasets import ArrayDataset
from lsmha_keras.data.pipelines import BatchSequence, EpochPlan, epoch_batches, has_tensorflow
from lsmha_keras.text_files import write_rows
from lsmha_keras.training.devices import describe_hardware

_SHAPE, _CLASSES = (32, 32, 3), 100
_PEER = "keras.layers.RandAugment"
_LIGHT = {"pad_crop": 4, "flip": True, "mixup": 0.8, "cutmix": 1.0}
_STRONG = {"rand_augment": {"num_ops": 2, "magnitude": 9, "magnitude_std": 0.5}}
_FULL = {
    "random_resized_crop": [0.8, 1.0],
    "flip": True,
    "rand_augment": {**_STRONG["rand_augment"], "probability": 0.5},
    "random_erasing": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
}
_TABLES = {
    "crop + flip + MixUp/CutMix": _LIGHT,
    # Like the peer: every operation on every image.
    "RandAugment": {"rand_augment": {**_STRONG["rand_augment"], "probability": 1.0}},
    "RandAugment, probability 0.5": {"rand_augment": _FULL["rand_augment"]},
    "resized crop + flip + RandAugment + erasing + MixUp/CutMix": _FULL,
}


def measure(batch_size=128, num_images=12800, runs=5):
    """Measures all pipelines.

    Args:
        batch_size: int.
        num_images: int, images that each run delivers.
        runs: int, number of measurements of each pipeline, after a warm-up.

    Returns:
        A list of dicts, one for each pipeline, with the median, smallest and largest number of
        images per second, and the ratio of the median to that of Keras's RandAugment.
    """
    pipelines = _pipelines(batch_size, num_images)
    speeds = {name: [] for name in pipelines}
    # In turn, so that other load on the machine affects all of them alike.
    for run in range(runs + 1):
        for name, make in pipelines.items():
            batches = iter(make())
            next(batches)
            start, count = time.perf_counter(), 0
            for images, _ in batches:
                count += len(images)
            if run:
                speeds[name].append(count / (time.perf_counter() - start))
    peer = statistics.median(speeds[_PEER]) if _PEER in speeds else None
    return [_row(name, found, peer, batch_size) for name, found in speeds.items()]


def _pipelines(batch_size, num_images):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, *_SHAPE), dtype="uint8")
    labels = np.arange(num_images) % _CLASSES
    source = ArrayDataset(images, labels, range(_CLASSES))
    makers = {}
    for name, table in _TABLES.items():
        policy = AugmentationPolicy.from_config(table, _SHAPE, _CLASSES)
        if has_tensorflow():
            makers[name] = lambda p=policy: epoch_batches(source, batch_size, p)[0]
        plan = EpochPlan(source, batch_size, policy)
        makers[f"{name} (without tf.data)"] = lambda p=plan: BatchSequence(p)
    if has_tensorflow():
        makers[_PEER] = lambda: _peer(images, labels, batch_size)
    return makers


def _peer(images, labels, batch_size):
    import tensorflow as tf

    layer = keras.layers.RandAugment(num_ops=2, factor=0.9)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)
    dataset = dataset.map(
        lambda images, labels: (layer(images, training=True), labels),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return dataset.prefetch(tf.data.AUTOTUNE)


def _row(name, speeds, peer, batch_size):
    median = statistics.median(speeds)
    return {
        "pipeline": name,
        "images_per_second": round(median),
        "slowest_run": round(min(speeds)),
        "fastest_run": round(max(speeds)),
        "ratio_to_keras_rand_augment": round(median / peer, 2) if peer else "",
        "runs": len(speeds),
        "batch_size": batch_size,
        "image_shape": "x".join(map(str, _SHAPE)),
        "machine": describe_hardware(),
        "backend": keras.backend.backend(),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "tensorflow": importlib.metadata.version("tensorflow") if has_tensorflow() else "",
    }


def main(arguments=None):
    """Runs the benchmark from the command line.

    Args:
        arguments: list of str; None takes the process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="data_benchmark.csv", help="csv file to write")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=12800, help="images per run")
    parser.add_argument("--batch-size", type=int, default=128)
    given = parser.parse_args(arguments)
    rows = measure(given.batch_size, given.images, given.runs)
    write_rows(given.output, rows)
    for row in rows:
        speed = f"{row['images_per_second']:>9,} images/s"
        spread = f"({row['slowest_run']:,} .. {row['fastest_run']:,})"
        print(f"{speed} {spread:>22}  {row['ratio_to_keras_rand_augment']:>6}x  {row['pipeline']}")


if __name__ == "__main__":
    main()
