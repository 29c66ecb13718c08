import math

import numpy as np
import pytest

from lsmha_keras.layers.position_embedding import (
    PositionEmbedding,
    resize_position_embedding,
    sine_embedding,
)
from tests.checks import check_layer, random_tokens, to_numpy


def test_sine_values():
    table = sine_embedding(50, 6)
    for p in (0, 1, 49):
        for i in range(6):
            angle = p / 10000 ** (2 * (i // 2) / 6)
            expected = math.sin(angle) if i % 2 == 0 else math.cos(angle)
            assert table[p, i] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind, weights", [("learnable", 1), ("sine", 0), ("none", 0)])
def test_adds_its_embedding(kind, weights):
    x = random_tokens(2, 12, 6)
    layer = PositionEmbedding((3, 4), kind=kind)
    output = to_numpy(layer(x))
    added = {
        "learnable": lambda: to_numpy(layer.embedding),
        "sine": lambda: sine_embedding(12, 6)[None],
        "none": lambda: 0.0,
    }[kind]()
    np.testing.assert_allclose(output, x + added, atol=1e-6)
    assert len(layer.weights) == weights


@pytest.mark.parametrize("kind", ["learnable", "sine", "none"])
def test_layer_checks(kind):
    check_layer(PositionEmbedding((3, 4), kind=kind), random_tokens(2, 12, 6))


@pytest.mark.parametrize("new_grid", [(8, 8), (3, 7), (2, 2), (4, 5)])
def test_resize_matches_pytorch(new_grid):
    torch = pytest.importorskip("torch")
    embedding = random_tokens(1, 20, 6)
    grid = torch.tensor(embedding.reshape(1, 4, 5, 6)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, new_grid, mode="bilinear")
    expected = expected.permute(0, 2, 3, 1).reshape(1, -1, 6).numpy()
    resized = resize_position_embedding(embedding, (4, 5), new_grid)
    np.testing.assert_allclose(resized, expected, atol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="kind='cosine'"):
        PositionEmbedding((2, 2), kind="cosine")
    with pytest.raises(ValueError, match=r"grid_shape=\(2, 0\)"):
        PositionEmbedding((2, 0))
    with pytest.raises(ValueError, match="expects tokens of shape"):
        PositionEmbedding((2, 2))(random_tokens(1, 5, 3))
    with pytest.raises(ValueError, match="5 tokens does not lie on a 2x2 grid"):
        resize_position_embedding(random_tokens(1, 5, 3), (2, 2), (3, 3))
