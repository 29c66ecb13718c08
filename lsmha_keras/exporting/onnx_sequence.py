"""Builds the front of the ONNX graph of a classifier of texts or series: tokens and their mask."""

import dataclasses

import numpy as np

# What scores get at padding: with it a softmax gives exactly 0, and where a sequence has nothing
# but padding, the same to all places, as the layers do. Minus infinity would give NaN there.
_MASKED = np.float32(-1e30)
# The norm below which `keras.ops.normalize` divides by it instead.
_SMALLEST = np.float32(1e-7)


@dataclasses.dataclass(frozen=True)
class TokenMask:
    """Which tokens inside a graph are no padding; names of outputs.

    Attributes:
        valid: str, float32 `(batch, tokens)`, 1 or 0 for padding.
        count: str, int64 `(1,)`, how many tokens the longest sequence of the batch has room for.
    """

    valid: str
    count: str

    def over(self, graph, *axes):
        """Returns the mask with more axes of length 1, such as `(batch, tokens, 1)`."""
        return graph.add("Unsqueeze", self.valid, graph.constant(np.array(axes, "int64")))

    def bias(self, graph, *axes):
        """Returns what is added to scores: 0, or at padding so little that it weighs nothing."""
        inverse = graph.add("Sub", graph.constant(np.float32(1)), self.over(graph, *axes))
        return graph.add("Mul", inverse, graph.constant(_MASKED))

    def mean(self, graph, x):
        """Returns the mean `(batch, 1, channels)` of the tokens `x` that are no padding."""
        weights = self.over(graph, 2)
        one = graph.constant(np.array([1], "int64"))
        total = graph.add("ReduceSum", graph.add("Mul", x, weights), one, keepdims=1)
        count = graph.add("ReduceSum", weights, one, keepdims=1)
        return graph.add("Div", total, graph.add("Max", count, graph.constant(np.float32(1))))

    def cut(self, graph, values, *axes):
        """Cuts a constant, made for the longest sequences, to the tokens that there are."""
        starts = graph.constant(np.zeros(len(axes), "int64"))
        ends = self.count
        if len(axes) > 1:
            ends = graph.add("Concat", *[self.count] * len(axes), axis=0)
        return graph.add("Slice", values, starts, ends, graph.constant(np.array(axes, "int64")))


def sequence_tokens(graph, backbone, x):
    """Adds embedding and tokenizer.

    Args:
        graph: `OnnxGraph`.
        backbone: `CCTSequenceBackbone`.
        x: str, ids `(batch, time)`, int32, or series `(batch, time, features)`, float32. With
            padding, `time` may be any length up to the model's.

    Returns:
        A pair: str, the tokens as a grid of one column, `(batch, channels, tokens, 1)`, and a
        `TokenMask`, or `None` for a model without padding.
    """
    valid = _valid(graph, backbone, x)
    if backbone.vocabulary_size is not None:
        table = graph.weight(_numpy(backbone.embedding.embeddings))
        x = graph.add("Gather", table, x, axis=0)
    x = graph.add("Unsqueeze", graph.transpose(x, 0, 2, 1), graph.constant(np.array([3], "int64")))
    tokenizer = backbone.tokenizer
    length = None if valid is None else _lengths(graph, valid)
    for conv in tokenizer.convs:
        x = _without_padding(graph, x, length)
        kernel = _numpy(conv.kernel)[:, None]  # (size, 1, channels, filters)
        padding, stride = tokenizer._padding, tokenizer._stride
        x = graph.conv(x, kernel, stride=stride, padding=((padding, 0), (padding, 0)))
        x = graph.add("Relu", x)
        if length is not None:
            length = _convolved(graph, length, 2 * padding - tokenizer.kernel_size, stride)
            x = _without_padding(graph, x, length)
            length = _convolved(graph, length, 0, 2)
        x = graph.add("MaxPool", x, kernel_shape=[2, 1], strides=[2, 1], pads=[1, 0, 1, 0])
    if length is None:
        return x, None
    count = _size(graph, x, 2)
    mask = TokenMask(_before(graph, length, count), count)
    return graph.add("Mul", x, mask.over(graph, 1, 3)), mask


def lama(graph, pooler, x, mask):
    """Adds LAMA pooling.

    Args:
        graph: `OnnxGraph`.
        pooler: `LAMAPooling`.
        x: str, tokens `(batch, tokens, channels)`.
        mask: `TokenMask` or `None`.

    Returns:
        str, the means of the heads, `(batch, heads, channels)`.
    """
    kernel, context = _numpy(pooler.token_kernel), _numpy(pooler.context_kernel)
    if pooler.context == "learned":
        factors = _numpy(pooler.context_vector) @ context  # (1, heads)
        scores = graph.dense(x, kernel * factors)
    else:
        mean = graph.add("ReduceMean", x, axes=[1], keepdims=1)
        mean = mean if mask is None else mask.mean(graph, x)
        scores = graph.add("Mul", graph.dense(x, kernel), graph.dense(mean, context))
    scores = graph.transpose(graph.add("Tanh", scores), 0, 2, 1)  # (batch, heads, tokens)
    if mask is not None:
        scores = graph.add("Add", scores, mask.bias(graph, 1))
    pooled = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), x)
    if pooler.normalize:
        norms = graph.add("ReduceL2", pooled, axes=[-1], keepdims=1)
        pooled = graph.add("Div", pooled, graph.add("Max", norms, graph.constant(_SMALLEST)))
    return pooled


def _valid(graph, backbone, x):
    """Returns which ids or time steps are no padding, int64 `(batch, time)`, or `None`."""
    import onnx

    if backbone.vocabulary_size is not None:
        equal = graph.add("Equal", x, graph.constant(np.int32(0)))
    elif backbone.mask_value is not None:
        equal = graph.add("Equal", x, graph.constant(np.float32(backbone.mask_value)))
    else:
        return None
    found = graph.add("Cast", graph.add("Not", equal), to=onnx.TensorProto.INT64)
    if backbone.vocabulary_size is None:
        found = graph.add("ReduceMax", found, axes=[2], keepdims=0)
    return found


def _lengths(graph, valid):
    """Returns the length of each sequence up to its last valid place, int64 `(batch, 1)`."""
    places = _places(graph, _size(graph, valid, 1), first=1)
    return graph.add("ReduceMax", graph.add("Mul", valid, places), axes=[1], keepdims=1)


def _convolved(graph, length, more, stride):
    """Adds `(length + more) // stride + 1`."""
    wider = graph.add("Add", length, graph.constant(np.int64(more)))
    steps = graph.add("Div", wider, graph.constant(np.int64(stride)))
    return graph.add("Add", steps, graph.constant(np.int64(1)))


def _without_padding(graph, x, length):
    """Returns `x` `(batch, channels, places, 1)` with zeros from `length` on."""
    if length is None:
        return x
    valid = _before(graph, length, _size(graph, x, 2))
    axes = graph.constant(np.array([1, 3], "int64"))
    return graph.add("Mul", x, graph.add("Unsqueeze", valid, axes))


def _before(graph, length, size):
    """Returns which places come before `length` `(batch, 1)`, float32 `(batch, places)`."""
    import onnx

    valid = graph.add("Less", _places(graph, size, first=0), length)
    return graph.add("Cast", valid, to=onnx.TensorProto.FLOAT)


def _places(graph, size, first):
    """Returns `first, first + 1, ...`, as many as `size`, int64 `(1,)`, says."""
    scalar = graph.add("Squeeze", size, graph.constant(np.array([0], "int64")))
    numbers = graph.add("Range", graph.constant(np.int64(0)), scalar, graph.constant(np.int64(1)))
    return graph.add("Add", numbers, graph.constant(np.int64(first))) if first else numbers


def _size(graph, x, axis):
    """Returns the length of an axis, int64 `(1,)`."""
    shape = graph.add("Shape", x)
    return graph.add("Gather", shape, graph.constant(np.array([axis], "int64")), axis=0)


def _numpy(value):
    import keras

    return np.asarray(keras.ops.convert_to_numpy(value), "float32")
