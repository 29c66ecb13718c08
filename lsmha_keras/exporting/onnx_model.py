"""Builds the ONNX graph of a classifier from the structure of the model."""

import numpy as np

from lsmha_keras.exporting.flat_model import activation_of
from lsmha_keras.exporting.onnx_attention import attention
from lsmha_keras.exporting.onnx_graph import IR_VERSION, OPSET, OnnxGraph, resized
from lsmha_keras.layers.conv_block import ConvBlock

INPUT, OUTPUT = "images", "outputs"


def onnx_model(classifier, softmax=False, half=True, any_size=False):
    """Builds the ONNX graph of a classifier, preprocessing included.

    It takes uint8 images `(batch, height, width, channels)` of the model's size, for any batch, and
    returns what `predict` returns, computed in float32. Convolutional blocks and LoRA are folded.

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
    height, width, channels = classifier.image_shape
    x = graph.transpose(INPUT, 0, 3, 1, 2)
    if any_size:
        x = resized(graph, x, (height, width))
    x = _normalised(graph, classifier.preprocessor.image_converter, x)
    x = _backbone(graph, fused.backbone, x)
    x = _head(graph, fused, x)
    activation = "softmax" if softmax else activation_of(classifier)
    if activation != "linear":
        x = graph.add(activation.capitalize(), x)
    graph.nodes.append(onnx.helper.make_node("Identity", [x], [OUTPUT], OUTPUT))
    sides = ["height", "width"] if any_size else [height, width]
    shapes = ["batch", *sides, channels], ["batch", classifier.num_classes]
    types = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
    ends = [
        onnx.helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in zip((INPUT, OUTPUT), types, shapes, strict=True)
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "classifier", ends[:1], ends[1:], graph.initializers),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="lsmha_keras",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _normalised(graph, converter, x):
    """Normalises images with values in 0 .. 255, channels first."""
    import onnx

    x = graph.add("Cast", x, to=onnx.TensorProto.FLOAT)
    for kind, value in (("Mul", converter.scale), ("Add", converter.offset)):
        if value is not None:
            # One value, or one per channel.
            x = graph.add(kind, x, graph.constant(np.float32(value).reshape(-1, 1, 1)))
    return x


def _backbone(graph, backbone, x):
    x = _tokenizer(graph, backbone.tokenizer, x)
    embedding = backbone.position_embedding_layer
    height, width = embedding.grid_shape
    # Convolutional blocks work on the grid of tokens, transformer blocks on a sequence.
    on_grid = True
    if embedding.kind != "none" and embedding.add:
        values = _numpy(embedding.embedding).reshape(height, width, -1).transpose(2, 0, 1)
        x = graph.add("Add", x, graph.weight(values[None]))
    positions = _positions(backbone)
    for i, block in enumerate(backbone.blocks):
        if isinstance(block, ConvBlock):
            if not on_grid:
                x = graph.transpose(
                    graph.reshape(x, 0, height, width, backbone.hidden_dim), 0, 3, 1, 2
                )
                on_grid = True
            x = _conv_block(graph, block, x)
            continue
        if on_grid:
            x, on_grid = _sequence(graph, x, backbone.hidden_dim, height * width), False
        x = _transformer_block(graph, block, x, height * width, positions.get(i))
    if on_grid:
        x = _sequence(graph, x, backbone.hidden_dim, height * width)
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
    side = conv_norm.kernel_size
    padding = ((side - 1) // 2, side // 2)  # as "same" pads
    if conv_norm.filters is None:
        return graph.depthwise_conv(x, kernel, bias, padding=padding)
    return graph.conv(x, kernel, bias, padding=padding)


def _conv_block(graph, block, x):
    branch = x
    for conv_norm, activated in zip(block.convs, block._activated, strict=True):
        branch = _conv_norm(graph, conv_norm, branch)
        branch = graph.gelu(branch) if activated else branch
    return graph.add("Add", x, branch)


def _transformer_block(graph, block, x, tokens, position):
    normed = _layer_norm(graph, block.attention_norm, x)
    if position is not None:
        normed = graph.add("Add", normed, graph.weight(position))
    attended = attention(graph, block.attention, normed, tokens)
    x = _layer_norm(graph, block.mlp_norm, graph.add("Add", x, attended))
    hidden = graph.gelu(_dense(graph, block.mlp_hidden, x))
    hidden = _dense(graph, block.mlp_output, hidden)
    if block.context_broadcast:
        mean = graph.add("ReduceMean", hidden, axes=[1], keepdims=1)
        hidden = graph.add("Mul", graph.add("Add", hidden, mean), graph.constant(np.float32(0.5)))
    return graph.add("Add", x, hidden)


def _head(graph, classifier, x):
    """Adds sequence pooling and the dense layer."""
    scores = _dense(graph, classifier.pooler.scores, x)  # (batch, tokens, 1)
    weights = graph.transpose(graph.add("Softmax", scores, axis=1), 0, 2, 1)
    pooled = graph.reshape(graph.add("MatMul", weights, x), 0, classifier.backbone.hidden_dim)
    return _dense(graph, classifier.output_dense, pooled)


def _dense(graph, layer, x):
    return graph.dense(x, _numpy(layer.kernel), _numpy(layer.bias) if layer.use_bias else None)


def _layer_norm(graph, layer, x):
    return graph.layer_norm(x, _numpy(layer.gamma), _numpy(layer.beta), layer.epsilon)


def _numpy(value):
    import keras

    return np.asarray(keras.ops.convert_to_numpy(value), "float32")
