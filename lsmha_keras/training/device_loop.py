"""Training steps on the device: what the loops of JAX and PyTorch share."""

import keras
import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.training.recipe_data import Visit


class DeviceLoop:
    """Runs many training steps in one call, with images and augmentation on the device.

    All images are kept on the device as uint8. The order of an epoch is a permutation drawn there,
    and a batch is a gather. All random numbers follow from the seed and the step, or from the saved
    state, so a run can continue from any step. `device_loop_class` returns the backend's subclass.

    Args:
        model: compiled `CCTImageClassifier`, whose optimiser is built and has a number as its
            learning rate.
        source: `ImageDataset` with images of the model's size.
        layers: list of augmentation layers of this package.
        batch_size: int.
        schedule: `keras.optimizers.schedules.LearningRateSchedule` or a float.
        seed: int.
        visit: `Visit` that holds what earlier runs left on the device.
        program_key: str or None, key of the compiled program in the visit. Runs may share a program
            if their arguments are equal except for the seed and the values of the weights.

    Attributes:
        steps_per_epoch: int; images that do not fill a batch are left out of an epoch.
    """

    def __init__(
        self, model, source, layers, batch_size, schedule, seed, visit=None, program_key=None
    ):
        self.model, self.layers = model, layers
        self.batch_size, self.schedule = batch_size, schedule
        self.steps_per_epoch = len(source) // batch_size
        self._seed, self._count = seed, len(source)
        self._num_classes = len(source.class_names)
        self._optimizer = model.optimizer
        self._inner = getattr(self._optimizer, "inner_optimizer", self._optimizer)
        converter = model.preprocessor.image_converter
        self._scale, self._offset = (
            np.asarray(default if value is None else value, "float32")
            for value, default in ((converter.scale, 1.0), (converter.offset, 0.0))
        )
        visit = Visit() if visit is None else visit
        self._images, self._labels = visit.images(source, self._put)
        self._set_up(visit, program_key)

    def run(self, step, count, position, pace):
        """Runs steps of one epoch.

        Args:
            step: int, the first step, counted from the beginning of epoch 0.
            count: int, number of steps.
            position: float, the step of the schedule for the first one.
            pace: float, steps of the schedule per training step.

        Returns:
            The sums over the steps of the loss and of the accuracy, two floats, and the first step
            whose loss was not finite, an int, or None.
        """
        raise NotImplementedError

    def learning_rate(self, position):
        """Returns the learning rate at a step of the schedule, a float."""
        rate = self.schedule
        with keras.device("cpu"):  # not worth a round trip to the device
            return float(rate(np.float32(position)) if callable(rate) else rate)

    def sync(self):
        """Copies the state into the model and its optimiser."""
        raise NotImplementedError

    def attention(self):
        """Returns the name of the attention kernel that the steps call, a str."""
        raise NotImplementedError

    def _put(self, array):
        """Returns a NumPy array as a tensor on the device."""
        raise NotImplementedError

    def _set_up(self, visit, program_key):
        """Compiles the step, or takes the compiled one from the visit."""
        raise NotImplementedError


def device_loop_class():
    """Returns the subclass of `DeviceLoop` for the backend.

    Raises:
        ValueError: if the backend is neither jax nor torch.

    Example:

    ```python
    model = build_model(recipe, source)
    compile_model(model, recipe)
    loop = device_loop_class()(model, source, layers=[], batch_size=16, schedule=1e-3, seed=0)
    loss, hits, bad = loop.run(0, 2, position=0.0, pace=1.0)
    ```
    """
    backend = keras.backend.backend()
    if backend == "jax":
        from lsmha_keras.training.jax_device_loop import JaxDeviceLoop

        return JaxDeviceLoop
    if backend == "torch":
        from lsmha_keras.training.torch_device_loop import TorchDeviceLoop

        return TorchDeviceLoop
    raise InputError(
        "Training on the device takes the jax or the torch backend (KERAS_BACKEND=jax). "
        f"Received: {backend}"
    )
