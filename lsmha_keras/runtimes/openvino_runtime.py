"""Runs an ONNX file, or a model in OpenVINO's format, in OpenVINO."""

import threading

from lsmha_keras._imports import needed_package
from lsmha_keras.errors import InputError
from lsmha_keras.runtimes.description import KEY, Description


class OpenvinoRuntime:
    """A classifier in OpenVINO, on the CPU. Several threads may call it at once.

    Args:
        path: the `.onnx` file or the `.xml` file, as `lsmha_keras.export` writes it.
        num_threads: int, number of threads of this model, shared by all callers.

    Raises:
        ImportError: if OpenVINO is missing.
        ValueError: if the file is damaged, or `lsmha_keras.export` did not write it.

    Example:

    ```python
    runtime = OpenvinoRuntime("exported/model.onnx", num_threads=1)
    runtime.run(np.zeros((1, 32, 32, 3), "uint8"))
    ```
    """

    name = "openvino"

    def __init__(self, path, num_threads):
        openvino = needed_package("openvino")
        core = openvino.Core()
        settings = {
            # The default is bfloat16 where the processor has it: logits were off by 0.02.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": num_threads,
        }
        try:
            model = core.read_model(str(path))
            # Where OpenVINO's ONNX importer puts the metadata.
            where = ["framework", KEY]
            text = model.get_rt_info(where).astype(str) if model.has_rt_info(where) else None
            self._model = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise InputError(
                f"OpenVINO cannot read the file; export the model again. Received: {path} ({error})"
            ) from error
        self.description = Description.from_json(text, path)
        self._requests = threading.local()

    def run(self, images):
        """Returns the outputs `(batch, classes)` of images `(batch, height, width, channels)`."""
        request = getattr(self._requests, "request", None)
        if request is None:  # a request holds the memory of one run
            request = self._requests.request = self._model.create_infer_request()
        # Copied, as the next run in this thread reuses the memory.
        return request.infer({0: images}, share_outputs=True)[0].copy()
