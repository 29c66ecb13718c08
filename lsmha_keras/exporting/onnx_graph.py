"""Builds ONNX graphs: nodes, and the resizing of images."""

import numpy as np

# Old enough for any recent onnxruntime and OpenVINO. 17 is the first with LayerNormalization; the
# exact GELU is built from several nodes, which both runtimes fuse, and so needs no later one.
OPSET = 17
IR_VERSION = 8

# Values of a weight from which on half the bytes are worth another node.
_LARGE = 2**12
# Pillow's coefficients are integers in units of 2^-22.
_ONE = 2.0**22


class OnnxGraph:
    """A graph under construction: each method adds nodes and returns the name of their output.

    Args:
        half: bool, whether to store weights in float16. The graph casts them to float32, which
            runtimes do once, at loading.

    Example:

    ```python
    graph = OnnxGraph(half=True)
    doubled = graph.add("Mul", "images", graph.constant(np.float32(2)))
    ```
    """

    def __init__(self, half):
        self.half = half
        self.nodes, self.initializers = [], []

    def add(self, kind, *inputs, **attributes):
        """Adds a node with one output.

        Args:
            kind: str, ONNX operator, such as "MatMul".
            *inputs: str, names of outputs or constants.
            **attributes: attributes of the operator.

        Returns:
            str, the name of its output.
        """
        import onnx

        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def constant(self, value):
        """Adds an array in its own type and returns its name."""
        import onnx

        name = f"constant_{len(self.initializers)}"
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, value):
        """Adds a weight and returns its name as float32.

        It is stored in float16 if `half`, and also where large arrays lose nothing by it: those of
        presets that were rounded to float16.
        """
        import onnx

        value = np.asarray(value, "float32")
        with np.errstate(over="ignore"):
            rounded = value.astype("float16")
        lossless = value.size >= _LARGE and np.array_equal(rounded.astype("float32"), value)
        # Values too large for float16 have become infinite.
        if not (self.half or lossless) or not np.isfinite(rounded).all():
            return self.constant(value)
        return self.add("Cast", self.constant(rounded), to=onnx.TensorProto.FLOAT)

    def reshape(self, x, *shape):
        """Reshapes; 0 stands for the size of the batch."""
        return self.add("Reshape", x, self.constant(np.array(shape, "int64")))

    def transpose(self, x, *order):
        """Permutes the axes."""
        return self.add("Transpose", x, perm=list(order))

    def dense(self, x, kernel, bias=None):
        """Multiplies by a kernel `(inputs, outputs)` and adds a bias."""
        x = self.add("MatMul", x, self.weight(kernel))
        return x if bias is None else self.add("Add", x, self.weight(bias))

    def conv(self, x, kernel, bias=None, stride=1, padding=(0, 0)):
        """Convolves images `(batch, channels, height, width)`.

        Args:
            x: str.
            kernel: `(side, side, channels, filters)` as in Keras, or `(side, side, channels, 1)`
                for a depthwise convolution.
            bias: `(filters,)` or `None`.
            stride: int.
            padding: what is padded before and after the image: two ints, the same for rows and
                columns, or two pairs of them.
        """
        return self._conv(x, np.transpose(kernel, (3, 2, 0, 1)), bias, stride, padding, group=1)

    def depthwise_conv(self, x, kernel, bias=None, padding=(0, 0)):
        """As `conv`, with a kernel `(side, side, channels, 1)` and one filter per channel."""
        kernel = np.transpose(kernel, (2, 3, 0, 1))
        return self._conv(x, kernel, bias, 1, padding, group=len(kernel))

    def _conv(self, x, kernel, bias, stride, padding, group):
        inputs = [x, self.weight(np.ascontiguousarray(kernel))]
        inputs += [] if bias is None else [self.weight(bias)]
        before, after = ([side] * 2 if isinstance(side, int) else side for side in padding)
        return self.add(
            "Conv",
            *inputs,
            kernel_shape=list(kernel.shape[2:]),
            strides=[stride, stride],
            pads=[*before, *after],
            group=group,
        )

    def layer_norm(self, x, gamma, beta, epsilon):
        """Normalises the last axis."""
        return self.add(
            "LayerNormalization", x, self.weight(gamma), self.weight(beta), axis=-1, epsilon=epsilon
        )

    def gelu(self, x):
        """Adds the exact GELU, `x (1 + erf(x / sqrt(2))) / 2`, in the form that runtimes fuse."""
        erf = self.add("Erf", self.add("Div", x, self.constant(np.float32(2**0.5))))
        product = self.add("Mul", x, self.add("Add", erf, self.constant(np.float32(1))))
        return self.add("Mul", product, self.constant(np.float32(0.5)))


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
