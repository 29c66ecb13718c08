"""Resizes photos inside an ONNX graph, bit for bit as Pillow does.

ONNX's `Resize` keeps floats between its two passes; Pillow rounds to 8 bits after each. Pixels
would differ by one, and logits by more than the tolerance of an export. So each pass is a product
with a matrix of Pillow's integer coefficients, computed from the size of the photo. In float64 the
sums of these integers are exact.
"""

import numpy as np

# Pillow's coefficients are integers in units of 2^-22.
_ONE = 2.0**22


def resized(graph, x, size):
    """Adds nodes that do what `lsmha_keras.images.resize_batch` does.

    Args:
        graph: `OnnxGraph`.
        x: str, uint8 images `(batch, channels, height, width)`.
        size: `(height, width)` of the result.

    Returns:
        str, float32 images `(batch, channels, *size)` with whole numbers as values.
    """
    import onnx

    shape = graph.add("Shape", x)
    stored = [graph.add("Gather", shape, graph.constant(np.int64(axis))) for axis in (2, 3)]
    height, width = (graph.constant(np.int64(side)) for side in size)
    # The largest centred part with the proportions of `size`, at least one pixel.
    crops = [
        _largest_part(graph, stored[0], stored[1], height, width),
        _largest_part(graph, stored[1], stored[0], width, height),
    ]
    rows, columns = (
        _coefficients(graph, *sides) for sides in zip(stored, crops, size, strict=True)
    )
    x = graph.add("Cast", x, to=onnx.TensorProto.DOUBLE)
    # Columns first, as Pillow does.
    x = _eight_bits(graph, graph.add("MatMul", x, graph.transpose(columns, 1, 0)))
    x = _eight_bits(graph, graph.add("MatMul", rows, x))
    return graph.add("Cast", x, to=onnx.TensorProto.FLOAT)


def _largest_part(graph, stored, other, wanted, wanted_other):
    """Adds `max(min(stored, other * wanted // wanted_other), 1)`."""
    fitting = graph.add("Div", graph.add("Mul", other, wanted), wanted_other)
    return graph.add("Max", graph.add("Min", stored, fitting), graph.constant(np.int64(1)))


def _coefficients(graph, stored, crop, count):
    """Adds the matrix `(count, stored)` of Pillow's triangle filter for one axis.

    Args:
        graph: `OnnxGraph`.
        stored: str, int64, number of pixels of the image along the axis.
        crop: str, int64, number of pixels in the middle that are kept.
        count: int, number of pixels of the result.
    """
    import onnx

    def double(name):
        return graph.add("Cast", name, to=onnx.TensorProto.DOUBLE)

    def number(value):
        return graph.constant(np.asarray(value, "float64"))

    zero, one, two = (graph.constant(np.int64(value)) for value in range(3))
    start = double(graph.add("Div", graph.add("Sub", stored, crop), two))
    scale = graph.add("Div", double(crop), number(count))
    middles = number(np.arange(count)[:, None] + 0.5)
    middles = graph.add("Add", start, graph.add("Mul", middles, scale))
    pixels = double(graph.add("Range", zero, stored, one))
    distances = graph.add("Abs", graph.add("Add", graph.add("Sub", pixels, middles), number(0.5)))
    # The triangle widens with the scale when shrinking, and keeps its width when enlarging.
    narrowing = graph.add("Div", number(1), graph.add("Max", scale, number(1)))
    weights = graph.add("Sub", number(1), graph.add("Mul", distances, narrowing))
    weights = graph.add("Max", weights, number(0))
    sums = graph.add("ReduceSum", weights, graph.constant(np.array([1], "int64")), keepdims=1)
    weights = graph.add("Mul", graph.add("Div", weights, sums), number(_ONE))
    return graph.add("Floor", graph.add("Add", weights, number(0.5)))


def _eight_bits(graph, sums):
    scaled = graph.add("Mul", sums, graph.constant(np.float64(1 / _ONE)))
    rounded = graph.add("Floor", graph.add("Add", scaled, graph.constant(np.float64(0.5))))
    return graph.add(
        "Clip", rounded, graph.constant(np.float64(0)), graph.constant(np.float64(255))
    )
