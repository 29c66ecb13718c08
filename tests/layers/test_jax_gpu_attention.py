"""Attention on a GPU, without one: what is compiled for CUDA, and the plain form's numbers."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("the module is JAX's", allow_module_level=True)

import jax
import jax.numpy as jnp
from jax import export

from lsmha_keras.layers import jax_attention, jax_gpu_attention
from lsmha_keras.layers.attention_core import attention_core
from lsmha_keras.layers.jax_gpu_attention import gpu_attention
from tests.checks import assert_rounded


@pytest.fixture
def cuda(monkeypatch):
    """Makes tracing believe in an Ampere GPU with cuDNN."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91500)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda version: version == "8.0")
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda version: False)
    jax_gpu_attention._warn_once.cache_clear()


def random_inputs(head_dim, dtype="float32", tokens=12):
    rng = np.random.default_rng(head_dim)
    return [jnp.asarray(rng.normal(size=(2, 3, tokens, head_dim)), dtype) for _ in range(3)]


def reference(query, key, value, mask=None):
    """Written out in float64."""
    query, key, value = (np.asarray(x, "float64") for x in (query, key, value))
    scores = query @ key.swapaxes(2, 3) / np.sqrt(query.shape[-1])
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ value


@pytest.mark.parametrize("head_dim", [4, 8, 10])
def test_cudnn_is_what_is_compiled_forward_and_backward(cuda, head_dim):
    def loss(*inputs):
        return attention_core(*inputs)[0].astype("float32").sum()

    inputs = random_inputs(head_dim, "bfloat16")
    kernels = ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward")
    exported = export.export(
        jax.jit(jax.grad(loss, (0, 1, 2))),
        platforms=["cuda"],
        disabled_checks=[export.DisabledSafetyCheck.custom_call(kernel) for kernel in kernels],
    )(*inputs)
    text = exported.mlir_module()
    assert [text.count(f"custom_call @{kernel}(") for kernel in kernels] == [1, 1]
    assert [aval.shape for aval in exported.out_avals] == [x.shape for x in inputs]


@pytest.mark.parametrize("head_dim", [4, 8, 10])
def test_padding_changes_nothing(monkeypatch, head_dim):
    asked = []
    attend = jax.nn.dot_product_attention

    def by_xla(*inputs, implementation, scale):
        asked.append((implementation, inputs[0].shape[-1]))
        return attend(*inputs, implementation="xla", scale=scale)

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    inputs = random_inputs(head_dim)
    np.testing.assert_allclose(gpu_attention(*inputs), reference(*inputs), atol=1e-5)
    assert asked == [("cudnn", -(-head_dim // 8) * 8)]


@pytest.mark.parametrize("masked", [False, True])
def test_cases_that_cudnn_refuses_use_the_plain_form_and_warn_once(cuda, masked, recwarn):
    inputs = random_inputs(5)
    mask = np.arange(12) < np.array([7, 12])[:, None, None, None] if masked else None
    for _ in range(2):
        found = gpu_attention(*inputs, mask=mask)
    np.testing.assert_allclose(found, reference(*inputs, mask), atol=1e-5)
    said = [str(w.message) for w in recwarn if "cuDNN's attention is not used" in str(w.message)]
    assert len(said) == 1 and ("a mask" if masked else "float32") in said[0]


def test_plain_form_in_half_precision_is_as_exact_as_its_inputs():
    inputs = random_inputs(8, "bfloat16")
    found = jax_gpu_attention.plain_attention(*inputs, None)
    assert found.dtype == jnp.bfloat16
    # The weights and the output are rounded, the scores are not.
    query, key, value = inputs
    magnitude = reference(query, key, jnp.abs(value))
    assert_rounded(np.asarray(found, "float64"), reference(*inputs), "bfloat16", 2, magnitude)


def test_plain_form_keeps_no_scores_for_the_backward_pass():
    inputs = random_inputs(8, tokens=64)
    _, pullback = jax.vjp(lambda *x: jax_gpu_attention.plain_attention(*x, None), *inputs)
    kept = [leaf.size for leaf in jax.tree.leaves(pullback)]
    assert max(kept) == inputs[0].size < 2 * 3 * 64 * 64


def test_a_cpu_keeps_its_loop():
    assert not jax_attention.has_gpu()
