"""What each layer is made of and called on: tests that go over all layers parametrise by it."""

import lsmha_keras as lsmha
from lsmha_keras.layers.batch_normalization import BatchNormalization
from lsmha_keras.layers.committee_vote import CommitteeVote
from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.layers.conv_norm import ConvNorm
from lsmha_keras.layers.conv_tokenizer import ConvTokenizer
from lsmha_keras.layers.depthwise_conv import DepthwiseConv
from lsmha_keras.layers.glmix_block import GLMixBlock
from lsmha_keras.layers.gru_tokenizer import GRUTokenizer
from lsmha_keras.layers.head_tokens import HeadTokens
from lsmha_keras.layers.lama_pooling import LAMAPooling
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention
from lsmha_keras.layers.position_embedding import PositionEmbedding
from lsmha_keras.layers.sequence_pooling import SequencePooling
from lsmha_keras.layers.sequence_tokenizer import SequenceTokenizer
from lsmha_keras.layers.spectral_block import SpectralBlock
from lsmha_keras.layers.stochastic_depth import StochasticDepth
from lsmha_keras.layers.transformer_block import TransformerBlock

TOKENS, IMAGES = (2, 12, 8), (2, 16, 16, 3)

# Class, arguments, shape of the input.
LAYERS = [
    (LargeScaleMultiHeadAttention, {"num_heads": 4}, TOKENS),
    (LargeScaleMultiHeadAttention, {"num_heads": 3, "head_dim": 5, "dropout": 0.1}, TOKENS),
    (TransformerBlock, {"num_heads": 4, "mlp_dim": 12}, TOKENS),
    (
        TransformerBlock,
        {
            "num_heads": 3,
            "head_dim": 5,
            "mlp_dim": 12,
            "dropout_rate": 0.1,
            "attention_dropout": 0.1,
            "stochastic_depth_rate": 0.2,
            "use_qkv_bias": True,
        },
        TOKENS,
    ),
    (
        TransformerBlock,
        {
            "num_heads": 4,
            "mlp_dim": 12,
            "head_tokens": 2,
            "head_dropout": 0.25,
            "head_dropout_by": "importance",
        },
        TOKENS,
    ),
    (HeadTokens, {"num_groups": 2}, TOKENS),
    (SpectralBlock, {"grid_shape": (3, 4), "mlp_dim": 12}, TOKENS),
    (
        GLMixBlock,
        {"num_heads": 2, "mlp_dim": 12, "grid_shape": (3, 4), "slot_shape": (2, 2)},
        TOKENS,
    ),
    (PositionEmbedding, {"grid_shape": (3, 4)}, TOKENS),
    (PositionEmbedding, {"grid_shape": (3, 4), "kind": "sine"}, TOKENS),
    (PositionEmbedding, {"grid_shape": (3, 4), "kind": "none"}, TOKENS),
    (SequencePooling, {}, TOKENS),
    (GRUTokenizer, {"hidden_dim": 6, "num_layers": 2}, TOKENS),
    (LAMAPooling, {"num_heads": 3}, TOKENS),
    (LAMAPooling, {"num_heads": 2, "context": "mean", "normalize": True}, TOKENS),
    (SequenceTokenizer, {"hidden_dim": 6, "num_layers": 2, "num_filters": 4}, TOKENS),
    (SequenceTokenizer, {"hidden_dim": 8, "num_layers": 0}, TOKENS),
    (ConvBlock, {"grid_shape": (12, 1), "design": "reparameterized"}, TOKENS),
    (StochasticDepth, {"rate": 0.25}, TOKENS),
    (StochasticDepth, {"rate": 0.0}, TOKENS),
    *(
        (ConvBlock, {"grid_shape": (3, 4), "design": design, "fused": fused}, TOKENS)
        for design in ("full", "separable", "inverted_bottleneck", "reparameterized")
        for fused in (False, True)
    ),
    *(
        (ConvTokenizer, {"hidden_dim": 8, "num_layers": 2, "num_filters": 4, **design}, IMAGES)
        for design in (
            {},
            {"kernel_size": 7},
            {"design": "separable"},
            {"design": "inverted_bottleneck", "fused": True},
        )
    ),
    (ConvNorm, {"filters": 8, "kernel_size": 3, "parallel": True}, (2, 6, 6, 8)),
    (ConvNorm, {"filters": None, "fused": True}, (2, 6, 6, 8)),
    (DepthwiseConv, {"kernel_size": 3}, (2, 6, 6, 8)),
    (BatchNormalization, {}, (2, 6, 6, 8)),
    (CommitteeVote, {"mode": "soft"}, (2, 3, 5)),
    (CommitteeVote, {"mode": "logits"}, (2, 3, 5)),
    (CommitteeVote, {"mode": "vote"}, (2, 3, 5)),
]

# They take no symbolic tensors.
AUGMENTATIONS = [
    (lsmha.CutMix, {"factor": 0.5, "seed": 3}),
    (lsmha.HorizontalFlip, {"probability": 0.25, "seed": 3}),
    (lsmha.MixUp, {"alpha": 0.5, "seed": 3}),
    (lsmha.PadCrop, {"padding": 2, "seed": 3}),
    (lsmha.RandAugmentPerImage, {"num_ops": 1, "magnitude": 5, "fill": 0, "seed": 3}),
    (lsmha.RandomErasing, {"factor": 0.5, "scale": [0.1, 0.2], "seed": 3}),
    (lsmha.ResizedCrop, {"area": [0.5, 1.0], "aspect_ratio": [0.5, 2.0], "seed": 3}),
    (lsmha.OneOf, {"layers": [lsmha.MixUp(seed=1), lsmha.CutMix(seed=2)], "seed": 3}),
]


def layer_name(value):
    """Names a layer's class in the identifier of a test."""
    return value.__name__ if isinstance(value, type) else None
