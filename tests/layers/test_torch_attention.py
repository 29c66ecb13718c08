import keras
import numpy as np
import pytest

from tests.checks import assert_rounded, random_tokens
from tests.layers.test_attention_core import reference, value_and_gradients

if keras.config.backend() != "torch":
    pytest.skip("this loop is PyTorch's", allow_module_level=True)

import torch

from lsmha_keras.layers import torch_attention

SEED = torch.tensor([7, 3])


def attend(query, key, value, bias=None, dropout_rate=0.3, seed=SEED):
    arrays = (torch.as_tensor(x) for x in (query, key, value))
    return torch_attention.loop_attention(*arrays, bias, dropout_rate, seed)


def find_dropped(query, key, bias=None, **kwargs):
    """The attention weights after dropout: the output for one-hot values.

    Heads as wide as there are keys are needed for that.
    """
    one_hot = np.tile(np.eye(key.shape[2], dtype="float32"), (*key.shape[:2], 1, 1))
    return attend(query, key, one_hot, bias, **kwargs).numpy()


@pytest.mark.parametrize("group", [1, 3, 10])  # Three does not divide the ten heads.
@pytest.mark.parametrize("masked", [False, True])
def test_matches_float64(monkeypatch, group, masked):
    queries, keys, heads, head_dim = 9, 14, 5, 14
    monkeypatch.setattr(torch_attention, "GROUP_BYTES", 4 * queries * keys * group)
    query, gradient = (random_tokens(2, heads, queries, head_dim, seed=i) for i in (0, 1))
    key, value = (random_tokens(2, heads, keys, head_dim, seed=i) for i in (2, 3))
    mask = np.arange(keys)[None] < np.array([[keys], [6]]) if masked else None
    bias = torch.tensor(np.where(mask, 0, -np.inf), dtype=torch.float32) if masked else None
    keep = (find_dropped(query, key, bias) > 0) / 0.7
    output, gradients = value_and_gradients(
        lambda *x: attend(*x, bias), [query, key, value], gradient
    )
    expected, expected_gradients = reference(query, key, value, gradient, mask, keep)
    np.testing.assert_allclose(output, expected, atol=2e-5)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, wanted, atol=5e-5)


def test_dropout_depends_on_the_seed_alone(monkeypatch):
    query, key = (random_tokens(2, 4, 16, 16, seed=i) for i in (0, 1))
    dropped = find_dropped(query, key)
    monkeypatch.setattr(torch_attention, "GROUP_BYTES", 1)
    np.testing.assert_allclose(find_dropped(query, key), dropped, atol=1e-6)
    for other in ([7, 4], [8, 3], [8, 2], [3, 7]):
        agree = (find_dropped(query, key, seed=torch.tensor(other)) == 0) == (dropped == 0)
        # 2,048 independent decisions agree with probability 0.58: a standard deviation of 0.011.
        assert abs(agree.mean() - 0.58) < 0.05


def test_sharp_attention_has_no_subnormal_weights():
    query, key, value, gradient = (random_tokens(2, 3, 24, 24, seed=i) for i in range(4))
    query *= 50  # Scores with a standard deviation of 50.
    dropped = find_dropped(query, key)
    assert dropped[dropped > 0].min() > 1e-27 and (dropped == 0).mean() > 0.6
    # Zero weights do not tell what was dropped: flat scores do, from the same words.
    keep = (find_dropped(0 * query, key) > 0) / 0.7
    output, gradients = value_and_gradients(attend, [query, key, value], gradient)
    expected, expected_gradients = reference(query, key, value, gradient, keep=keep)
    np.testing.assert_allclose(output, expected, atol=5e-5)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_computes_in_float32(dtype):
    arrays = [
        torch.tensor(random_tokens(2, 4, 20, 8, seed=i)).to(getattr(torch, dtype)) for i in range(3)
    ]
    output = attend(*arrays)
    assert output.dtype == arrays[0].dtype
    expected = attend(*(x.float() for x in arrays)).numpy()
    # Only the output is rounded.
    assert_rounded(output.float().numpy(), expected, dtype, 1, np.abs(expected) * (1 + 1e-3) + 1e-6)


def test_saves_no_scores():
    tokens = 64
    arrays = [torch.tensor(random_tokens(2, 8, tokens, 4, seed=i)) for i in range(3)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        attend(*(x.requires_grad_() for x in arrays))
    assert saved and max(x.numel() for x in saved) == arrays[0].numel()


@pytest.mark.parametrize(
    "shape, rate, device, pays",
    [
        ((1, 4, 256, 64), 0.1, "cpu", True),
        ((1, 4, 256, 64), 0.0, "cpu", False),
        ((1, 4, 256, 64), 0.1, "meta", False),
        ((1, 4, 255, 64), 0.1, "cpu", False),  # Less than 1 MiB of scores.
        ((16, 4, 256, 257), 0.1, "cpu", False),  # Fewer scores than entries.
    ],
)
def test_loop_pays(shape, rate, device, pays):
    query = torch.empty(shape, device=device)
    assert torch_attention.loop_pays(query, query, rate) == pays


def test_loop_is_never_traced():
    class Report(torch.nn.Module):
        def forward(self, query):
            return query + float(torch_attention.loop_pays(query, query, 0.1))

    query = torch.zeros(1, 4, 256, 2)
    assert Report()(query).max() == 1
    assert torch.export.export(Report(), (query,)).module()(query).max() == 0
    assert torch.jit.trace(Report(), query, check_trace=False)(query).max() == 0
