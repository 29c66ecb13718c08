"""Masks that Keras carries with its tensors, from a `Masking` or an `Embedding` to the pooling."""

import keras
import numpy as np
import pytest
from keras import ops

import lsmha_keras as lsmha
from lsmha_keras.layers.batch_normalization import BatchNormalization
from tests import reference
from tests.checks import random_tokens, to_numpy

LENGTHS = np.array([5, 9, 12])
MASK = np.arange(12) < LENGTHS[:, None]  # (3, 12)
GARBAGE = 7.0 * random_tokens(3, 12, 8, seed=9)


def sequences(padding):
    """Three sequences of 5, 9 and 12 tokens, padded to 12."""
    return np.where(MASK[..., None], random_tokens(3, 12, 8), padding).astype("float32")


def masked(x):
    """The same values, with the mask that Keras attaches."""
    x = ops.convert_to_tensor(x)
    keras.src.backend.set_keras_mask(x, ops.convert_to_tensor(MASK))
    return x


def large_weights(layer):
    """Weights that make attention uneven."""
    for seed, weight in enumerate(layer.trainable_weights):
        weight.assign(0.5 * random_tokens(*weight.shape, seed=seed))


@pytest.mark.parametrize(
    "layer",
    [
        lsmha.LargeScaleMultiHeadAttention(num_heads=4),
        lsmha.TransformerBlock(num_heads=2, head_dim=3, mlp_dim=6),
        lsmha.PositionEmbedding((3, 4)),
        lsmha.StochasticDepth(0.5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_use_the_mask_and_pass_it_on(layer):
    layer.build((None, 12, 8))
    large_weights(layer)
    outputs = [layer(masked(sequences(padding))) for padding in (0.0, GARBAGE)]
    for output in outputs:
        mask = keras.src.backend.get_keras_mask(output)
        np.testing.assert_array_equal(ops.convert_to_numpy(mask), MASK)
    first, second = map(to_numpy, outputs)
    np.testing.assert_allclose(second[MASK], first[MASK], atol=1e-5)
    # Each sequence gives what it gives alone, without padding.
    if not isinstance(layer, lsmha.PositionEmbedding):
        for row, length in enumerate(LENGTHS):
            alone = to_numpy(layer(sequences(0.0)[row : row + 1, :length]))
            np.testing.assert_allclose(first[row, :length], alone[0], atol=1e-5)


def test_attention_masks_as_a_padding_mask_does():
    layer = lsmha.LargeScaleMultiHeadAttention(num_heads=4)
    x = sequences(GARBAGE)
    layer.build(x.shape)
    large_weights(layer)
    output, heads, scores = layer(masked(x), return_head_outputs=True, return_attention_scores=True)
    expected = reference.attention(x, layer, None, MASK)
    np.testing.assert_allclose(to_numpy(output), expected[0], atol=1e-5, rtol=1e-5)
    assert not to_numpy(scores)[~np.broadcast_to(MASK[:, None, None], scores.shape)].any()
    assert keras.src.backend.get_keras_mask(heads) is None
    # Given one more mask, tokens count that neither leaves out.
    half = np.arange(12)[None] % 2 < np.ones((3, 1))
    half[:, 3] = False
    both = layer(masked(x), padding_mask=half)
    expected = reference.attention(x, layer, None, MASK & half)[0]
    np.testing.assert_allclose(to_numpy(both), expected, atol=1e-5, rtol=1e-5)


def test_pooling_uses_the_mask_and_ends_it():
    layer = lsmha.SequencePooling()
    layer.build((None, 12, 8))
    large_weights(layer)
    pooled = layer(masked(sequences(GARBAGE)))
    assert keras.src.backend.get_keras_mask(pooled) is None
    for row, length in enumerate(LENGTHS):
        alone = to_numpy(layer(sequences(0.0)[row : row + 1, :length]))
        np.testing.assert_allclose(to_numpy(pooled)[row], alone[0], atol=1e-5)


def classifier(first, inputs):
    """A classifier of sequences: what stands before, two blocks, pooling and a dense layer."""
    x = lsmha.PositionEmbedding((3, 4))(first(inputs))
    for _ in range(2):
        x = lsmha.TransformerBlock(num_heads=2, mlp_dim=6, dropout_rate=0.1)(x)
    return keras.Model(inputs, keras.layers.Dense(3)(lsmha.SequencePooling()(x)))


def test_a_classifier_behind_an_embedding_with_mask_zero():
    """The row of the table for padding may hold anything."""
    words = np.where(MASK, np.random.default_rng(0).integers(1, 20, MASK.shape), 0)
    model = classifier(keras.layers.Embedding(20, 8, mask_zero=True), keras.Input((12,)))
    large_weights(model)
    table = model.layers[1].embeddings
    answers = []
    for value in (0.0, 50.0):
        table.assign(np.where(np.arange(20)[:, None] == 0, value, to_numpy(table)))
        model.predict_function = None
        answers += [to_numpy(model(words)), model.predict(words, verbose=0)]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-4)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.learning_rate = 0.01
    model.fit(words, np.arange(3), verbose=0)
    assert (to_numpy(table)[0] == 50.0).all()  # Padding has no gradient,
    assert np.isfinite(to_numpy(table)).all()
    assert not (to_numpy(table)[words[0, 0]] == 0.0).any()


def test_sequences_of_any_length():
    words = keras.Input((None,))
    x = keras.layers.Embedding(20, 8, mask_zero=True)(words)
    x = lsmha.TransformerBlock(num_heads=2, mlp_dim=6)(x)
    model = keras.Model(words, lsmha.SequencePooling()(x))
    large_weights(model)
    for length in (5, 9):
        row = np.arange(1, length + 1)[None]
        padded = np.pad(row, ((0, 0), (0, 4)))
        answers = [model.predict(x, verbose=0) for x in (row, padded)]
        np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


def test_a_classifier_behind_a_masking_layer():
    model = classifier(keras.layers.Masking(-1.0), keras.Input((12, 8)))
    large_weights(model)
    padded = model.predict(sequences(-1.0), verbose=0)
    x = inputs = keras.Input((12, 8))
    for layer in model.layers[2:]:
        x = layer(x)
    unmasked = keras.Model(inputs, x)
    garbage = to_numpy(unmasked(sequences(GARBAGE), mask=ops.convert_to_tensor(MASK)))
    np.testing.assert_allclose(padded, garbage, atol=1e-4)
    assert np.abs(to_numpy(unmasked(sequences(-1.0))) - padded).max() > 1e-2


def test_layers_that_cannot_use_a_mask_say_so():
    """A convolution mixes neighbours, masked or not; Keras warns for such layers."""
    with pytest.warns(UserWarning, match="ConvBlock.*does not support masking"):
        lsmha.ConvBlock((3, 4))(masked(sequences(0.0)))


def test_masked_values_stay_out_of_batch_statistics():
    x = random_tokens(2, 4, 4, 3)
    mask = np.ones((2, 4, 4), bool)
    mask[1, 2:] = False
    layer = BatchNormalization(momentum=0.0)
    layer(np.where(mask[..., None], x, 100.0), training=True, mask=mask)
    np.testing.assert_allclose(to_numpy(layer.moving_mean), x[mask].mean(0), atol=1e-5)
    np.testing.assert_allclose(to_numpy(layer.moving_variance), x[mask].var(0), atol=1e-5)


def test_masks_that_do_not_fit():
    layer = lsmha.SequencePooling()
    with pytest.raises(ValueError, match=r"`padding_mask` must have shape \(batch, 12\)"):
        layer(sequences(0.0), padding_mask=MASK[:, :4])
    with pytest.raises(ValueError, match=r"`mask` must have shape \(batch, 12\)"):
        layer(sequences(0.0), mask=MASK[:, :4])
