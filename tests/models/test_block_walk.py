"""Backbones whose blocks hand on more than tokens: positions, and tokens that skip blocks."""

import keras
import numpy as np
import pytest
from keras import ops

from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.heads.interventions import ScaledHeads
from lsmha_keras.models import CCTBackbone, CCTImageClassifier
from lsmha_keras.shp.head_scores import BlockHeadScores, head_scores
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readout_trainer import fit_readout
from lsmha_keras.surgery.grow import grow
from lsmha_keras.surgery.prune_heads import prune_heads
from lsmha_keras.surgery.replace_blocks import replace_blocks
from tests.attention.test_registry import SMALL, make_classifier
from tests.checks import random_images, random_tokens, to_numpy

# 16 tokens of width 16 on a 4 x 4 grid, three blocks.
LAPE = {"num_layers": 3, "position_embedding_join": "layer"}
FUSE = {"num_layers": 3, "token_keep": [0.5, 1.0, 0.5]}
MERGE = {**FUSE, "token_reduction": "merge"}
SKIP = {"num_layers": 3, "token_keep": [0.5, 1.0, 1.0], "token_reduction": "skip"}
HEAD_TOKENS = {"num_layers": 3, "head_tokens": 4}
OPTIONS = {"lape": LAPE, "fuse": FUSE, "merge": MERGE, "skip": SKIP, "head tokens": HEAD_TOKENS}
IMAGES = random_tokens(2, 16, 16, 3)


def shaken(**changes):
    model = make_classifier(**changes)
    for seed, weight in enumerate(model.trainable_weights):
        weight.assign(to_numpy(weight) + 0.3 * random_tokens(*weight.shape, seed=seed))
    return model


@pytest.fixture(scope="module", params=OPTIONS)
def model(request):
    return shaken(**OPTIONS[request.param])


def test_saved_counted_and_traced(model, tmp_path):
    expected = to_numpy(model(IMAGES))
    model.save_to_preset(tmp_path / "preset")
    loaded = CCTImageClassifier.from_preset(tmp_path / "preset")
    np.testing.assert_allclose(to_numpy(loaded(IMAGES)), expected, atol=1e-5)
    config, saved = model.backbone.get_config(), loaded.backbone.get_config()
    for name in ("position_embedding_join", "token_keep", "token_reduction", "head_tokens"):
        assert saved[name] == config[name], name
    names = ["embedding", "block_1/output", "block_2/head_outputs", "output"]
    values = model.backbone.intermediates(names)(IMAGES)
    np.testing.assert_allclose(
        to_numpy(values["output"]), to_numpy(model.backbone(IMAGES)), atol=1e-5
    )
    assert count_multiply_adds(model) > 0
    np.testing.assert_allclose(to_numpy(model.fuse()(IMAGES)), expected, atol=1e-5)


def test_all_that_walks_through_blocks_agrees(model):
    expected = to_numpy(model(IMAGES))
    ones = np.ones((2, 12), "float32")
    found = ScaledHeads(model)({"images": ops.convert_to_tensor(IMAGES), "scales": ones})
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-4)
    tokens = model.backbone.intermediates(["block_1/output"])(IMAGES)["block_1/output"]
    scorer = BlockHeadScores(model, 2, ["mask_gradient"])
    found = scorer._outputs((tokens, None), ops.ones((4,)))
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-4)


def test_it_learns_and_its_heads_are_measured(model):
    images, labels = random_images(12, 16, 16, 3), np.arange(12) % 3
    before = [to_numpy(w).copy() for w in model.backbone.trainable_weights]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, batch_size=6, epochs=1, verbose=0)
    changed = [
        not np.array_equal(old, to_numpy(w))
        for old, w in zip(before, model.backbone.trainable_weights, strict=True)
    ]
    assert all(changed)
    data = images, labels
    readouts = fit_readout(model, data, epochs=1, num_labels=3, verbose=0)
    results = single_head_performance(model, readouts, data, verbose=0)
    assert all(np.isfinite(result.matrices).all() for result in results.values())
    # Where heads look is not known of blocks that see tokens beside those of the grid.
    methods = ["mask_gradient", *([] if model.backbone.head_tokens else ["attention_distance"])]
    scores = head_scores(model, data, methods, [0], verbose=0)[0]
    assert all(np.isfinite(values).all() for values in scores.values())


def test_pruning_keeps_the_options(model):
    mask = np.array([1, 0, 1, 1], "float32")
    pruned = prune_heads(model, keep={2: [0, 2, 3]})
    masked = model.intermediates(["logits"], head_masks={2: mask})(IMAGES)["logits"]
    np.testing.assert_allclose(to_numpy(pruned(IMAGES)), to_numpy(masked), atol=1e-4)


def test_growing_keeps_predictions(model):
    deeper = grow(model, num_layers=4)
    np.testing.assert_allclose(to_numpy(deeper(IMAGES)), to_numpy(model(IMAGES)), atol=1e-3)


# Positions of each layer


def test_each_block_adds_the_normalised_position_of_the_one_before():
    backbone = shaken(**LAPE).backbone
    position = to_numpy(backbone.position_embedding_layer.embedding).astype("float64")
    x = to_numpy(backbone.tokenizer(IMAGES))
    for i, block in enumerate(backbone.blocks):
        norm = backbone.position_norms[i]
        centred = position - position.mean(-1, keepdims=True)
        position = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        position = position * to_numpy(norm.gamma) + to_numpy(norm.beta)
        attended = block.attention(to_numpy(block.attention_norm(x)) + position.astype("float32"))
        x = to_numpy(block.add_second_branch(block.mlp_norm(x + to_numpy(attended)), None, None))
    found = to_numpy(backbone.intermediates(["block_2/output"])(IMAGES)["block_2/output"])
    np.testing.assert_allclose(found, x, atol=1e-4)


def test_positions_of_zero_are_none():
    lape = shaken(**LAPE).backbone
    none = CCTBackbone(**SMALL | {"num_layers": 3}, position_embedding="none")
    assert lape.count_params() == none.count_params() + 16 * 16 + 3 * 2 * 16
    lape.position_embedding_layer.embedding.assign(np.zeros((1, 16, 16)))
    for norm in lape.position_norms.values():
        norm.beta.assign(np.zeros(16))
    for layer in none.layers:
        if layer.weights:
            layer.set_weights(lape.get_layer(layer.name).get_weights())
    np.testing.assert_allclose(to_numpy(lape(IMAGES)), to_numpy(none(IMAGES)), atol=1e-6)


def test_positions_fit_other_images_and_hybrids(tmp_path):
    model = shaken(**LAPE)
    model.save_to_preset(tmp_path / "preset")
    larger = CCTImageClassifier.from_preset(tmp_path / "preset", image_shape=(24, 24, 3))
    assert tuple(larger.backbone.position_embedding_layer.embedding.shape) == (1, 36, 16)
    assert np.isfinite(to_numpy(larger(random_tokens(1, 24, 24, 3)))).all()
    hybrid = replace_blocks(model.backbone, 1)
    assert list(hybrid.position_norms) == [1, 2]
    assert np.isfinite(to_numpy(hybrid(IMAGES))).all()


# Tokens that are left out


@pytest.mark.parametrize(
    ("name", "left"), [("fuse", [9, 9, 6]), ("merge", [8, 8, 4]), ("skip", [8, 16, 16])]
)
def test_how_many_tokens_each_block_hands_on(name, left):
    backbone = CCTBackbone(**SMALL | OPTIONS[name])
    names = [f"block_{i}/output" for i in range(3)]
    values = backbone.intermediates(names)(IMAGES)
    assert [values[name].shape[1] for name in names] == left


def test_cost_of_a_backbone_that_reduces():
    """What three blocks save, by the formulas: attention of N tokens, perceptrons of those left."""

    def blocks(tokens, left):
        attention = sum(4 * n * 16 * 16 + 2 * n**2 * 16 for n in tokens)
        return attention + sum(2 * n * 16 * 16 for n in left)

    plain = count_multiply_adds(CCTBackbone(**SMALL | {"num_layers": 3}))
    rest = plain - blocks([16] * 3, [16] * 3)
    fuse = count_multiply_adds(CCTBackbone(**SMALL | FUSE))
    assert fuse == rest + blocks([16, 9, 9], [9, 9, 6]) + (8 + 4) * 16
    merge = count_multiply_adds(CCTBackbone(**SMALL | MERGE))
    assert merge == rest + blocks([16, 8, 8], [8, 8, 4]) + 2 * (8 * 8 + 4 * 4) * 16
    skip = count_multiply_adds(CCTBackbone(**SMALL | SKIP))
    assert skip == rest + blocks([16, 8, 16], [8, 8, 16])


def test_keeping_all_changes_nothing():
    plain = shaken(num_layers=3)
    for way in ("fuse", "merge", "skip"):
        kept = make_classifier(num_layers=3, token_keep=1.0, token_reduction=way)
        kept.set_weights(plain.get_weights())
        np.testing.assert_array_equal(to_numpy(kept(IMAGES)), to_numpy(plain(IMAGES)))


def test_tokens_that_skip_a_block_are_not_touched():
    backbone = shaken(**SKIP).backbone
    _, block, *_ = backbone.blocks
    x = to_numpy(backbone.intermediates(["embedding"])(IMAGES)["embedding"])
    kept, reduction = backbone.blocks[0](x, return_reduction=True)
    order = ops.convert_to_numpy(reduction["order"])
    after = to_numpy(backbone.intermediates(["block_1/output"])(IMAGES)["block_1/output"])
    rows = np.arange(2)[:, None]
    skipped = to_numpy(reduction["skipped"])
    np.testing.assert_allclose(after[rows, order[:, 8:]], skipped, atol=1e-6)
    np.testing.assert_allclose(after[rows, order[:, :8]], to_numpy(block(kept)), atol=1e-5)


def test_trained_presets_take_it():
    model = shaken(num_layers=3)
    faster = CCTBackbone.from_config({**model.backbone.get_config(), **FUSE})
    faster.set_weights(model.backbone.get_weights())
    assert count_multiply_adds(faster) < count_multiply_adds(model.backbone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"blocks": ["attention", "conv"], "token_keep": 0.5},
            "'conv' block as block 1.*block 0",
        ),
        ({"attention": ["grouped", "hilo"], "token_keep": [0.5, 1.0]}, "'hilo' as block 1"),
        ({"token_keep": 0.5, "token_reduction": "skip"}, "come back before.*blocks 0 and 1"),
        ({"blocks": ["attention", "glmix"], "token_keep": [1.0, 0.5]}, "a 'glmix' block"),
        ({"token_keep": [0.5]}, "one entry per transformer block"),
        ({"token_return_after": -1}, "token_return_after=-1"),
        ({"token_keep": 0.5, "position_embedding_join": "layer"}, "join='layer', token_keep=0.5"),
        ({"position_embedding_join": "layers"}, "layer.*position_embedding_join='layers'"),
        ({"position_embedding": "none", "position_embedding_join": "layer"}, "no positions"),
        ({"num_heads": 2, "attention": "windows", "head_tokens": 2}, "leave out `head_tokens`"),
    ],
)
def test_bad_options(changes, message):
    with pytest.raises(ValueError, match=message):
        CCTBackbone(**SMALL | changes)


def test_what_needs_all_tokens_says_so():
    from lsmha_keras.heads.attention_trace import trace_attention

    data = random_images(6, 16, 16, 3), np.arange(6) % 3
    fused, skipping = shaken(**FUSE), shaken(**SKIP)
    with pytest.raises(ValueError, match="occlusion.*token_keep=0.5 in block 0"):
        trace_attention(fused, IMAGES)
    with pytest.raises(ValueError, match="between 9 tokens, 16 on the grid"):
        head_scores(fused, data, ["offset"], [1], verbose=0)
    with pytest.raises(ValueError, match="blocks up to 0 or from 2 on.*block 1"):
        head_scores(skipping, data, ["mask_gradient"], [1], verbose=0)
    # With tokens beside those of the grid: maps of their keys are no pictures.
    exciting = shaken(**HEAD_TOKENS)
    assert exciting.backbone.intermediates(["block_0/attention_scores"])(IMAGES)[
        "block_0/attention_scores"
    ].shape == (2, 4, 16, 20)
    # A block with convolutions after tokens have come back is fine.
    order = {"num_layers": 3, "blocks": ["attention", "attention", "conv"]}
    CCTBackbone(**SMALL | order, token_keep=[0.5, 1.0], token_reduction="skip")
