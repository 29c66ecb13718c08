import random

import keras
import numpy as np
import pytest

from lsmha_keras.data.labelled import ImageBatches
from lsmha_keras.shp.readout_trainer import ReadoutTrainer, fit_readout
from tests.checks import to_numpy
from tests.shp.models import (
    LABELS,
    LabelHeads,
    grey_images,
    pictures,
    random_readouts,
    small_classifier,
)

OPTIONS = {"batch_size": 16, "verbose": 0}


@pytest.fixture(scope="module")
def model():
    return small_classifier()


def assert_equal(readouts, others, blocks, tolerance=0.0):
    for block in blocks:
        for array, other in zip(readouts.weights[block], others.weights[block], strict=True):
            np.testing.assert_allclose(array, other, atol=tolerance)


def random_states():
    states = [random.getstate(), np.random.get_state()[1].tolist()]
    if keras.config.backend() == "torch":
        import torch

        states.append(torch.get_rng_state().tolist())
    return states


def test_training_is_reproducible_and_touches_nothing_else(model):
    weights, states = [to_numpy(v) for v in model.variables], random_states()
    trainable = [v.trainable for v in model.variables]
    first = fit_readout(model, pictures(), epochs=2, **OPTIONS)
    assert first.blocks == [1, 2, 3] and set(first.accuracy) == {1, 2, 3}
    assert random_states() == states
    assert [v.trainable for v in model.variables] == trainable
    for variable, before in zip(model.variables, weights, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), before)
    assert_equal(first, fit_readout(model, pictures(), epochs=2, **OPTIONS), first.blocks)


def test_each_block_trains_as_it_would_alone(model):
    together = fit_readout(model, pictures(), epochs=2, **OPTIONS)
    alone = fit_readout(model, pictures(), blocks=[2], epochs=2, **OPTIONS)
    assert alone.blocks == [2] and alone.accuracy[2] == pytest.approx(together.accuracy[2])
    assert_equal(together, alone, [2], 1e-6)


def test_labels_that_can_be_told_apart_are_learnt():
    labels = np.arange(40) % 4
    data = (grey_images(labels), labels)
    readouts = fit_readout(
        LabelHeads(np.eye(4).reshape(4, 2, 2)),
        data,
        num_labels=4,
        epochs=20,
        learning_rate=0.1,
        **OPTIONS,
    )
    assert readouts.accuracy == {0: 1.0}
    kernel = readouts.weights[0][2]
    assert kernel.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_sgd_equals_torch(model):
    """Nesterov momentum, decay in the gradient and the rate's fall, two epochs of two batches."""
    torch = pytest.importorskip("torch")
    images, labels = pictures(32)
    initial = random_readouts([3], seed=2)
    trainer = ReadoutTrainer(model, LABELS, [3], optimizer="sgd", seed=4, augment=False)
    found = trainer.train((images, labels), epochs=2, initial=initial, **OPTIONS)

    name = "block_3/head_outputs"
    trunk = model.intermediates([name])
    w, b, kernel = (torch.tensor(a, requires_grad=True) for a in initial.weights[3])
    optimizer = torch.optim.SGD(
        [w, b, kernel], lr=0.01, momentum=0.975, nesterov=True, weight_decay=1e-3
    )
    for epoch in range(2):
        for x, y in ImageBatches((images, labels), 16, seed=4).epoch(shuffle=epoch):
            heads = torch.tensor(to_numpy(trunk(model.preprocessor(x))[name])).flatten(2)
            pooled = ((heads @ w + b).softmax(dim=1) * heads).sum(dim=1)
            loss = torch.nn.functional.cross_entropy(pooled @ kernel, torch.tensor(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.975
    expected = [array.detach().numpy() for array in (w, b, kernel)]
    # Keras folds the rate into the momentum: with a rate that falls that differs in second order.
    for array, other, start in zip(found.weights[3], expected, initial.weights[3], strict=True):
        np.testing.assert_allclose(array, other, atol=0.01 * np.abs(other - start).max() + 1e-6)
    assert np.abs(expected[2] - initial.weights[3][2]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "augmented"),
    [
        ({}, False),
        ({"optimizer": "sgd"}, True),
        ({"optimizer": "sgd", "augment": False}, False),
        ({"augment": True}, True),
    ],
)
def test_flips_and_shifts_are_part_of_the_sgd_schedule(options, augmented, monkeypatch):
    """One grey pixel in the middle shows where it goes: the label is its grey."""
    labels = np.arange(1, 65) % 4
    images = np.zeros((64, 16, 16, 1), "uint8")
    images[:, 7, 7, 0] = labels + 1
    places = []
    trainer = ReadoutTrainer(LabelHeads(np.eye(4)[:, None]), 4, **options)
    prepare = trainer.trunk.prepare

    def watch(images):
        if len(images) == 64:  # not the one that tells the shapes
            places.append([np.argwhere(image[..., 0]) for image in images])
        return prepare(0 * images)

    monkeypatch.setattr(trainer.trunk, "prepare", watch)
    options = {"batch_size": 64, "verbose": 0, "validation_data": (images, labels)}
    trainer.train((images, labels), epochs=2, **options)
    first, second, validation = (np.array(found) for found in places)
    assert (validation == 7).all()  # what is measured on stays as it is
    for found in (first, second):
        assert found.shape == (64, 1, 2)
        rows, columns = (set(values) for values in found[:, 0].T.tolist())
        # Flipped, column 7 is column 8: then shifts reach one further.
        assert rows == (set(range(3, 12)) if augmented else {7})
        assert columns == (set(range(3, 13)) if augmented else {7})
    assert (first != second).any() == augmented


def test_warm_start(model):
    """The same object goes on; another one does so from the readouts; the optimizer restarts."""
    trainer = ReadoutTrainer(model, LABELS)
    first = trainer.train(pictures(), epochs=2, **OPTIONS)
    second = trainer.train(pictures(), epochs=1, **OPTIONS)
    again = fit_readout(model, pictures(), epochs=1, initial=first, **OPTIONS)
    assert_equal(second, again, [1, 2, 3], 1e-6)
    assert np.abs(second.weights[1][2] - first.weights[1][2]).max() > 1e-4


def test_accuracy_is_that_of_validation_data(model):
    readouts = random_readouts([1, 2])
    trainer = ReadoutTrainer(model, LABELS, [1, 2], learning_rate=1e-9)
    images, labels = pictures(50, seed=1)
    found = trainer.train(
        pictures(), epochs=1, initial=readouts, validation_data=(images, labels), **OPTIONS
    )
    w, _, kernel = readouts.weights[2]
    name = "block_2/head_outputs"
    heads = to_numpy(model.intermediates([name])(model.preprocessor(images))[name])
    heads = heads.reshape(*heads.shape[:2], -1)
    scores = np.exp(heads @ w)
    answers = ((scores / scores.sum(axis=1, keepdims=True) * heads).sum(axis=1) @ kernel).argmax(1)
    assert found.accuracy[2] == pytest.approx((answers == labels).mean())


@pytest.mark.parametrize(
    "kind, expected", [("named", 10), ("one-hot", 7), ("the model's", LABELS), ("given", 9)]
)
def test_number_of_labels(model, kind, expected):
    images, labels = pictures(16)
    data = {
        "named": "digits",
        "one-hot": (images, np.eye(7)[labels]),
    }.get(kind, (images, labels))
    given = 9 if kind == "given" else None
    if kind == "named":
        model = small_digits_model()
    readouts = fit_readout(
        model, data, [3], num_labels=given, epochs=1, max_images=16, split="train[:16]", **OPTIONS
    )
    assert readouts.num_labels == expected
    assert readouts.label_names == ([str(i) for i in range(10)] if kind == "named" else None)


def small_digits_model():
    from lsmha_keras import CCTImageClassifier

    return CCTImageClassifier.from_preset(
        "cct_4_3x2_h4_c1", num_classes=10, hidden_dim=16, mlp_dim=16, tokenizer_filters=8
    )


def test_dropout_and_statistics_of_the_trunk_are_off():
    """A trunk with dropout trains the same readout every time, and its normalisation stays."""

    class Noisy(LabelHeads):
        def __init__(self):
            super().__init__(np.eye(4)[:, None])
            self.dropout = keras.layers.Dropout(0.5, seed=1)
            self.norm = keras.layers.BatchNormalization()
            self.norm.build((None, 3, 1, 4))

        def head_outputs(self, images):
            return {0: self.dropout(self.norm(super().head_outputs(images)[0]))}

    labels = np.arange(32) % 4
    model, data = Noisy(), (grey_images(labels), labels)
    noiseless = LabelHeads(np.eye(4)[:, None] / np.sqrt(1.001))
    found, expected = (
        fit_readout(m, data, num_labels=4, epochs=2, **OPTIONS) for m in (model, noiseless)
    )
    assert_equal(found, expected, [0], 1e-5)
    assert to_numpy(model.norm.moving_mean).any() == np.False_


def test_nan_activations_name_the_block():
    class Broken(LabelHeads):
        def head_outputs(self, images):
            heads = super().head_outputs(images)
            return {**heads, 2: heads[2] * np.inf}

    labels = np.arange(8) % 4
    model = Broken(np.eye(4)[:, None], num_blocks=3)
    with pytest.raises(ValueError, match=r"from blocks \[2\]"):
        fit_readout(model, (grey_images(labels), labels), num_labels=4, epochs=1, **OPTIONS)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"blocks": [0]}, r"some of \[1, 2, 3\].*blocks=\[0\]"),
        ({"blocks": [4]}, r"some of \[1, 2, 3\].*blocks=\[4\]"),
        ({"blocks": []}, r"blocks=\[\]"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_images": 0}, "max_images=0"),
        ({"optimizer": "adam"}, "'adamw', 'sgd'"),
        ({"num_labels": 1}, "num_labels=1"),
        ({"num_labels": 3}, "Labels must lie in 0 .. 2"),
        ({"initial": random_readouts([1])}, r"blocks \[1, 2, 3\].*Received: blocks \[1\]"),
        ({"dataset": np.zeros((4, 16, 16, 3), "uint8")}, "pair"),
        ({"dataset": (np.zeros((0, 16, 16, 3), "uint8"), np.zeros(0, int))}, "0 images"),
        ({"dataset": "nothing_of_that_name", "num_labels": 5}, "nothing_of_that_name"),
    ],
)
def test_errors(model, arguments, message):
    with pytest.raises((ValueError, ImportError), match=message):
        fit_readout(**{"model": model, "dataset": pictures(), "verbose": 0, **arguments})


def test_unknown_number_of_labels():
    labels = np.arange(8) % 4
    with pytest.raises(ValueError, match="give `num_labels`"):
        fit_readout(LabelHeads(np.eye(4)[:, None]), (grey_images(labels), labels), verbose=0)
