"""Heads that fall asleep and wake while a model trains."""

import keras
import numpy as np
import pytest

import lsmha_keras
from lsmha_keras.surgery.prune_heads import choose_heads
from tests.checks import to_numpy
from tests.heads.models import classifier
from tests.shp.models import pictures

DATA = pictures(20)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(learning_rate=1e-2, **arguments):
    model = classifier(**arguments)
    model.compile(keras.optimizers.AdamW(learning_rate, weight_decay=0.1), LOSS)
    return model


class Watch(keras.callbacks.Callback):
    """Keeps what is predicted before and after another callback, at the end of each epoch."""

    def __init__(self, callback):
        super().__init__()
        self.callback, self.before, self.after, self.asleep = callback, [], [], []

    def set_model(self, model):
        super().set_model(model)
        self.callback.set_model(model)

    def on_train_begin(self, logs=None):
        self.callback.on_train_begin(logs)

    def on_epoch_end(self, epoch, logs=None):
        self.before.append(self.model.predict(DATA[0], verbose=0))
        self.callback.on_epoch_end(epoch, logs)
        self.after.append(self.model.predict(DATA[0], verbose=0))
        self.asleep.append(self.callback.asleep)


def test_heads_fall_asleep_stay_asleep_and_wake_without_a_change():
    model = compiled()
    heads = lsmha_keras.HeadSchedule(DATA, {1: 0.5, 3: 0.75}, batch_size=20)
    watch = Watch(heads)
    history = model.fit(*DATA, epochs=4, batch_size=10, callbacks=[watch], verbose=0).history
    assert history["heads/awake"] == [6, 6, 9, 9]
    assert np.isnan(history["heads/rank_correlation"][0])
    assert all(-1 <= value <= 1 for value in history["heads/rank_correlation"][1:])
    first, second, third, last = watch.asleep
    assert first == second and third == last
    assert all(set(third[block]) <= set(first[block]) for block in third)
    # To fall asleep changes what is predicted, to stay asleep and to wake does not.
    assert np.abs(watch.after[0] - watch.before[0]).max() > 1e-3
    for before, after in zip(watch.before[1:], watch.after[1:], strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5)
    smaller = heads.pruned()
    assert sum(block.num_heads for block in smaller.backbone.blocks[1:]) == 9
    np.testing.assert_allclose(
        smaller.predict(DATA[0], verbose=0), model.predict(DATA[0], verbose=0), atol=1e-5
    )
    # Those that woke have learnt to write.
    for block, names in first.items():
        rows = to_numpy(model.backbone.blocks[block].attention.projection.kernel).reshape(4, 4, -1)
        for head in names:
            assert np.any(rows[head]) == (head not in third.get(block, []))


def test_the_ranking_of_a_model_that_does_not_learn_is_steady_and_the_lowest_go():
    model = compiled(0.0)
    model.backbone.blocks[0].trainable = False  # or its batch normalisation learns on
    model.compile(model.optimizer, LOSS)
    expected = choose_heads(model, 0.25, "mask_gradient", data=DATA, verbose=0)
    heads = lsmha_keras.HeadSchedule(DATA, {3: 0.75}, every=2)
    history = model.fit(*DATA, epochs=4, callbacks=[heads], verbose=0).history
    correlations = history["heads/rank_correlation"]
    assert np.isnan(correlations[0]) and np.isnan(correlations[1])
    assert correlations[2] == pytest.approx(1)
    assert heads.asleep == expected
    # A training that goes on, with another callback, knows them.
    again = lsmha_keras.HeadSchedule(DATA, {})
    model.fit(*DATA, callbacks=[again], verbose=0)
    assert again.asleep == expected


def test_momentum_of_a_sleeping_head_is_forgotten():
    model = compiled(use_qkv_bias=True)
    heads = lsmha_keras.HeadSchedule(DATA, {1: 0.5})
    model.fit(*DATA, epochs=1, callbacks=[heads], verbose=0)
    before = model.get_weights()
    # No callback undoes anything here.
    model.fit(*DATA, epochs=2, verbose=0)
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    for block, names in heads.asleep.items():
        attention = model.backbone.blocks[block].attention
        rows = to_numpy(attention.projection.kernel).reshape(4, 4, -1)
        values = to_numpy(attention.qkv.kernel).reshape(-1, 3, 4, 4)[:, 2]
        assert not rows[names].any() and not values[:, names].any()


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        ([0.5], {}, "dict from epochs to shares"),
        ({0: 0.5}, {}, "epoch of the schedule.*Received.*0"),
        ({1: 0.0}, {}, "above 0 and at most 1. Received: 0.0"),
        ({1: 1.5}, {}, "Received: 1.5"),
        ({1: True}, {}, "Received: True"),
        ({1: 0.5}, {"by": "shp_cover"}, "nearest: shp_coverage"),
        ({1: 0.5}, {"every": 0}, "every=0"),
    ],
)
def test_schedules_that_are_none(schedule, options, message):
    with pytest.raises(ValueError, match=message):
        lsmha_keras.HeadSchedule(DATA, schedule, **options)


def test_models_that_cannot_follow_are_named_before_an_epoch():
    seen = []
    for arguments, schedule, message in [
        ({}, {2: 0.1}, "at most 0.750 of the 12 heads"),
        ({"attention": "clustered"}, {2: 0.5}, "attention='clustered' in block 1"),
    ]:
        model = compiled(**arguments)
        heads = lsmha_keras.HeadSchedule(DATA, schedule)
        count = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(1))
        with pytest.raises(ValueError, match=message):
            model.fit(*DATA, callbacks=[heads, count], verbose=0)
    assert not seen
