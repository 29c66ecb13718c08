"""Builds an ONNX graph node by node."""

import numpy as np

# Old enough for any recent onnxruntime and OpenVINO. 17 is the first with LayerNormalization; the
# exact GELU is built from several nodes, which both runtimes fuse, and so needs no later one.
OPSET = 17
IR_VERSION = 8


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
        """Adds a weight, stored in float16 if `half`, and returns its name as float32."""
        import onnx

        value = np.asarray(value, "float32")
        with np.errstate(over="ignore"):
            rounded = value.astype("float16")
        # Values too large for float16 have become infinite.
        if not self.half or not np.isfinite(rounded).all():
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
            padding: two ints, rows and columns of zeros before and after the image.
        """
        return self._conv(x, np.transpose(kernel, (3, 2, 0, 1)), bias, stride, padding, group=1)

    def depthwise_conv(self, x, kernel, bias=None, padding=(0, 0)):
        """As `conv`, with a kernel `(side, side, channels, 1)` and one filter per channel."""
        kernel = np.transpose(kernel, (2, 3, 0, 1))
        return self._conv(x, kernel, bias, 1, padding, group=len(kernel))

    def _conv(self, x, kernel, bias, stride, padding, group):
        inputs = [x, self.weight(np.ascontiguousarray(kernel))]
        inputs += [] if bias is None else [self.weight(bias)]
        before, after = padding
        return self.add(
            "Conv",
            *inputs,
            kernel_shape=list(kernel.shape[2:]),
            strides=[stride, stride],
            pads=[before, before, after, after],
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
