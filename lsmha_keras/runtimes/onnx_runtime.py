"""Runs an ONNX file in onnxruntime."""

from lsmha_keras._imports import needed_package
from lsmha_keras.errors import InputError
from lsmha_keras.runtimes.description import KEY, Description


class OnnxRuntime:
    """A classifier in onnxruntime, on the CPU. Several threads may call it at once.

    Args:
        path: the `.onnx` file, as `lsmha_keras.export` writes it.
        num_threads: int, number of threads of this model, shared by all callers.

    Raises:
        ImportError: if onnxruntime is missing.
        ValueError: if the file is damaged, or `lsmha_keras.export` did not write it.

    Example:

    ```python
    runtime = OnnxRuntime("exported/model.onnx", num_threads=1)
    runtime.run(np.zeros((1, 32, 32, 3), "uint8"))
    ```
    """

    name = "onnxruntime"

    def __init__(self, path, num_threads):
        onnxruntime = needed_package("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        # Spinning threads would take cores from the user's other models and threads.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no other base class
            raise InputError(
                f"onnxruntime cannot read the file; export the model again. Received: {path} "
                f"({error})"
            ) from error
        text = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        self.description = Description.from_json(text, path)
        self._input = self.session.get_inputs()[0].name

    def run(self, images):
        """Returns the outputs `(batch, classes)` of images `(batch, height, width, channels)`."""
        return self.session.run(None, {self._input: images})[0]
