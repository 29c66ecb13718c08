"""Builds the ONNX nodes of attention, one function for each kind that a graph can hold."""

import dataclasses

import numpy as np

from lsmha_keras.attention.clustered import ClusteredHeads
from lsmha_keras.attention.grouped import GroupedQueryAttention
from lsmha_keras.attention.head_embedding import HeadEmbeddingAttention
from lsmha_keras.attention.interactive import InteractiveHeads
from lsmha_keras.attention.knocking import KnockingHeads
from lsmha_keras.attention.mae import MixtureOfAttentiveExperts
from lsmha_keras.attention.normlin import NormLin
from lsmha_keras.attention.sliced import SlicedAttention
from lsmha_keras.attention.subspace import SubspaceAttention
from lsmha_keras.attention.talking import TalkingHeads
from lsmha_keras.attention.windows import WindowedHeads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention


@dataclasses.dataclass
class Tokens:
    """Normalised tokens inside a graph.

    Attributes:
        graph: `OnnxGraph`.
        name: str, the output `(batch, count, channels)`.
        count: int, or `None` with a mask: then the graph takes sequences of several lengths.
        mask: `TokenMask` or `None`.
    """

    graph: object
    name: str
    count: int | None
    mask: object = None

    def without_padding(self, scores):
        """Adds to scores `(batch, heads, count, count)` what gives padding no weight."""
        if self.mask is None:
            return scores
        return self.graph.add("Add", scores, self.mask.bias(self.graph, 1, 2))

    def heads(self, kernel, bias, heads, scale=1.0):
        """Projects to `(batch, heads, count, width)`; the scale becomes part of the weights."""
        bias = None if bias is None else bias * scale
        return self._split(self.graph.dense(self.name, kernel * scale, bias), kernel, heads)

    def slices(self, channels, heads):
        """Cuts the tokens themselves into `(batch, heads, count, width)`."""
        return self._split(self.name, np.empty((0, channels)), heads)

    def _split(self, x, kernel, heads):
        shape = (0, -1, heads, kernel.shape[1] // heads)
        return self.graph.transpose(self.graph.reshape(x, *shape), 0, 2, 1, 3)


def attention(graph, layer, x, count, mask=None):
    """Adds attention and its output projection.

    Args:
        graph: `OnnxGraph`.
        layer: attention layer, of a class in `KINDS`.
        x: str, normalised tokens `(batch, count, channels)`.
        count: int, tokens of an image; `None` with a mask.
        mask: `TokenMask` of sequences with padding, or `None`.

    Returns:
        str, the output `(batch, count, channels)`.
    """
    outputs = KINDS[type(layer)](
        layer, Tokens(graph, x, count, mask)
    )  # (batch, heads, count, width)
    inner = layer.projection.kernel.shape[0]
    flat = graph.reshape(graph.transpose(outputs, 0, 2, 1, 3), 0, -1, inner)
    kernel, bias = layer.projection.kernel, layer.projection.bias
    return graph.dense(flat, _numpy(kernel), None if bias is None else _numpy(bias))


def _parts(dense, parts):
    """Cuts kernel and bias of a projection: pairs, the bias `None` where there is none."""
    kernels = np.split(_numpy(dense.kernel), parts, axis=1)
    biases = np.split(_numpy(dense.bias), parts) if dense.use_bias else [None] * parts
    return list(zip(kernels, biases, strict=True))


def _project(layer, tokens):
    """Queries, scaled, keys and values of plain attention."""
    parts = zip(_parts(layer.qkv, 3), (layer.width**-0.5, 1.0, 1.0), strict=True)
    return [tokens.heads(*part, layer.num_heads, scale) for part, scale in parts]


def _folded(layer, tokens):
    """Queries, scaled, keys and values of a kind that is written exactly as plain attention."""
    weights, _ = layer.multi_head_weights()  # (channels and a row for the bias, heads, width)
    channels = layer.projection.kernel.shape[1]
    found = []
    for weight, scale in zip(weights, (layer.width**-0.5, 1.0, 1.0), strict=True):
        flat = weight.reshape(len(weight), -1)
        bias = flat[channels] if layer.use_qkv_bias else None
        found.append(tokens.heads(flat[:channels], bias, layer.num_heads, scale))
    return found


def _attend(tokens, query, key, value, change_scores=None, change_weights=None):
    graph = tokens.graph
    scores = graph.add("MatMul", query, graph.transpose(key, 0, 1, 3, 2))
    if change_scores:
        scores = change_scores(scores)
    weights = graph.add("Softmax", tokens.without_padding(scores), axis=-1)
    if change_weights:
        weights = change_weights(weights)
    return graph.add("MatMul", weights, value)


def _mix_heads(tokens, matrix, scores):
    """Mixes maps `(batch, heads, count, count)` by a matrix `(new heads, heads)`."""
    graph = tokens.graph
    if tokens.count is None:
        last = graph.transpose(scores, 0, 2, 3, 1)
        return graph.transpose(graph.dense(last, matrix.T), 0, 3, 1, 2)
    flat = graph.reshape(scores, 0, matrix.shape[1], -1)
    mixed = graph.add("MatMul", graph.weight(matrix), flat)
    return graph.reshape(mixed, 0, matrix.shape[0], tokens.count, tokens.count)


def _pick(tokens, x, indices):
    """Takes heads of `(batch, heads, count, width)` by their indices, some of them repeatedly."""
    indices = np.asarray(indices, "int64")
    return tokens.graph.add("Gather", x, tokens.graph.constant(indices), axis=1)


def _multi_head(layer, tokens):
    return _attend(tokens, *_project(layer, tokens))


def _grouped(layer, tokens):
    groups = layer.num_kv_heads
    (query,) = _parts(layer.query, 1)
    query = tokens.heads(*query, layer.num_heads, layer.width**-0.5)
    owner = np.repeat(np.arange(groups), layer.num_heads // groups)
    shared = (tokens.heads(*part, groups) for part in _parts(layer.key_value, 2))
    return _attend(tokens, query, *(_pick(tokens, part, owner) for part in shared))


def _clustered(layer, tokens):
    query, key = _parts(layer.query_key, 2)
    (value,) = _parts(layer.value, 1)
    query = tokens.heads(*query, layer._num_maps, layer.width**-0.5)
    graph = tokens.graph
    key = graph.transpose(tokens.heads(*key, layer._num_maps), 0, 1, 3, 2)
    scores = tokens.without_padding(graph.add("MatMul", query, key))
    weights = graph.add("Softmax", scores, axis=-1)
    value = tokens.heads(*value, layer.num_heads)
    return graph.add("MatMul", _pick(tokens, weights, layer._maps), value)


def _knocking(layer, tokens):
    if not layer.gated:
        return _attend(tokens, *_folded(layer, tokens))
    query, key, value = _project(layer, tokens)
    graph, eye = tokens.graph, np.eye(layer.width, dtype="float32")
    up, gate, down = (_numpy(delta) for delta in layer.deltas)
    opened = graph.add("Sigmoid", graph.add("MatMul", value, graph.weight(gate)))
    value = graph.add("MatMul", value, graph.weight(2 * (eye + up)))
    value = graph.add("MatMul", graph.add("Mul", value, opened), graph.weight(eye + down))
    return _attend(tokens, query, key, value)


def _talking(layer, tokens):
    return _attend(
        tokens,
        *_project(layer, tokens),
        change_scores=lambda scores: _mix_heads(tokens, _numpy(layer.score_mixing), scores),
        change_weights=lambda weights: _mix_heads(tokens, _numpy(layer.weight_mixing), weights),
    )


def _interactive(layer, tokens):
    query, key, value = _project(layer, tokens)
    graph, heads, maps = tokens.graph, layer.num_heads, layer.maps_per_head
    mixing = _numpy(layer.inner).transpose(0, 2, 1).reshape(heads * maps, heads)
    flat = graph.reshape(key, 0, heads, -1)
    mixed = graph.add("MatMul", graph.weight(mixing), flat)
    key = graph.reshape(mixed, 0, heads * maps, -1, layer.width)
    query = _pick(tokens, query, np.repeat(np.arange(heads), maps))
    cross = _numpy(layer.cross).reshape(heads * maps, heads).T
    return _attend(
        tokens,
        query,
        key,
        value,
        change_scores=lambda scores: _mix_heads(tokens, cross, graph.add("Relu", scores)),
    )


def _head_embedding(layer, tokens):
    found, graph = [], tokens.graph
    kinds = zip(("query", "key", "value"), _parts(layer.qkv, 3), strict=True)
    for kind, part in kinds:
        head = tokens.heads(*part, 1)
        if kind in layer.embeddings:
            embedding = _numpy(layer.embeddings[kind])  # (heads, 1, width)
            multiplied = layer.combine == "multiply"
            embedding = graph.weight(1 + embedding if multiplied else embedding)
            head = graph.add("Mul" if multiplied else "Add", head, embedding)
        else:
            head = _pick(tokens, head, np.zeros(layer.num_heads))
        found.append(head)
    found[0] = graph.add("Mul", found[0], graph.constant(np.float32(layer.width**-0.5)))
    return _attend(tokens, *found)


def _sliced(layer, tokens):
    graph, heads = tokens.graph, layer.num_heads
    slices = tokens.slices(layer.projection.kernel.shape[0], heads)
    query, *key = _parts(layer.qkv, 1 if layer.slice_keys else 2)
    query = tokens.heads(*query, heads, layer.width**-0.5)
    key = slices if layer.slice_keys else tokens.heads(*key[0], heads)
    value = slices
    if layer.mix_tokens:
        value = graph.add("MatMul", graph.weight(_numpy(layer.token_mixing)), value)
    return _attend(tokens, query, key, value)


def _subspace(layer, tokens):
    (part,) = _parts(layer.qkv, 1)
    heads = tokens.heads(*part, layer.num_heads)
    scaled = tokens.graph.constant(np.float32(layer.width**-0.5))
    return _attend(tokens, tokens.graph.add("Mul", heads, scaled), heads, heads)


def _windowed(layer, tokens):
    graph = tokens.graph
    mask = graph.constant(np.where(layer._allowed, 0, -np.inf).astype("float32"))
    if tokens.mask is not None:
        mask = tokens.mask.cut(graph, mask, 1, 2)
    return _attend(
        tokens,
        *_project(layer, tokens),
        change_scores=lambda scores: graph.add("Add", scores, mask),
    )


def _normlin(layer, tokens):
    mixing = np.log1p(np.exp(_numpy(layer.mixing).astype("float64")))
    mixing = (mixing / mixing.sum(-1, keepdims=True)).astype("float32")
    (value,) = _parts(layer.value, 1)
    value = tokens.heads(*value, layer.num_heads)
    return tokens.graph.add("MatMul", tokens.graph.weight(mixing), value)


def _attentive_experts(layer, tokens):
    graph = tokens.graph
    if tokens.mask is None:
        mean = graph.add("ReduceMean", tokens.name, axes=[1], keepdims=0)
    else:
        mean = graph.reshape(tokens.mask.mean(graph, tokens.name), 0, -1)
    hidden = graph.add("Relu", graph.dense(mean, *map(_numpy, layer.gate_hidden.weights)))
    gates = graph.add("Softmax", graph.dense(hidden, *map(_numpy, layer.gate.weights)), axis=-1)
    # The weights of heads are linear in the gates, which sum to 1.
    factor = layer._num_gates / (layer._num_gates - layer.leave_out)
    weights = graph.dense(gates, factor * (1 - layer._left_out()))
    weights = graph.reshape(weights, 0, layer.num_heads, 1, 1)
    return graph.add("Mul", _multi_head(layer, tokens), weights)


# What a graph can hold, by the class of the layer.
KINDS = {
    LargeScaleMultiHeadAttention: _multi_head,
    ClusteredHeads: _clustered,
    GroupedQueryAttention: _grouped,
    HeadEmbeddingAttention: _head_embedding,
    InteractiveHeads: _interactive,
    KnockingHeads: _knocking,
    MixtureOfAttentiveExperts: _attentive_experts,
    NormLin: _normlin,
    SlicedAttention: _sliced,
    SubspaceAttention: _subspace,
    TalkingHeads: _talking,
    WindowedHeads: _windowed,
}


def _numpy(value):
    import keras

    return np.asarray(keras.ops.convert_to_numpy(value), "float32")
