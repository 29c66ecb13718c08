"""A PyTorch model as a candidate of a benchmark, whatever Keras's backend."""

import functools

from lsmha_keras.benchmark.peers import use_all_cores
from lsmha_keras.benchmark.steps import make_torch_step
from lsmha_keras.errors import InputError


class TorchCandidate:
    """A PyTorch model in evaluation mode, run eagerly. It can be pickled, for another process.

    Args:
        name: str.
        make: function at the top level of a module; returns a `torch.nn.Module` for images
            `(batch, channels, height, width)`.
        arguments: tuple of picklable arguments for `make`.
        image_shape: `(height, width, channels)`.
        device: str, "cpu:0" or "gpu:0" and so on.

    Raises:
        ValueError: if PyTorch does not have the device.

    Example:

    ```python
    candidate = TorchCandidate("linear", make_linear, (3, 10), image_shape=(32, 32, 3))
    candidate.make_step(batch_size=8)()
    ```
    """

    own_process = True

    def __init__(self, name, make, arguments, image_shape, device="cpu:0"):
        import torch

        if not device.startswith("cpu") and not torch.cuda.is_available():
            raise InputError(
                f"The peer {name} runs in PyTorch, which sees no GPU here: install PyTorch for it, "
                f"or leave the peer out. Received: device={device!r}"
            )
        self.name = name
        self._make, self._arguments = make, arguments
        height, width, channels = image_shape
        self._sample_shape = (channels, height, width)
        self._device = device.replace("gpu", "cuda")

    def copy(self):
        """Returns this object: the model is made in the process that measures it."""
        return self

    def make_step(self, batch_size):
        """Returns a function that runs the model on random images and waits for the result."""
        import torch

        use_all_cores()
        model = self._make(*self._arguments).eval().to(self._device)
        images = torch.rand(batch_size, *self._sample_shape, device=self._device)
        return functools.partial(make_torch_step(model, [], training=False), images)

    def warm_up(self):
        """Runs something small that starts threads and loads libraries."""
        import torch

        torch.nn.Conv2d(self._sample_shape[0], 8, 3)(torch.rand(1, *self._sample_shape))

    def count(self):
        """Returns parameters, multiply-adds of one image and an empty str; see `KerasCandidate`."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        model = self._make(*self._arguments).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *self._sample_shape))
        parameters = sum(weight.numel() for weight in model.parameters())
        return parameters, counter.get_total_flops() // 2, ""
