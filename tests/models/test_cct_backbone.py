import numpy as np
import pytest

from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models import CCTBackbone
from tests.checks import random_tokens, to_numpy

SMALL = {
    "image_shape": (16, 12, 3),
    "hidden_dim": 24,
    "num_layers": 3,
    "num_heads": 4,
    "mlp_dim": 32,
    "tokenizer_filters": 8,
}


def test_blocks_follow_the_lists():
    config = {**SMALL, "num_heads": [3, 5], "head_dim": [None, 7]}
    backbone = CCTBackbone(**config, num_conv_blocks=1)
    kinds = [type(block) for block in backbone.blocks]
    assert kinds == [ConvBlock, TransformerBlock, TransformerBlock]
    model = backbone.intermediates(["block_1/head_outputs", "block_2/head_outputs"])
    shapes = {k: tuple(v.shape) for k, v in model(random_tokens(2, 16, 12, 3)).items()}
    assert shapes == {
        "block_1/head_outputs": (2, 48, 3, 8),
        "block_2/head_outputs": (2, 48, 5, 7),
    }


def test_intermediates_are_those_of_the_forward_pass():
    backbone = CCTBackbone(**SMALL)
    images = random_tokens(2, 16, 12, 3)
    names = ["embedding", "block_0/output", "block_1/output", "block_1/head_outputs"]
    values = backbone.intermediates([*names, "block_1/attention_scores", "output"])(images)
    np.testing.assert_allclose(to_numpy(values["output"]), to_numpy(backbone(images)), atol=1e-5)
    block = backbone.blocks[1]
    again, heads, scores = block(
        values["block_0/output"], return_head_outputs=True, return_attention_scores=True
    )
    for name, value in (("output", again), ("head_outputs", heads), ("attention_scores", scores)):
        np.testing.assert_allclose(to_numpy(values[f"block_1/{name}"]), to_numpy(value), atol=1e-5)


def test_head_masks_act_in_their_block_only():
    backbone = CCTBackbone(**SMALL)
    images = random_tokens(2, 16, 12, 3)
    names = ["block_0/output", "block_1/head_outputs", "output"]
    plain = backbone.intermediates(names)(images)
    masked = backbone.intermediates(names, head_masks={1: [1, 0, 1, 1]})(images)
    np.testing.assert_allclose(
        to_numpy(masked["block_0/output"]), to_numpy(plain["block_0/output"]), atol=1e-6
    )
    assert not to_numpy(masked["block_1/head_outputs"])[:, :, 1].any()
    assert np.abs(to_numpy(masked["output"]) - to_numpy(plain["output"])).max() > 1e-3


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_shape": (32, 32)}, r"image_shape=\(32, 32\)"),
        ({"num_conv_blocks": 4}, "num_conv_blocks=4"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"num_heads": 5}, r"num_heads=5 \(transformer block 0\), hidden_dim=24"),
        ({"num_heads": [4, 4]}, r"one entry per transformer block \(3 here\)"),
        ({"num_heads": [4, 4, 0]}, "num_heads=0"),
        ({"head_dim": [4]}, r"head_dim=\[4\]"),
        ({"position_embedding": "rotary"}, "kind='rotary'"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        CCTBackbone(**{**SMALL, **changes})


def test_unknown_intermediates():
    backbone = CCTBackbone(**SMALL, num_conv_blocks=1)
    with pytest.raises(ValueError, match="block_0/head_outputs"):
        backbone.intermediates(["block_0/head_outputs"])
    with pytest.raises(ValueError, match="Received: block 0"):
        backbone.intermediates(["output"], head_masks={0: [1, 1, 1, 1]})
