"""Callbacks that go with options of blocks: what changes from epoch to epoch, and what does not."""

import math

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.heads.mask_important_heads import _HeadImportance, mask_most
from lsmha_keras.shp.head_scores import head_scores
from lsmha_keras.training.block_callbacks import block_callbacks
from lsmha_keras.training.train import train
from tests.attention.test_registry import make_classifier
from tests.checks import random_images, random_tokens, to_numpy
from tests.training.tiny import recipe_dict

IMAGES, LABELS = random_images(12, 16, 16, 3), np.arange(12) % 3


def fit(model, *callbacks, epochs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model.fit(
        IMAGES, LABELS, batch_size=6, epochs=epochs, verbose=0, callbacks=list(callbacks)
    )


class Watch(keras.callbacks.Callback):
    """Keeps what a function returns at the end of each epoch."""

    def __init__(self, look):
        super().__init__()
        self.look, self.seen = look, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.look(self.model))


# Token keep


def test_the_share_of_tokens_falls_by_half_a_cosine():
    callback = lsmha.AnnealTokenKeep(epochs=5, warmup_epochs=1)
    shares = [callback.share(0.6, epoch) for epoch in range(7)]
    # Quarters of half a cosine: (1 + cos(pi / 4)) / 2 and so on.
    parts = [1, 1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0, 0]
    assert shares == pytest.approx([0.6 + 0.4 * part for part in parts])
    steps = lsmha.AnnealTokenKeep(epochs=4, every=2)
    assert [steps.share(0.5, e) for e in range(5)] == pytest.approx([1, 1, 0.75, 0.75, 0.5])


def test_training_steps_follow_the_share():
    model = make_classifier(token_keep=[0.5, 1.0])
    layer = model.backbone.blocks[0].token_reduction_layer
    seen, call = [], layer.call

    def watched(x, scores, training=None, padding_mask=None):
        outputs = call(x, scores, training=training, padding_mask=padding_mask)
        seen.append((bool(training), outputs[0].shape[1]))
        return outputs

    object.__setattr__(layer, "call", watched)
    fit(model, lsmha.AnnealTokenKeep(epochs=2), epochs=3)
    in_training = list(dict.fromkeys(count for training, count in seen if training))
    assert in_training == [16, 13, 9]  # all, 12 of 16 and the fused one, 8 and the fused one
    seen.clear()
    model.predict(IMAGES, verbose=0)
    assert {count for training, count in seen if not training} <= {9}
    assert layer.keep_in_training == 0.5
    with pytest.raises(ValueError, match="keeps all tokens"):
        fit(make_classifier(), lsmha.AnnealTokenKeep(2), epochs=1)
    with pytest.raises(ValueError, match="warmup_epochs=3"):
        lsmha.AnnealTokenKeep(3, warmup_epochs=3)


# Heads


def test_the_most_important_heads_are_marked():
    importance = np.array([5, 4, 3, 0, 1, 2])
    assert mask_most(importance, [3, 3], 0.5).tolist() == [0, 0, 1, 1, 1, 0]  # one stays
    assert mask_most(importance, [3, 3], 0).tolist() == [1] * 6
    assert mask_most(importance, [1] * 6, 0.9).tolist() == [1] * 6


def test_heads_are_measured_as_head_scores_does():
    model = make_classifier()
    for seed, weight in enumerate(model.trainable_weights):
        weight.assign(to_numpy(weight) + 0.3 * random_tokens(*weight.shape, seed=seed))
    inputs = {
        "images": np.asarray(keras.ops.convert_to_numpy(model.preprocess_samples(IMAGES))),
        "labels": LABELS.astype("int32"),
        "weights": np.ones(12, "float32"),
    }
    found = _HeadImportance(model).predict_on_batch(inputs) / 12
    expected = head_scores(model, (IMAGES, LABELS), ["mask_gradient"], verbose=0)
    expected = np.concatenate([expected[block]["mask_gradient"] for block in (0, 1)])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_important_heads_are_left_out_of_training_steps_only():
    model = make_classifier(head_dropout=0.25, head_dropout_by="importance")
    plain = make_classifier()
    plain.set_weights([w for w in model.get_weights() if w.shape != (4,)])
    x = random_images(2, 16, 16, 3)
    np.testing.assert_allclose(model.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-6)
    callback = lsmha.MaskImportantHeads((IMAGES, LABELS), max_images=10, batch_size=8)
    watch = Watch(
        lambda model: np.concatenate([to_numpy(b.head_keep.weight) for b in model.backbone.blocks])
    )
    fit(model, callback, watch, epochs=2)
    for factors in watch.seen:
        # Two of eight are left out, the others count 8 / 6.
        assert sorted(factors) == pytest.approx([0, 0] + [8 / 6] * 6)
    assert len(callback.left_out) == 2
    assert all((to_numpy(b.head_keep.weight) == 1).all() for b in model.backbone.blocks)
    block = model.backbone.blocks[0]
    block.head_keep.assign([0, 1, 1, 2])
    tokens = random_tokens(1, 16, 16)
    heads = [
        to_numpy(block(tokens, training=training, return_head_outputs=True)[1])
        for training in (True, False)
    ]
    assert not heads[0][:, :, 0].any() and heads[1][:, :, 0].any()
    with pytest.raises(ValueError, match="head_dropout_by='importance'.*head_dropout=0.0"):
        fit(plain, callback, epochs=1)


# Turns


def make_mae():
    options = {"in_turns": True, "leave_out": 2, "gate_dim": 8}
    return make_classifier(attention="mae", attention_options=options, attention_dropout=0.0)


def test_gates_and_experts_learn_in_turns():
    model = make_mae()
    layer = model.backbone.blocks[1].attention
    layer.gate.kernel.assign(0.3 * random_tokens(*layer.gate.kernel.shape))
    callback = lsmha.TrainInTurns(expert_epochs=2, gate_epochs=1)
    assert [epoch for epoch in range(7) if callback.is_gates_turn(epoch)] == [2, 5]

    def weights(model):
        return [to_numpy(w).copy() for w in (layer.qkv.kernel, layer.gate.kernel)]

    watch = Watch(weights)
    begin = weights(model)
    fit(model, callback, watch, epochs=3)
    states = [begin, *watch.seen]
    moved = [
        tuple(not np.array_equal(a, b) for a, b in zip(*pair, strict=True))
        for pair in zip(states, states[1:], strict=False)
    ]
    # Plain gradient descent moves nothing without a gradient: first the heads, then the gate.
    assert moved == [(True, False), (True, False), (False, True)]
    assert to_numpy(layer.turn.weight).tolist() == [1, 1]
    with pytest.raises(ValueError, match="without such a layer"):
        fit(make_classifier(attention="mae"), lsmha.TrainInTurns(), epochs=1)


def test_an_expert_is_drawn_by_the_gate_in_the_experts_turn():
    layer = make_mae().backbone.blocks[0].attention
    x = random_tokens(40, 16, 16)
    together = to_numpy(layer(x, return_head_outputs=True)[1])
    np.testing.assert_allclose(
        to_numpy(layer(x, training=True, return_head_outputs=True)[1]), together, atol=1e-5
    )
    layer.set_turn(experts=True, gates=False)
    drawn = to_numpy(layer(x, training=True, return_head_outputs=True)[1])
    # Gates are uniform at first, so `together` are the plain heads: of four, two count twice.
    factors = np.einsum("bthd,bthd->bh", drawn, together) / np.einsum(
        "bthd,bthd->bh", together, together
    )
    np.testing.assert_allclose(factors.sum(1), 4, atol=1e-4)
    np.testing.assert_allclose(np.sort(factors, axis=1), [[0, 0, 2, 2]] * 40, atol=1e-4)
    assert len(np.unique(factors.round(), axis=0)) == 4  # each expert once at least
    np.testing.assert_allclose(to_numpy(layer(x, return_head_outputs=True)[1]), together, atol=1e-5)


# Recipes


def test_recipes_bring_them(data, tmp_path):
    overrides = {"num_conv_blocks": 0, "token_keep": [0.5, 1.0], "head_dropout": 0.25}
    overrides |= {"head_dropout_by": "importance", "attention": "mae"}
    overrides["attention_options"] = {"in_turns": True}
    base = recipe_dict(data)
    model = {**base["model"], "overrides": {**base["model"]["overrides"], **overrides}}
    schedule = {"epochs": 2, "token_keep_epochs": 2, "expert_epochs": 1}
    recipe = recipe_dict(data, model=model, schedule=schedule)
    result = train(recipe, tmp_path / "run", verbose=0)
    assert result.model.backbone.token_keep == [0.5, 1.0]
    assert math.isfinite(result.results["accuracy"])
    names = [
        type(callback).__name__ for callback in block_callbacks(result.recipe, result.model, data)
    ]
    assert names == ["AnnealTokenKeep", "TrainInTurns", "MaskImportantHeads"]
    device = recipe_dict(data, model=model, schedule=schedule)
    device["data"]["placement"] = "device"
    with pytest.raises(ValueError, match="on the device"):
        train(device, tmp_path / "other", verbose=0)
