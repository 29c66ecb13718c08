"""A model without some heads is the model with these heads masked, and smaller."""

import keras
import numpy as np
import pytest

import lsmha_keras
from lsmha_keras.attention import registry
from lsmha_keras.attention.registry import attention_names, make_attention
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention
from lsmha_keras.models import CCTBackbone, CCTImageClassifier
from lsmha_keras.surgery.prune_heads import choose_heads, prune_heads
from tests.attention.test_registry import make_classifier
from tests.checks import random_images, random_tokens, to_numpy

IMAGES = random_tokens(3, 16, 16, 3)
REFUSING = ("talking", "eit", "optimised", "efficient", "super")
# Block 1 loses the groups that share keys and values whole; every kind can take these.
KEEP = {0: [1, 2], 1: [2, 3]}
OPTIONS = {
    "grouped": {"num_kv_heads": 2},
    # Tokens go on choosing heads that are gone.
    "moh": {"num_shared": 1, "top_k": 2},
    "moa": {"top_k": 2},
    "mae": {"leave_out": 2, "gate_dim": 8},
    "windows": {"windows": [0, 1, 2, None]},
    "clustered": {"map_of_head": [0, 1, 2, 1]},
    "hilo": {"low_fraction": 0.75},
}


def shaken(**changes):
    """A classifier whose heads all matter: as they are initialised, weights are tiny."""
    keras.utils.set_random_seed(0)
    model = make_classifier(**changes)
    for seed, weight in enumerate(model.trainable_weights):
        weight.assign(to_numpy(weight) + 0.3 * random_tokens(*weight.shape, seed=seed))
    return model


def masked_logits(model, keep):
    masks = {
        index: np.isin(np.arange(model.backbone.blocks[index].num_heads), heads).astype("float32")
        for index, heads in keep.items()
    }
    return to_numpy(model.intermediates(["logits"], head_masks=masks)(IMAGES)["logits"])


@pytest.mark.parametrize("name", attention_names())
def test_every_kind_loses_heads_or_says_why_not(name, tmp_path):
    model = shaken(attention=name, attention_options=OPTIONS.get(name))
    if name in REFUSING:
        with pytest.raises(ValueError, match="cannot be removed from.*convert_attention"):
            prune_heads(model, keep=KEEP)
        with pytest.raises(ValueError, match="cannot be removed from"):
            choose_heads(model, 0.5, {0: np.arange(4), 1: np.arange(4)})
        return
    pruned = prune_heads(model, keep=KEEP)
    expected = masked_logits(model, KEEP)
    assert np.abs(expected - to_numpy(model(IMAGES))).max() > 1e-3  # the heads did matter
    np.testing.assert_allclose(to_numpy(pruned(IMAGES)), expected, atol=1e-5)
    assert pruned.count_params() < model.count_params()
    assert [block.attention.num_heads for block in pruned.backbone.blocks] == [2, 2]
    if name != "multi_head" and not pruned.backbone.attention_options:
        return
    pruned.save_to_preset(tmp_path)
    loaded = CCTImageClassifier.from_preset(tmp_path)
    np.testing.assert_allclose(to_numpy(loaded(IMAGES)), to_numpy(pruned(IMAGES)), atol=1e-6)
    layer = model.backbone.blocks[0].attention
    x = random_tokens(2, 16, 16)
    np.testing.assert_allclose(
        to_numpy(layer.prune([1, 2])(x)),
        to_numpy(layer(x, head_mask=np.array([0, 1, 1, 0], "float32"))),
        atol=1e-5,
    )


def test_every_refusing_kind_names_its_way_out():
    model = shaken(attention="optimised")
    plain = lsmha_keras.convert_attention(model, "multi_head")
    np.testing.assert_allclose(
        to_numpy(prune_heads(plain, keep=KEEP)(IMAGES)), masked_logits(model, KEEP), atol=1e-4
    )


def test_other_blocks_with_heads_and_the_perceptron_stay_whole():
    model = shaken(
        num_layers=3, blocks=["attention", "glmix", "attention"], num_heads=[4, 2, 4], mlp_conv=True
    )
    keep = {2: [0, 3]}
    pruned = prune_heads(model, keep=keep)
    assert pruned.backbone.num_heads == [4, 2, 2]
    np.testing.assert_allclose(to_numpy(pruned(IMAGES)), masked_logits(model, keep), atol=1e-5)


def test_blocks_of_their_own_sizes_behind_a_convolution(tmp_path):
    model = shaken(
        num_layers=4,
        num_conv_blocks=1,
        num_heads=[4, 2, 5],
        head_dim=[None, 3, 7],
        use_qkv_bias=True,
    )
    keep = {1: [3], 3: [0, 2, 4]}
    pruned = prune_heads(model, keep=keep)
    backbone = pruned.backbone
    assert (backbone.num_heads, backbone.head_dim) == ([1, 2, 3], [4, 3, 7])
    np.testing.assert_allclose(to_numpy(pruned(IMAGES)), masked_logits(model, keep), atol=1e-5)
    # Four kernels of width 16, and three biases, a head.
    lost = 3 * 4 * (4 * 16 + 3) + 2 * 7 * (4 * 16 + 3)
    assert model.count_params() - pruned.count_params() == lost
    # Each head left gives what it gave, in the same order.
    before, after = (
        to_numpy(m.intermediates(["block_1/head_outputs"])(IMAGES)["block_1/head_outputs"])
        for m in (model, pruned)
    )
    np.testing.assert_allclose(after, before[:, :, [3]], atol=1e-5)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(loaded(IMAGES)), to_numpy(pruned(IMAGES)), atol=1e-6)
    # Still a model of its own: it learns.
    before = [to_numpy(w).copy() for w in backbone.blocks[1].attention.trainable_weights]
    pruned.fit(random_images(6, 16, 16, 3), np.arange(6) % 3, verbose=0)
    for weight, old in zip(backbone.blocks[1].attention.trainable_weights, before, strict=True):
        assert np.any(to_numpy(weight) != old), weight.path


@pytest.mark.parametrize("name", ["moh", "moa", "mae"])
def test_gates_stay_those_of_all_heads(name):
    """Pruned twice, and the gates of heads that are gone are still there."""
    model = shaken(attention=name, attention_options=OPTIONS[name])
    pruned = prune_heads(prune_heads(model, remove={1: [1]}), remove={1: [0, 2]})
    layer = pruned.backbone.blocks[1].attention
    assert (layer.gate_of_head, layer.num_gates) == ([2], 4)
    np.testing.assert_allclose(to_numpy(pruned(IMAGES)), masked_logits(model, {1: [2]}), atol=1e-5)
    for gates in ([3, 1], [0, 4], [0], [0, 0]):
        with pytest.raises(ValueError, match="list of 2 gates.*num_gates=4"):
            make_attention(name, 2, options={"gate_of_head": gates, "num_gates": 4})


def test_nothing_one_after_the_other_and_the_other_way_round():
    model = shaken()
    weights = [w.copy() for w in model.get_weights()]
    whole = prune_heads(model, remove={})
    for old, new in zip(weights, whole.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    both = prune_heads(model, remove={0: [0, 3], 1: [2]})
    after = prune_heads(prune_heads(model, remove={0: [3]}), remove={0: [0], 1: [2]})
    for one, other in zip(both.get_weights(), after.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    backbone = prune_heads(model.backbone, keep={0: [1, 2], 1: [0, 1, 3]})
    assert isinstance(backbone, CCTBackbone)
    for one, other in zip(both.backbone.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    both.set_weights([np.zeros_like(w) for w in both.get_weights()])
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)  # the model stays as it is


def test_what_lora_learned_stays_and_an_optimizer_does_not():
    model = shaken()
    model.fit(random_images(6, 16, 16, 3), np.arange(6) % 3, verbose=0)
    model.backbone.enable_lora(2)
    for layer in model.backbone._flatten_layers():
        if getattr(layer, "lora_enabled", False):
            layer.lora_kernel_b.assign(random_tokens(*layer.lora_kernel_b.shape))
    pruned = prune_heads(model, keep=KEEP)
    np.testing.assert_allclose(to_numpy(pruned(IMAGES)), masked_logits(model, KEEP), atol=1e-4)
    assert not pruned.optimizer.built


SCORES = {0: [0.1, 0.9, 0.2, 0.3], 1: [5.0, 1.0, 8.0, 2.0]}


@pytest.mark.parametrize(
    ("fraction", "arguments", "expected"),
    [
        (0, {}, {}),
        (0.24, {}, {0: [0]}),  # of eight heads 1.92
        (0.5, {}, {0: [0, 2, 3], 1: [1]}),
        (0.5, {"protect": 2}, {0: [0, 2], 1: [1, 3]}),
        # Over their norms: 0.10, 0.92, 0.21, 0.31 and 0.52, 0.10, 0.82, 0.21.
        (0.5, {"normalise": True}, {0: [0, 2], 1: [1, 3]}),
        (0.75, {}, {0: [0, 2, 3], 1: [0, 1, 3]}),
    ],
)
def test_lowest_scores_go(fraction, arguments, expected):
    model = make_classifier()
    assert choose_heads(model, fraction, SCORES, **arguments) == expected
    pruned = prune_heads(model, fraction=fraction, by=SCORES, **arguments)
    kept = [4 - len(expected.get(index, [])) for index in (0, 1)]
    assert [block.num_heads for block in pruned.backbone.blocks] == kept


def test_scores_by_name_from_a_table_and_of_another_model():
    model, other = shaken(), shaken(hidden_dim=20, head_dim=4)
    data = random_images(12, 16, 16, 3), np.arange(12) % 3
    table = lsmha_keras.head_scores(model, data, ["mask_gradient", "attention_entropy"], verbose=0)
    gradients = {index: scores["mask_gradient"] for index, scores in table.items()}
    expected = choose_heads(model, 0.5, gradients)
    assert choose_heads(model, 0.5, "mask_gradient", data=data, verbose=0) == expected
    assert choose_heads(model, 0.5, (table, "mask_gradient")) == expected
    # Heads that look everywhere go first.
    every = np.concatenate([scores["attention_entropy"] for scores in table.values()])
    (index, heads), *more = choose_heads(model, 0.125, (table, "attention_entropy")).items()
    assert not more and 4 * index + heads[0] == every.argmax()
    random = choose_heads(model, 0.5, "random", seed=3)
    assert random == choose_heads(model, 0.5, "random", seed=3)
    with pytest.raises(ValueError, match="belong to another model.*weights"):
        prune_heads(other, fraction=0.5, by=(table, "mask_gradient"))
    with pytest.raises(ValueError, match="table has the scores.*'offset'"):
        prune_heads(model, fraction=0.5, by=(table, "offset"))


def test_groups_go_whole():
    model = shaken(attention="grouped", attention_options={"num_kv_heads": 2})
    # Means 0.5, 0.25 and 3, 5; three heads are asked for, of which one group has two.
    removed = choose_heads(model, 0.4, SCORES)
    assert removed == {0: [2, 3]}
    pruned = prune_heads(model, remove={0: [1, 2], 1: [0, 1]})
    found = [block.attention.num_kv_heads for block in pruned.backbone.blocks]
    assert found == [2, 1]
    with pytest.raises(ValueError, match=r"\[2, 1\] heads left in the groups \[0, 1\]"):
        prune_heads(model, remove={0: [3]})
    shared = shaken(attention="multi_query")
    pruned = prune_heads(shared, remove={0: [3]})
    assert pruned.backbone.attention_options is None
    np.testing.assert_allclose(
        to_numpy(pruned(IMAGES)), masked_logits(shared, {0: [0, 1, 2]}), atol=1e-5
    )


def test_kinds_of_ones_own():
    class Biased(LargeScaleMultiHeadAttention):
        def build_heads(self, input_shape):
            super().build_heads(input_shape)
            self.extra = self.add_weight(shape=(self.num_heads,), name="extra")

    class Uniform(LargeScaleMultiHeadAttention):
        def attend(self, x, padding_mask, training, return_attention_scores):
            return super().attend(0 * x, padding_mask, training, return_attention_scores)

    registry.register_attention("biased", Biased)
    registry.register_attention("uniform", Uniform)
    with pytest.raises(ValueError, match="Biased.*does not override `take_head_weights`"):
        prune_heads(make_classifier(attention="biased"), keep=KEEP)
    model = shaken(attention="uniform")
    pruned = prune_heads(model, keep=KEEP)
    np.testing.assert_allclose(to_numpy(pruned(IMAGES)), masked_logits(model, KEEP), atol=1e-5)


@pytest.mark.parametrize("heads", [10])
def test_low_heads_are_counted_exactly(heads):
    """Shares of heads do not survive a rounding down: int(0.29 * 100) is 28."""
    layer = make_attention(
        "hilo", heads, grid_shape=(2, 2), head_dim=2, options={"low_fraction": 0.6}
    )
    layer.build((None, 4, 8))
    for count in range(1, heads + 1):
        pruned = layer.prune(range(heads - count, heads))
        assert pruned._low == min(count, int(0.6 * heads))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "keep=None, remove=None, fraction=None"),
        ({"keep": {}, "fraction": 0.5}, "Pass exactly one of"),
        ({"remove": {0: [0, 1, 2, 3]}}, r"At least one head.*\[0, 1, 2, 3\] for block 0"),
        ({"keep": {1: []}}, r"At least one head.*keep with \[\] for block 1"),
        ({"remove": {2: [0]}}, r"blocks \[0, 1\] have heads. Received: remove with block 2"),
        ({"remove": {1: [4, -1]}}, r"heads 0 to 3. Received: remove with the heads \[4, -1\]"),
        ({"remove": {1: [True]}}, r"heads \[True\]"),
        ({"keep": [0, 1]}, r"dict from blocks.*keep=\[0, 1\]"),
        ({"fraction": 1, "by": SCORES}, r"\[0, 1\). Received: fraction=1"),
        ({"fraction": -0.1, "by": SCORES}, "fraction=-0.1"),
        ({"fraction": "half", "by": SCORES}, r"in \[0, 1\). Received: fraction='half'"),
        ({"fraction": 0.9, "by": SCORES}, "at most 0.750 of the 8 heads.*fraction=0.9"),
        ({"fraction": 0.5, "by": SCORES, "protect": 0}, "protect=0"),
        ({"fraction": 0.5}, "pass `data`.*by='shp', data=None"),
        ({"fraction": 0.5, "by": 3}, "name of a score.*by=3"),
        ({"fraction": 0.5, "by": {0: SCORES[0]}}, "scores belong to another model"),
        ({"fraction": 0.5, "by": {0: [1, 2], 1: SCORES[1]}}, "another model.*{0: 4, 1: 4} heads"),
        (
            {"fraction": 0.5, "by": {0: [1, 2, 3, np.inf], 1: SCORES[1]}, "normalise": True},
            r"infinity in the blocks \[0\]",
        ),
        ({"fraction": 0.5, "by": {0: [1, 2, 3, np.nan], 1: SCORES[1]}}, r"NaN in the blocks \[0\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        prune_heads(make_classifier(), **arguments)


def test_models_that_cannot_lose_heads():
    with pytest.raises(ValueError, match="no heads.*num_conv_blocks=2 of 2"):
        prune_heads(make_classifier(num_conv_blocks=2), remove={})
    with pytest.raises(ValueError, match="Received: Sequential"):
        prune_heads(keras.Sequential(), remove={})
    quantised = make_classifier()
    quantised.quantize("int8")
    with pytest.raises(ValueError, match="loses heads before it is quantised.*int8"):
        prune_heads(quantised, remove={0: [1]})
    layer = make_classifier().backbone.blocks[0].attention
    for keep in ([], [4], [True]):
        with pytest.raises(ValueError, match="numbered from 0 to 3"):
            layer.prune(keep)
