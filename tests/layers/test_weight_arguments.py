"""Layers take what users of Keras give to a `Dense`, keep it in their configs and act on it."""

import json

import keras
import numpy as np
import pytest

from lsmha_keras.layers.batch_normalization import BatchNormalization
from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.layers.conv_norm import ConvNorm
from lsmha_keras.layers.conv_tokenizer import ConvTokenizer
from lsmha_keras.layers.depthwise_conv import DepthwiseConv
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention
from lsmha_keras.layers.position_embedding import PositionEmbedding
from lsmha_keras.layers.sequence_pooling import SequencePooling
from lsmha_keras.layers.transformer_block import TransformerBlock
from tests.checks import random_tokens, to_numpy
from tests.layers.registry import AUGMENTATIONS, LAYERS, layer_name

# Class, arguments, shape of the input, and by argument the end of the paths of its weights.
DENSE = {"kernel": "kernel", "bias": "bias"}
CASES = [
    (LargeScaleMultiHeadAttention, {"num_heads": 2, "use_qkv_bias": True}, (2, 12, 8), DENSE),
    (TransformerBlock, {"num_heads": 2, "mlp_dim": 6, "use_qkv_bias": True}, (2, 12, 8), DENSE),
    (SequencePooling, {}, (2, 12, 8), DENSE),
    (PositionEmbedding, {"grid_shape": (3, 4)}, (2, 12, 8), {"embeddings": "embedding"}),
    (ConvBlock, {"grid_shape": (3, 4), "design": "separable"}, (2, 12, 8), {"kernel": "kernel"}),
    (ConvBlock, {"grid_shape": (3, 4), "design": "full"}, (2, 12, 8), {"kernel": "kernel"}),
    (ConvNorm, {"filters": 4, "parallel": True}, (2, 6, 6, 4), {"kernel": "kernel"}),
    (ConvTokenizer, {"hidden_dim": 8, "num_layers": 2}, (2, 8, 8, 3), {"kernel": "kernel"}),
    (
        ConvTokenizer,
        {"hidden_dim": 8, "num_layers": 2, "design": "separable"},
        (2, 8, 8, 3),
        {"kernel": "kernel"},
    ),
    (DepthwiseConv, {"kernel_size": 3}, (2, 6, 6, 4), {"depthwise": "kernel", "bias": "bias"}),
    (BatchNormalization, {}, (2, 6, 6, 4), {"gamma": "gamma", "beta": "beta"}),
]


@pytest.mark.parametrize("cls, arguments, shape, weights", CASES, ids=layer_name)
def test_initializers_regularizers_and_constraints(cls, arguments, shape, weights):
    factors = dict(zip(weights, (0.125, 0.5), strict=False))
    for weight, factor in factors.items():
        arguments = {
            **arguments,
            f"{weight}_initializer": keras.initializers.Constant(2.0),
            f"{weight}_regularizer": keras.regularizers.L2(factor),
            f"{weight}_constraint": keras.constraints.MaxNorm(0.5),
        }
    made = cls(**arguments)
    config = made.get_config()
    for name in arguments:
        if name.endswith(("regularizer", "constraint", "initializer")):
            serialised = keras.saving.serialize_keras_object(arguments[name])
            assert config[name] == serialised, name
    saved = cls.from_config(json.loads(json.dumps(config)))
    for layer in (made, saved):
        layer.build(shape)
        expected = 0.0
        for weight, end in weights.items():
            found = [w for w in layer.trainable_weights if w.path.rsplit("/", 1)[1] == end]
            assert found
            for variable in found:
                assert (to_numpy(variable) == 2.0).all()
                assert isinstance(variable.constraint, keras.constraints.MaxNorm)
                expected += factors[weight] * 4.0 * np.prod(variable.shape)
        assert float(to_numpy(sum(layer.losses))) == pytest.approx(expected)
        assert layer.get_config() == {**config, "name": layer.name}


def test_a_penalty_shrinks_the_kernels_in_training():
    """One step of gradient descent with rate 1 on 0.25 * |w|^2 halves the weights."""
    inputs = keras.Input((6, 8))
    block = TransformerBlock(num_heads=2, mlp_dim=6, kernel_regularizer=keras.regularizers.L2(0.25))
    model = keras.Model(inputs, block(inputs))
    before = [to_numpy(weight) for weight in block.trainable_weights]
    model.compile("sgd", loss=lambda y, x: 0.0 * x, jit_compile=False)
    model.optimizer.learning_rate = 1.0
    model.fit(random_tokens(4, 6, 8), np.zeros((4, 6, 8)), batch_size=4, verbose=0)
    for weight, old in zip(block.trainable_weights, before, strict=True):
        factor = 0.5 if weight.path.endswith("kernel") else 1.0
        np.testing.assert_allclose(to_numpy(weight), factor * old, atol=1e-6)


def test_activity_regularizers_stay():
    for cls, arguments, _, _ in CASES:
        layer = cls(**arguments, activity_regularizer=keras.regularizers.L1(0.25))
        copy = cls.from_config(layer.get_config())
        assert copy.activity_regularizer.l1 == 0.25


def numpy_numbers(value):
    """Ints and floats as NumPy's, also in sequences."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(numpy_numbers, value))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return np.int64(value) if isinstance(value, int) else np.float32(value)


@pytest.mark.parametrize(
    "cls, arguments", [case[:2] for case in LAYERS] + AUGMENTATIONS, ids=layer_name
)
def test_numbers_of_numpy_are_saved_as_plain_ones(cls, arguments):
    if cls is LargeScaleMultiHeadAttention:
        arguments = {**arguments, "seed": 3}
    exact = {
        name: float(np.float32(value)) if isinstance(value, float) else value
        for name, value in arguments.items()
    }
    for name in ("scale", "aspect_ratio"):
        if name in exact:
            exact[name] = [float(np.float32(value)) for value in exact[name]]
    layer = cls(**{name: numpy_numbers(value) for name, value in arguments.items()}, name="layer")
    config = layer.get_config()
    assert json.loads(json.dumps(config)) == json.loads(
        json.dumps(cls(**exact, name="layer").get_config())
    )


def test_other_sizes_are_refused():
    for bad in (0, 2.5, True, "2"):
        with pytest.raises(ValueError, match=f"`mlp_dim` must be a positive int.*mlp_dim={bad!r}"):
            TransformerBlock(num_heads=2, mlp_dim=bad)
        with pytest.raises(ValueError, match=f"`num_heads` must be a positive int.*={bad!r}"):
            LargeScaleMultiHeadAttention(num_heads=bad)
    for bad in ((3,), (3, 0), (3, 2.5)):
        with pytest.raises(ValueError, match="`grid_shape` must be two positive ints"):
            PositionEmbedding(bad)
    with pytest.raises(ValueError, match="no activation: use `keras.layers.Depth.*: strides"):
        DepthwiseConv(3, strides=2)
