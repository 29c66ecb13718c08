import gc
import tracemalloc

import keras
import numpy as np
import pytest

from lsmha_keras.shp.performance import HeadFields, single_head_performance
from lsmha_keras.shp.readouts import BlockReadouts
from tests.checks import to_numpy
from tests.shp.models import (
    LABELS,
    LabelHeads,
    grey_images,
    pictures,
    random_readouts,
    small_classifier,
)

BLOCKS = [1, 2, 3]


@pytest.fixture(scope="module")
def measured():
    """A model, readouts, data, and the results in both modes."""
    model, data = small_classifier(), pictures()
    for block in BLOCKS:  # Larger head outputs, so that the pooling matters.
        kernel = model.backbone.blocks[block].attention.qkv.kernel
        kernel.assign(15 * to_numpy(kernel))
    readouts = random_readouts(BLOCKS)
    results = single_head_performance(model, readouts, data, "both", batch_size=16, verbose=0)
    return model, readouts, data, results


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def readout_fields(heads, weights, scored=None):
    """The definition, in NumPy: pooling weights from `scored`, then the linear layer."""
    flat = heads.reshape(*heads.shape[:2], -1).astype("float64")
    scored = flat if scored is None else scored.reshape(flat.shape).astype("float64")
    pool_kernel, pool_bias, kernel = (array.astype("float64") for array in weights)
    pooled = (softmax(scored @ pool_kernel + pool_bias) * flat).sum(axis=1)
    return pooled @ kernel


def class_means(fields, labels):
    return np.stack([fields[labels == label].mean(axis=0) for label in range(LABELS)])


def head_outputs(model, images, block, mask=None):
    name = f"block_{block}/head_outputs"
    masks = {} if mask is None else {block: mask}
    return to_numpy(model.intermediates([name], masks)(model.preprocessor(images))[name])


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("pooling", ["recomputed", "frozen"])
def test_equals_masking_all_other_heads(measured, block, pooling):
    """One head at a time: the model runs with the others masked, then the readout."""
    model, readouts, (images, labels), results = measured
    scored = head_outputs(model, images, block) if pooling == "frozen" else None
    for head, mask in enumerate(np.eye(4, dtype="float32")):
        masked = head_outputs(model, images, block, mask)
        fields = readout_fields(masked, readouts.weights[block], scored)
        found = results[pooling][block].class_means[head]
        np.testing.assert_allclose(found, class_means(fields, labels), atol=1e-5)
        assert np.abs(found).max() > 0.1


@pytest.mark.parametrize("block", BLOCKS)
def test_frozen_fields_sum_to_the_logits(measured, block):
    model, readouts, (images, labels), results = measured
    logits = readout_fields(head_outputs(model, images, block), readouts.weights[block])
    found = results["frozen"][block]
    np.testing.assert_allclose(
        found.class_means.sum(axis=0), class_means(logits, labels), atol=1e-4
    )
    assert found.readout_accuracy == pytest.approx((logits.argmax(axis=1) == labels).mean())
    different = results["recomputed"][block].class_means.sum(axis=0) - class_means(logits, labels)
    assert np.abs(different).max() > 1e-3


def test_every_kind_of_data_and_any_batch_size_agree(measured):
    model, readouts, (images, labels), results = measured

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return images[15 * index : 15 * index + 15], labels[15 * index : 15 * index + 15]

    fields = HeadFields(model, [2])
    kinds = [
        (Batches(), 16),
        ((images, labels), 60),
        ((images, labels), 100),
        ((list(images), np.eye(LABELS)[labels]), 60),
        ((images[::-1], labels[::-1, None]), 60),
    ]
    for data, batch_size in kinds:
        found = fields.measure(readouts, data, batch_size=batch_size, verbose=0)["recomputed"][2]
        np.testing.assert_allclose(
            found.class_means, results["recomputed"][2].class_means, atol=1e-5
        )
        assert found.label_counts.tolist() == np.bincount(labels).tolist()


def test_tf_data(measured):
    tf = pytest.importorskip("tensorflow")
    model, readouts, data, results = measured
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(16)
    found = single_head_performance(model, readouts, dataset, verbose=0)[3]
    np.testing.assert_allclose(found.class_means, results["recomputed"][3].class_means, atol=1e-5)


def test_the_compiled_step_uses_new_weights():
    """Readouts and trunk may change between two measurements with the same object."""
    model, data = small_classifier(), pictures(20)
    fields = HeadFields(model, [3])
    fields.measure(random_readouts([3]), data, verbose=0)
    readouts = random_readouts([3], seed=1)
    kernel = model.backbone.blocks[3].attention.qkv.kernel
    kernel.assign(2 * to_numpy(kernel))
    found = fields.measure(readouts, data, verbose=0)["recomputed"][3]
    expected = single_head_performance(model, readouts, data, verbose=0)[3]
    np.testing.assert_allclose(found.class_means, expected.class_means, atol=1e-6)


def label_heads(labels=4):
    """One head of width `labels` whose output is the label's unit vector."""
    return LabelHeads(np.eye(labels)[:, None])


def test_single_head_and_missing_label():
    labels = np.array([0, 0, 0, 1, 3, 3])
    readouts = BlockReadouts({0: (np.zeros((4, 1)), np.zeros(1), np.eye(4))})
    found = single_head_performance(
        label_heads(), readouts, (grey_images(labels), labels), verbose=0
    )[0]
    expected = np.diag([0.5, 0.5, np.nan, 0.5])  # a mean over the tokens 1, 0 and 0.5
    expected[2] = np.nan
    np.testing.assert_allclose(found.class_means, expected[None], atol=1e-6)
    assert found.missing_labels == [2] and found.clusters == [[[0], [1], [3]]]
    assert "no images: 2" in found.summary() and "one head" in found.summary()


def test_memory_does_not_grow_with_the_number_of_images():
    class Endless(keras.utils.PyDataset):
        def __init__(self, length):
            super().__init__()
            self.length = length

        def __len__(self):
            return self.length

        def __getitem__(self, index):
            labels = (np.arange(64) + index) % 4
            return np.tile(grey_images(labels), (1, 16, 16, 1)), labels

    fields = HeadFields(label_heads(), [0])
    readouts = BlockReadouts({0: (np.zeros((4, 1)), np.zeros(1), np.eye(4))})
    options = {"batch_size": 64, "verbose": 0}
    fields.measure(readouts, Endless(2), **options)
    peaks = []
    for length in (4, 24):
        gc.collect()
        tracemalloc.start()
        fields.measure(readouts, Endless(length), **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Twenty batches more have 5.2 million pixels; when memory is freed varies by a batch or two.
    assert peaks[1] < peaks[0] + 3_000_000


LABELLED = (grey_images(np.arange(4)), np.arange(4))


@pytest.mark.parametrize(
    "data, message",
    [
        (LABELLED[0], "pair"),
        ((LABELLED[0], np.arange(3)), "one label per image"),
        ((LABELLED[0], np.array([0, 1, 2, 4])), "label 4 of sample 3"),
        ((LABELLED[0], np.array([0, 1, 2, -1])), "label -1 of sample 3"),
        ((LABELLED[0], np.eye(4, 6)), r"one-hot with 4 classes.*\(4, 6\)"),
        ((LABELLED[0], np.array([0, 1, 2, 0.5])), "integers"),
        ((LABELLED[0][:0], np.arange(0)), "0 images"),
        ("digits", "have 4 labels.*10 labels"),
    ],
)
def test_bad_data(data, message):
    readouts = random_readouts([0], inner=4, labels=4)
    with pytest.raises(ValueError, match=message):
        single_head_performance(label_heads(), readouts, data, verbose=0)


@pytest.mark.parametrize(
    "readouts, message",
    [
        (random_readouts([1], inner=4, labels=4), r"some of \[0\].*blocks=\[1\]"),
        (random_readouts([0], inner=6, labels=4), r"heads of block 0.*\(6, 1\)"),
    ],
)
def test_readouts_that_do_not_fit(readouts, message):
    with pytest.raises(ValueError, match=message):
        single_head_performance(label_heads(), readouts, LABELLED, verbose=0)


def test_nan_activations_name_the_block():
    class Broken(LabelHeads):
        def head_outputs(self, images):
            heads = super().head_outputs(images)
            return {**heads, 1: heads[1] * np.nan}

    model = Broken(np.eye(4)[:, None], num_blocks=3)
    with pytest.raises(ValueError, match=r"NaN or infinity from blocks \[1\]"):
        readouts = random_readouts([0, 1, 2], inner=4, labels=4)
        single_head_performance(model, readouts, LABELLED, verbose=0)


def test_unknown_mode():
    with pytest.raises(ValueError, match="pooling='mean'"):
        single_head_performance(label_heads(), random_readouts([0]), LABELLED, pooling="mean")
