"""Merged committees: copies in another order merge exactly, others are named or fine-tuned."""

import re

import keras
import numpy as np
import pytest

import lsmha_keras
from tests.checks import to_numpy

pytest.importorskip("scipy", reason='alignment needs pip install "lsmha-keras[explain]"')

IMAGES = np.random.default_rng(1).integers(0, 256, (6, 16, 16, 3)).astype("float32") / 255


def model(seed=0, num_classes=3, **changes):
    """A hybrid whose weights are all drawn: constants would not tell an order."""
    arguments = {
        "image_shape": (16, 16, 3),
        "hidden_dim": 16,
        "num_layers": 3,
        "num_conv_blocks": 1,
        "num_heads": 4,
        "mlp_dim": 24,
        "tokenizer_layers": 2,
        "tokenizer_filters": 8,
        "conv_block_design": "inverted_bottleneck",
        "tokenizer_design": "inverted_bottleneck",
        **changes,
    }
    made = lsmha_keras.CCTImageClassifier(lsmha_keras.CCTBackbone(**arguments), num_classes)
    rng = np.random.default_rng(seed)
    for weight in made.weights:
        low = 0.5 if "variance" in weight.path else -0.5
        weight.assign(rng.uniform(low, 1.0, weight.shape))
    return made


def weights(of):
    return {weight.path: to_numpy(weight) for weight in of.weights}


def give(target, values):
    for weight in target.weights:
        weight.assign(values[weight.path])


def with_heads_in_another_order(of, copy):
    """The same function: heads change places, and bases inside of heads are turned."""
    values, rng = weights(of), np.random.default_rng(3)
    for block in of.backbone.blocks:
        if not hasattr(block, "attention"):
            continue
        name, heads, order = f"{block.name}/attention", block.num_heads, rng.permutation(4)
        turns = [np.linalg.qr(rng.normal(size=(heads, 4, 4)))[0] for _ in range(2)]
        for path in (f"{name}/qkv/kernel", f"{name}/qkv/bias"):
            if path in values:
                parts = values[path].reshape(-1, 3, heads, 4)[:, :, order]
                parts = [
                    np.einsum("chi,hij->chj", parts[:, k], turns[max(0, k - 1)]) for k in range(3)
                ]
                values[path] = np.stack(parts, axis=1).reshape(values[path].shape)
        rows = values[f"{name}/projection/kernel"].reshape(heads, 4, -1)[order]
        rows = np.einsum("hij,hic->hjc", turns[1], rows)
        values[f"{name}/projection/kernel"] = rows.reshape(16, -1)
    give(copy, values)
    return copy


def with_hidden_units_in_another_order(of, copy):
    values, rng = weights(of), np.random.default_rng(4)
    for block in of.backbone.blocks:
        if hasattr(block, "mlp_hidden"):
            order = rng.permutation(24)
            values[f"{block.name}/mlp_hidden/kernel"] = values[f"{block.name}/mlp_hidden/kernel"][
                :, order
            ]
            values[f"{block.name}/mlp_hidden/bias"] = values[f"{block.name}/mlp_hidden/bias"][order]
            values[f"{block.name}/mlp_output/kernel"] = values[f"{block.name}/mlp_output/kernel"][
                order
            ]
    order = rng.permutation(32)  # of the convolutional block
    for part in ("conv_0", "conv_1"):
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            path = f"block_0/{part}/batch_norm/{name}"
            values[path] = values[path][order]
    values["block_0/conv_0/conv/kernel"] = values["block_0/conv_0/conv/kernel"][..., order]
    values["block_0/conv_1/conv/kernel"] = values["block_0/conv_1/conv/kernel"][:, :, order]
    values["block_0/conv_2/conv/kernel"] = values["block_0/conv_2/conv/kernel"][:, :, order]
    give(copy, values)
    return copy


def with_channels_in_another_order(of, copy):
    """The channels of the whole stream."""
    values, order = weights(of), np.random.default_rng(5).permutation(16)
    last = {
        "tokenizer/conv_1_2/conv/kernel": (3,),
        "position_embedding/embedding": (2,),
        "block_0/conv_0/conv/kernel": (2,),
        "block_0/conv_2/conv/kernel": (3,),
        "pooler/scores/kernel": (0,),
        "predictions/kernel": (0,),
    }
    for path in values:
        axes = last.get(path, ())
        if path.endswith(("attention/qkv/kernel", "mlp_hidden/kernel")):
            axes = (0,)
        elif path.endswith(("projection/kernel", "mlp_output/kernel")):
            axes = (1,)
        elif path.endswith(("projection/bias", "mlp_output/bias")) or "_norm/" in path:
            inner = ("tokenizer/conv_0", "tokenizer/conv_1_0", "tokenizer/conv_1_1")
            inner += ("block_0/conv_0", "block_0/conv_1")
            axes = () if path.startswith(inner) else (0,)
        for axis in axes:
            values[path] = np.take(values[path], order, axis)
    give(copy, values)
    return copy


@pytest.mark.parametrize("use_qkv_bias", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        with_heads_in_another_order,
        with_hidden_units_in_another_order,
        with_channels_in_another_order,
    ],
)
def test_copies_in_another_order_merge_to_what_they_are(change, use_qkv_bias):
    one, other = (model(use_qkv_bias=use_qkv_bias) for _ in range(2))
    change(one, other)
    np.testing.assert_allclose(to_numpy(other(IMAGES)), to_numpy(one(IMAGES)), rtol=1e-4, atol=1e-4)
    assert any(
        not np.allclose(values, weights(other)[path]) for path, values in weights(one).items()
    )
    merged = lsmha_keras.merge_committee([one, other])
    for path, values in weights(merged).items():
        np.testing.assert_allclose(values, weights(one)[path], atol=1e-5, err_msg=path)
    np.testing.assert_allclose(
        to_numpy(merged(IMAGES)), to_numpy(one(IMAGES)), rtol=1e-4, atol=1e-4
    )


def test_everything_in_another_order_at_once_and_three_members():
    one, other, third = (model() for _ in range(3))
    with_channels_in_another_order(
        with_heads_in_another_order(with_hidden_units_in_another_order(one, other), other), other
    )
    with_heads_in_another_order(one, third)
    merged = lsmha_keras.merge_committee(lsmha_keras.SoftCommittee([one, other, third]))
    for path, values in weights(merged).items():
        np.testing.assert_allclose(values, weights(one)[path], atol=1e-5, err_msg=path)


def test_other_models_merge_to_the_mean_of_what_is_like_it_and_learn_on():
    one, other = model(0), model(1)
    before = weights(other)
    merged = lsmha_keras.merge_committee([one, other])
    for path in ("predictions/bias", "pooler/scores/bias"):  # no order to bring them to
        np.testing.assert_allclose(
            weights(merged)[path], (weights(one)[path] + before[path]) / 2, atol=1e-6
        )
    # Aligned, the members are more alike than before, and none is changed.
    apart = lsmha_keras.merge_committee([one, one])
    np.testing.assert_allclose(to_numpy(apart(IMAGES)), to_numpy(one(IMAGES)), atol=1e-4)
    assert all(np.array_equal(values, before[path]) for path, values in weights(other).items())
    plain = sum(np.sum((weights(one)[p] + before[p]) ** 2) for p in before) / 4
    aligned = sum(np.sum(values**2) for values in weights(merged).values())
    assert aligned > plain
    labels = np.eye(3)[np.arange(6) % 3]
    keras.utils.set_random_seed(0)
    merged.compile(
        keras.optimizers.Adam(1e-4), keras.losses.CategoricalCrossentropy(from_logits=True)
    )
    losses = merged.fit(IMAGES * 255, labels, epochs=8, verbose=0).history["loss"]
    assert min(losses[1:]) < losses[0]


TEXTS = np.array([[2, 3, 4, 5, 6, 7, 0, 0], [7, 5, 2, 0, 0, 0, 0, 0]], "int32")


def sequence_model(pooling="lama", **changes):
    arguments = {"hidden_dim": 16, "num_layers": 2, "num_conv_blocks": 1, "num_heads": 4}
    arguments |= {"mlp_dim": 24, "tokenizer_kernel_size": 2, "tokenizer_filters": 8, **changes}
    if "num_features" not in arguments:
        arguments = {"vocabulary_size": 9, "embedding_dim": 12, **arguments}
    made = lsmha_keras.CCTSequenceClassifier(
        lsmha_keras.CCTSequenceBackbone(8, **arguments), 3, pooling=pooling
    )
    rng = np.random.default_rng(0)
    for weight in made.weights:
        low = 0.5 if "variance" in weight.path else -0.5
        weight.assign(rng.uniform(low, 1.0, weight.shape))
    return made


def with_sequences_in_another_order(of, copy):
    """Embedding, filters of the tokenizer, the stream, and the means of the pooling."""
    values, rng = weights(of), np.random.default_rng(6)
    words, filters, stream, means = (rng.permutation(n) for n in (12, 8, 16, 4))
    if "tokenizer/conv_0/kernel" not in values:
        words = stream
    takes = [
        (r"embedding/embeddings|tokenizer/conv_0/kernel", 1, words),
        (r"tokenizer/conv_0/kernel", 2, filters),
        (r"tokenizer/conv_1/kernel", 1, filters),
        (r"tokenizer/conv_1/kernel|position_embedding/.*", 2, stream),
        (r"block_0/conv_\d/conv/kernel", 2, stream),
        (r"block_0/conv_1/conv/kernel", 3, stream),
        (r"block_0/conv_\d/batch_norm/.*|.*/(attention|mlp)_norm/.*|layer_norm/.*", 0, stream),
        (r".*(qkv|mlp_hidden|scores)/kernel|pooler/(context|token)_kernel", 0, stream),
        (r".*(projection|mlp_output)/kernel|pooler/context_vector", 1, stream),
        (r".*(projection|mlp_output)/bias", 0, stream),
        (r"pooler/(context|token)_kernel", 1, means),
    ]
    is_lama = "pooler/token_kernel" in values
    kernel = values["predictions/kernel"].reshape(4 if is_lama else 1, 16, 3)[:, stream]
    values["predictions/kernel"] = (kernel[means] if is_lama else kernel).reshape(-1, 3)
    for pattern, axis, order in takes:
        for path in [path for path in values if re.fullmatch(pattern, path)]:
            values[path] = np.take(values[path], order, axis)
    give(copy, values)
    return copy


@pytest.mark.parametrize("pooling", ["lama", "sequence"])
def test_texts_in_another_order_merge_to_what_they_are(pooling):
    one, other = (sequence_model(pooling, tokenizer_layers=2) for _ in range(2))
    with_sequences_in_another_order(one, other)
    np.testing.assert_allclose(to_numpy(other(TEXTS)), to_numpy(one(TEXTS)), rtol=1e-4, atol=1e-4)
    merged = lsmha_keras.merge_committee([one, other])
    assert type(merged) is lsmha_keras.CCTSequenceClassifier
    for path, values in weights(merged).items():
        np.testing.assert_allclose(values, weights(one)[path], atol=1e-5, err_msg=path)


def test_tokens_that_are_embeddings_share_their_order():
    one, other = (sequence_model(tokenizer_layers=0, embedding_dim=16) for _ in range(2))
    with_sequences_in_another_order(one, other)
    np.testing.assert_allclose(to_numpy(other(TEXTS)), to_numpy(one(TEXTS)), rtol=1e-4, atol=1e-4)
    merged = lsmha_keras.merge_committee([one, other])
    for path, values in weights(merged).items():
        np.testing.assert_allclose(values, weights(one)[path], atol=1e-5, err_msg=path)


def test_tokens_that_are_features_keep_their_order():
    """The other member reads the features in another order, so it is another function."""
    one, other = (sequence_model(tokenizer_layers=0, num_features=16) for _ in range(2))
    with_sequences_in_another_order(one, other)
    merged = weights(lsmha_keras.merge_committee([one, other]))
    for path in ("layer_norm/gamma", "block_1/mlp_norm/beta", "pooler/context_vector"):
        mean = (weights(one)[path] + weights(other)[path]) / 2
        assert not np.allclose(mean, weights(one)[path])
        np.testing.assert_allclose(merged[path], mean, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (lambda: [model()], "two members at least. Received: 1"),
        (lambda: [], "list of at least one"),
        (lambda: [model(), model(num_heads=8)], "num_heads=4 of member 0 and 8 of member 1"),
        (lambda: [model(), model(num_classes=4)], r"num_classes=\[3, 4\]"),
        (lambda: [model(attention="talking")] * 2, "attention='talking' in block 1"),
        (lambda: [model(conv_block_design="reparameterized")] * 2, "weight block_0/conv_0/"),
        (lambda: [model(mlp="ista")] * 2, "weight block_1/ista"),
        (lambda: [sequence_model(tokenizer_design="gru")] * 2, "weight tokenizer/forward_0/"),
        (lambda: [sequence_model(), sequence_model("sequence")], "pooling='lama' of member 0"),
        (lambda: [sequence_model(), model()], "same kind of input"),
    ],
)
def test_what_cannot_be_merged_is_named(members, message):
    with pytest.raises(ValueError, match=message):
        lsmha_keras.merge_committee(members())


def test_a_quantised_member_is_refused():
    quantised = model()
    quantised.quantize("int8")
    with pytest.raises(ValueError, match="before it is quantised"):
        lsmha_keras.merge_committee([model(), quantised])
