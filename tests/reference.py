"""Independent implementations that tests compare with."""

import numpy as np
import pytest
from keras import ops

from lsmha_keras.benchmark.peers import import_vit_pytorch_cct


def attention(x, layer, head_mask=None, padding_mask=None):
    """Multi-head attention in float64 NumPy, one head at a time, from the layer's weights.

    Returns:
        Output (batch, tokens, C), heads (batch, tokens, heads, head_dim), weights (batch, heads,
        tokens, tokens).
    """
    qkv = _dense(np.asarray(x, "float64"), layer.qkv)
    inner = qkv.shape[-1] // 3
    head_dim = inner // layer.num_heads
    outputs, scores = [], []
    for h in range(layer.num_heads):
        q, k, v = (
            qkv[..., part * inner + h * head_dim : part * inner + (h + 1) * head_dim]
            for part in range(3)
        )
        logits = q @ k.transpose(0, 2, 1) / np.sqrt(head_dim)
        if padding_mask is not None:
            logits = np.where(np.asarray(padding_mask)[:, None, :], logits, -np.inf)
        a = np.exp(logits - logits.max(-1, keepdims=True))
        a /= a.sum(-1, keepdims=True)
        mask = 1.0
        if head_mask is not None:
            mask = np.asarray(head_mask)[..., h].reshape(-1, 1, 1)
        outputs.append(a @ v * mask)
        scores.append(a)
    heads = np.stack(outputs, 2)
    output = _dense(heads.reshape(*qkv.shape[:2], inner), layer.projection)
    return output, heads, np.stack(scores, 1)


def _dense(x, layer):
    y = x @ ops.convert_to_numpy(layer.kernel)
    return y + ops.convert_to_numpy(layer.bias) if layer.use_bias else y


def vit_pytorch_cct():
    """Imports the peer `vit_pytorch.cct`; skips the test where it or PyTorch is missing."""
    try:
        return import_vit_pytorch_cct()
    except ImportError as error:
        pytest.skip(str(error))
