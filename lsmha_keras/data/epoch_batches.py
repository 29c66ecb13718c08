"""Augmented batches for `fit`."""

import importlib.util

from lsmha_keras.data.batch_sequence import BatchSequence
from lsmha_keras.data.epoch_plan import EpochPlan
from lsmha_keras.data.foreign_layer import call_foreign_layer


def epoch_batches(
    source,
    batch_size,
    policy=None,
    one_hot=False,
    seed=0,
    first_epoch=0,
    epochs=1,
    shuffle=True,
    drop_remainder=False,
):
    """Makes what `fit` consumes: shuffled, augmented batches of several epochs.

    The order of epoch e and all that happens to its batch b depend on `(seed, e, b)` alone: a run
    that is resumed at epoch e sees the batches that one which was never interrupted sees, in
    however many threads they are made, and with TensorFlow or without. (Layers of other packages
    draw their own random numbers; they see the batches one after the other, in this order.)

    Args:
        source: `ImageDataset`, as `open_dataset` returns it.
        batch_size: int.
        policy: `AugmentationPolicy`, or None for none.
        one_hot: bool; True turns labels into one-hot float32 vectors. A policy that mixes labels
            does so in any case.
        seed: int.
        first_epoch: int, the epoch to begin with.
        epochs: int, the end (exclusive).
        shuffle: bool.
        drop_remainder: bool; True leaves out a last batch that is not full.

    Returns:
        A `tf.data.Dataset` (without TensorFlow, a `keras.utils.PyDataset`) that runs through all
        epochs one after the other, and the number of batches of one epoch: pass both to `fit`, the
        latter as `steps_per_epoch`.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import lsmha_keras as lsmha
        >>> source = lsmha.open_dataset("digits", "train[:100]")
        >>> policy = lsmha.AugmentationPolicy.from_config({"flip": True}, source.image_shape, 10)
        >>> batches, steps = epoch_batches(source, 32, policy, epochs=2)
        >>> steps, len(batches)
        (4, 8)
    """
    if not 0 <= first_epoch < epochs:
        raise ValueError(
            "`first_epoch` must be at least 0 and less than `epochs`. "
            f"Received: first_epoch={first_epoch}, epochs={epochs}"
        )
    plan = EpochPlan(source, batch_size, policy, one_hot, seed, shuffle, drop_remainder)
    if has_tensorflow():
        return _tf_batches(plan, first_epoch, epochs), plan.steps_per_epoch
    return BatchSequence(plan, first_epoch, epochs), plan.steps_per_epoch


def has_tensorflow():
    """Returns whether TensorFlow is installed.

    Returns:
        A bool.
    """
    return importlib.util.find_spec("tensorflow") is not None


def _tf_batches(plan, first_epoch, epochs):
    """Reads, and applies the runs of layers, each in a map of its own."""
    import tensorflow as tf

    steps = plan.steps_per_epoch
    dataset = tf.data.Dataset.range(first_epoch * steps, epochs * steps)
    runs = plan.runs()
    first = runs.pop(0)[1] if runs and runs[0][0] else []
    dataset = _map_in_parallel(dataset, _reader(plan, first))
    for own, run in runs:
        if own:
            dataset = _map_in_parallel(dataset, _augmenter(plan, run))
        else:
            # One batch at a time: threads would share such a layer's random state.
            dataset = dataset.map(_foreign_caller(run))
    dataset = dataset.map(lambda step, images, labels: (images, labels))
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    dataset.class_names = plan.source.class_names
    return dataset


def _map_in_parallel(dataset, function):
    import tensorflow as tf

    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _reader(plan, run):
    import tensorflow as tf

    count = plan.batch_size if plan.drop_remainder else None
    types = ["uint8", "float32" if plan.one_hot else "int32"]

    def read(step):
        return plan.augment(run, step, *plan.read(step)) if run else plan.read(step)

    def read_in_graph(step):
        images, labels = tf.numpy_function(lambda n: read(int(n)), [step], types, stateful=False)
        images.set_shape((count, *plan.source.image_shape))
        labels.set_shape((count, plan.num_classes) if plan.one_hot else (count,))
        return step, images, labels

    return read_in_graph


def _augmenter(plan, run):
    import tensorflow as tf

    def augment_in_graph(step, images, labels):
        results = tf.numpy_function(
            lambda n, *batch: plan.augment(run, int(n), *batch),
            [step, images, labels],
            [images.dtype, labels.dtype],
            stateful=False,
        )
        for result, given in zip(results, (images, labels), strict=True):
            result.set_shape(given.shape)
        return step, *results

    return augment_in_graph


def _foreign_caller(run):
    def call_in_graph(step, images, labels):
        for _, layer in run:
            images, labels = call_foreign_layer(layer, images, labels)
        return step, images, labels

    return call_in_graph
