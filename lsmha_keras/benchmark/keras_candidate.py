"""A Keras model as a candidate of a benchmark."""

import functools
import pickle
import warnings

import keras

from lsmha_keras.benchmark.multiply_adds import count_multiply_adds, make_inputs
from lsmha_keras.benchmark.steps import make_step


class KerasCandidate:
    """A Keras model as `predict` runs it, without preprocessing, on the current backend.

    It can be pickled, to be measured in another process.

    Args:
        name: str.
        model: built `keras.Model` that takes one tensor.

    Example:

    ```python
    step = KerasCandidate("mine", model).make_step(batch_size=8)
    step()
    ```
    """

    own_process = False

    def __init__(self, name, model):
        self.name = name
        self.model = model

    def make_step(self, batch_size):
        """Returns a function that runs the model on random images and waits for the result."""
        # As `compile` chooses for `predict`: TensorFlow with or without XLA.
        step = make_step(self.model, self.model, xla=bool(self.model.jit_compile))
        return functools.partial(step, make_inputs(self.model, batch_size))

    def warm_up(self):
        """Runs something small that starts threads and loads libraries."""
        layers = [keras.layers.Conv2D(8, 3), keras.layers.Dense(8)]
        small = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        KerasCandidate("small", small).make_step(1)()

    def count(self):
        """Returns the numbers of parameters and of multiply-adds for one image.

        Returns:
            Two ints and "", or an int, `None` and why the multiply-adds are unknown.
        """
        parameters = self.model.count_params()
        try:
            return parameters, count_multiply_adds(self.model), ""
        except ValueError as error:
            return parameters, None, f"not counted: {error}"

    def copy(self):
        """Returns a copy with new variables, on Keras's current device."""
        return pickle.loads(pickle.dumps(self))

    def __getstate__(self):
        return {"name": self.name, "model": pickle.dumps(self.model)}

    def __setstate__(self, state):
        self.name = state["name"]
        with warnings.catch_warnings():
            # Wrong for KerasHub's tasks, which compile themselves when they are made.
            warnings.filterwarnings("ignore", r"`compile\(\)` was not called")
            self.model = pickle.loads(state["model"])
