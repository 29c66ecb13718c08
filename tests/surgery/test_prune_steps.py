"""Heads that are planted to be useless are those that go, at once or step by step."""

import numpy as np
import pytest

from lsmha_keras.shp.head_scores import head_scores
from lsmha_keras.surgery.prune_heads import choose_heads, prune_heads
from lsmha_keras.surgery.prune_steps import prune_steps
from tests.attention.test_registry import make_classifier
from tests.checks import to_numpy
from tests.surgery.test_prune_heads import IMAGES, shaken

LABELS = np.arange(24) % 3
# Brightness tells the label, and noise makes each image another one.
PICTURES = (
    60 * LABELS[:, None, None, None] + np.random.default_rng(0).integers(0, 90, (24, 16, 16, 3))
).astype("uint8")
DATA = PICTURES, LABELS
USELESS = {0: [1, 3], 1: [2]}


def change(block, part, heads, values):
    """Sets the columns of some heads in a third of the fused kernel."""
    dense = block.attention.qkv
    kernel = to_numpy(dense.kernel).reshape(16, 3, 4, 4).copy()
    kernel[:, part, heads] = values(kernel[:, part])
    dense.kernel.assign(kernel.reshape(16, -1))


def without_output(model):
    """What these heads compute is not read."""
    for index, heads in USELESS.items():
        kernel = model.backbone.blocks[index].attention.projection.kernel
        rows = to_numpy(kernel).reshape(4, 4, 16).copy()
        rows[heads] = 0
        kernel.assign(rows.reshape(16, 16))
    return model


def without_values(model):
    """These heads compute zero, whatever they look at: no label can be read from them."""
    for index, heads in USELESS.items():
        change(model.backbone.blocks[index], 2, heads, lambda kernel: 0)
    return model


@pytest.mark.parametrize(
    ("plant", "by"),
    [
        (without_output, "mask_gradient"),
        (without_values, "mask_gradient"),
        (without_values, "shp"),
        (without_values, "shp_clusters"),
    ],
)
def test_exactly_the_planted_heads_go(plant, by):
    model = plant(shaken())
    options = {"data": DATA, "verbose": 0}
    if by.startswith("shp"):
        options["readout_epochs"] = 20
    assert choose_heads(model, 3 / 8, by, **options) == USELESS
    pruned = prune_heads(model, fraction=3 / 8, by=by, **options)
    # Nothing was lost.
    np.testing.assert_allclose(to_numpy(pruned(IMAGES)), to_numpy(model(IMAGES)), atol=1e-5)


def twins():
    """In block 0 heads 0 and 2 are the same, in block 1 heads 1 and 3."""
    model = shaken()
    for index, (one, other) in enumerate([(0, 2), (1, 3)]):
        for part in range(3):
            change(
                model.backbone.blocks[index], part, other, lambda kernel, one=one: kernel[:, one]
            )
    return model


@pytest.mark.parametrize("by", ["map_redundancy", "output_redundancy"])
def test_of_twins_one_goes_if_heads_are_ranked_anew(by):
    model = twins()
    tuned = []
    steps = list(prune_steps(model, 0.25, by, 2, tuned.append, data=DATA, verbose=0))
    assert [step.fraction for step in steps] == [0, 0.125, 0.25]
    assert [sum(map(len, step.heads.values())) for step in steps] == [8, 7, 6]
    left = steps[-1].heads
    assert {1, 3} <= set(left[0]) and len(left[0]) == 3  # one of 0 and 2 is gone
    assert {0, 2} <= set(left[1]) and len(left[1]) == 3
    # What is fine-tuned is a copy; the numbers are those of the first model.
    assert [step.model for step in steps[1:]] == tuned
    assert all(step.untuned is not step.model for step in steps[1:])
    assert steps[0].model is model
    expected = prune_heads(model, keep=left)
    for found in (steps[-1].model, steps[-1].untuned):
        np.testing.assert_allclose(to_numpy(found(IMAGES)), to_numpy(expected(IMAGES)), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, "shp_cover"), "The scores are.*shp_coverage.*methods"),
        ((0.5, "random", 0), "steps=0"),
        ((1.0, "random"), "fraction=1.0"),
        ((0.9, "random"), "at most 0.750"),
    ],
)
def test_bad_arguments_are_refused_before_the_first_step(arguments, message):
    with pytest.raises(ValueError, match=message):
        prune_steps(shaken(), *arguments)


def looking_to_the_right():
    """Head 2 of block 0 looks one token to the right, whatever the image; all others evenly."""
    model = make_classifier(use_qkv_bias=True)
    backbone = model.backbone
    for weight in backbone.tokenizer.weights:
        weight.assign(np.zeros(weight.shape))  # tokens are their positions, and nothing else
    backbone.position_embedding_layer.embedding.assign(np.eye(16)[None])
    rows, columns = np.divmod(np.arange(16), 4)

    def code(rows, columns):
        angles = 2 * np.pi * np.stack([rows, columns]) / 8
        return np.concatenate([np.cos(angles), np.sin(angles)]).T  # largest with itself

    for index, block in enumerate(backbone.blocks):
        kernel, bias = np.zeros((16, 3, 4, 4)), np.zeros((3, 4, 4))
        if index == 0:
            kernel[:, 0, 2] = 100 * code(rows, np.minimum(columns + 1, 3))
            kernel[:, 1, 2] = code(rows, columns)
            # The normalisation takes the mean off, which a query needs, and divides by this.
            bias[0, 2] = kernel[:, 0, 2].mean(axis=0) / np.eye(16)[0].std()
        block.attention.qkv.kernel.assign(kernel.reshape(16, -1))
        block.attention.qkv.bias.assign(bias.reshape(-1))
    return model


def test_the_head_with_an_offset_is_found_and_stays():
    model = looking_to_the_right()
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3)).astype("uint8")
    table = head_scores(model, (images, LABELS), ["offset"], verbose=0)
    # Tokens are 4 pixels apart, and those of the last of four columns look at themselves.
    np.testing.assert_allclose(table[0]["offset"], [0, 0, 3, 0], atol=0.05)
    np.testing.assert_allclose(table[1]["offset"], 0, atol=1e-4)
    pruned = prune_heads(model, fraction=0.75, by=(table, "offset"))
    assert pruned.backbone.num_heads == 1
    assert 2 not in choose_heads(model, 0.75, (table, "offset"))[0]
