"""Builds the ONNX graph of a classifier from the structure of the model."""

import numpy as np

from lsmha_keras.exporting.flat_model import activation_of
from lsmha_keras.exporting.onnx_attention import attention
from lsmha_keras.exporting.onnx_graph import IR_VERSION, OPSET, OnnxGraph, resized
from lsmha_keras.exporting.onnx_sequence import lama, sequence_tokens
from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.layers.lama_pooling import LAMAPooling

OUTPUT = "outputs"
# Names of the input, by the rank of one of them.
_INPUTS = {1: "ids", 2: "series", 3: "images"}


def onnx_model(classifier, softmax=False, half=True, any_size=False):
    """Builds the ONNX graph of a classifier, preprocessing included.

    It takes uint8 images `(batch, height, width, channels)` of the model's size, ids of texts
    `(batch, time)`, int32, or series `(batch, time, features)`, float32, for any batch, and returns
    what `predict` returns, computed in float32. Models that know padding take any length up to
    theirs. Convolutional blocks and LoRA are folded.

    Args:
        classifier: `CCTImageClassifier` that `check_exportable` accepts; it is not changed.
        softmax: bool, whether the graph turns logits into probabilities. Defaults to `False`.
        half: bool, whether to store weights in float16. Defaults to `True`.
        any_size: bool, whether the graph resizes images of other sizes. Defaults to `False`.

    Returns:
        An `onnx.ModelProto`.

    Example:

    ```python
    classifier = lsmha_keras.CCTImageClassifier.from_preset("lsmha-small")
    onnx_model(classifier).SerializeToString()
    ```
    """
    import onnx

    fused = classifier.fuse()
    graph = OnnxGraph(half)
    name = _INPUTS[len(classifier.image_shape)]
    x, mask = name, None
    if name == "images":
        x = _image_tokens(graph, fused, x, any_size)
    else:
        x, mask = sequence_tokens(graph, fused.backbone, x)
    x = _backbone(graph, fused.backbone, x, mask)
    x = _head(graph, fused, x, mask)
    activation = "softmax" if softmax else activation_of(classifier)
    if activation != "linear":
        x = graph.add(activation.capitalize(), x)
    graph.nodes.append(onnx.helper.make_node("Identity", [x], [OUTPUT], OUTPUT))
    shape = list(classifier.image_shape)
    if any_size:
        shape[:2] = "height", "width"
    if mask is not None:
        shape[0] = "time"
    types = {"ids": "INT32", "series": "FLOAT", "images": "UINT8"}
    given = onnx.helper.make_tensor_value_info(
        name, getattr(onnx.TensorProto, types[name]), ["batch", *shape]
    )
    made = onnx.helper.make_tensor_value_info(
        OUTPUT, onnx.TensorProto.FLOAT, ["batch", classifier.num_classes]
    )
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "classifier", [given], [made], graph.initializers),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="lsmha_keras",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _image_tokens(graph, classifier, x, any_size):
    """Adds preprocessing and tokenizer: tokens `(batch, channels, rows, columns)`."""
    height, width, _ = classifier.image_shape
    x = graph.transpose(x, 0, 3, 1, 2)
    if any_size:
        x = resized(graph, x, (height, width))
    x = _normalised(graph, classifier.preprocessor.image_converter, x)
    return _tokenizer(graph, classifier.backbone.tokenizer, x)


def _normalised(graph, converter, x):
    """Normalises images with values in 0 .. 255, channels first."""
    import onnx

    x = graph.add("Cast", x, to=onnx.TensorProto.FLOAT)
    for kind, value in (("Mul", converter.scale), ("Add", converter.offset)):
        if value is not None:
            # One value, or one per channel.
            x = graph.add(kind, x, graph.constant(np.float32(value).reshape(-1, 1, 1)))
    return x


def _backbone(graph, backbone, x, mask):
    embedding = backbone.position_embedding_layer
    height, width = embedding.grid_shape
    # Convolutional blocks work on the grid of tokens, transformer blocks on a sequence.
    on_grid = True
    if embedding.kind != "none" and embedding.add:
        values = _numpy(embedding.embedding).reshape(height, width, -1).transpose(2, 0, 1)
        values = graph.weight(values[None])
        x = graph.add("Add", x, values if mask is None else mask.cut(graph, values, 2))
    positions = _positions(backbone)
    count = height * width if mask is None else None
    for i, block in enumerate(backbone.blocks):
        if isinstance(block, ConvBlock):
            if not on_grid:
                rows = -1 if mask else height
                x = graph.transpose(
                    graph.reshape(x, 0, rows, width, backbone.hidden_dim), 0, 3, 1, 2
                )
                on_grid = True
            x = _conv_block(graph, block, x, mask)
            continue
        if on_grid:
            x, on_grid = _sequence(graph, x, backbone.hidden_dim, count), False
        x = _transformer_block(graph, block, x, count, positions.get(i), mask)
    if on_grid:
        x = _sequence(graph, x, backbone.hidden_dim, count)
    return _layer_norm(graph, backbone.layer_norm, x)


def _positions(backbone):
    """What each transformer block adds to its tokens, if each adds its own: constants."""
    import keras

    found = {}
    if backbone.position_norms:
        position = keras.ops.convert_to_tensor(backbone.position_embedding_layer.embedding)
        for i, norm in backbone.position_norms.items():
            position = norm(position)
            found[i] = _numpy(position)
    return found


def _sequence(graph, x, channels, tokens):
    tokens = -1 if tokens is None else tokens
    return graph.transpose(graph.reshape(x, 0, channels, tokens), 0, 2, 1)


def _tokenizer(graph, tokenizer, x):
    plain = tokenizer.design == "plain"
    for conv, ends_stage in zip(tokenizer.convs, tokenizer._ends_stage, strict=True):
        if plain:
            padding = (tokenizer._padding,) * 2
            x = graph.conv(x, _numpy(conv.kernel), stride=tokenizer._stride, padding=padding)
        else:
            x = _conv_norm(graph, conv, x)
        if ends_stage:
            x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        if ends_stage or tokenizer.design != "separable":
            x = graph.add("Relu", x)
    return x


def _conv_norm(graph, conv_norm, x):
    """Adds a convolution with its batch normalisation folded in."""
    kernel, bias = conv_norm.fused_weights()
    sides = kernel.shape[:2]
    # As "same" pads: rows and columns before, and after.
    padding = [(side - 1) // 2 for side in sides], [side // 2 for side in sides]
    if conv_norm.filters is None:
        return graph.depthwise_conv(x, kernel, bias, padding=padding)
    return graph.conv(x, kernel, bias, padding=padding)


def _conv_block(graph, block, x, mask):
    branch = x
    for conv_norm, activated in zip(block.convs, block._activated, strict=True):
        if mask is not None:
            branch = graph.add("Mul", branch, mask.over(graph, 1, 3))
        branch = _conv_norm(graph, conv_norm, branch)
        branch = graph.gelu(branch) if activated else branch
    return graph.add("Add", x, branch)


def _transformer_block(graph, block, x, tokens, position, mask):
    normed = _layer_norm(graph, block.attention_norm, x)
    if position is not None:
        position = graph.weight(position)
        position = position if mask is None else mask.cut(graph, position, 1)
        normed = graph.add("Add", normed, position)
    attended = attention(graph, block.attention, normed, tokens, mask)
    x = _layer_norm(graph, block.mlp_norm, graph.add("Add", x, attended))
    hidden = graph.gelu(_dense(graph, block.mlp_hidden, x))
    hidden = _dense(graph, block.mlp_output, hidden)
    if block.context_broadcast:
        if mask is None:
            mean = graph.add("ReduceMean", hidden, axes=[1], keepdims=1)
        else:
            mean = mask.mean(graph, hidden)
        hidden = graph.add("Mul", graph.add("Add", hidden, mean), graph.constant(np.float32(0.5)))
    return graph.add("Add", x, hidden)


def _head(graph, classifier, x, mask):
    """Adds the pooling and the dense layer."""
    width = classifier.output_dense.kernel.shape[0]
    pool = lama if isinstance(classifier.pooler, LAMAPooling) else _sequence_pooling
    pooled = graph.reshape(pool(graph, classifier.pooler, x, mask), 0, width)
    return _dense(graph, classifier.output_dense, pooled)


def _sequence_pooling(graph, pooler, x, mask):
    """Adds sequence pooling: `(batch, 1, channels)`."""
    scores = _dense(graph, pooler.scores, x)  # (batch, tokens, 1)
    if mask is not None:
        scores = graph.add("Add", scores, mask.bias(graph, 2))
    weights = graph.transpose(graph.add("Softmax", scores, axis=1), 0, 2, 1)
    return graph.add("MatMul", weights, x)


def _dense(graph, layer, x):
    return graph.dense(x, _numpy(layer.kernel), _numpy(layer.bias) if layer.use_bias else None)


def _layer_norm(graph, layer, x):
    return graph.layer_norm(x, _numpy(layer.gamma), _numpy(layer.beta), layer.epsilon)


def _numpy(value):
    import keras

    return np.asarray(keras.ops.convert_to_numpy(value), "float32")
