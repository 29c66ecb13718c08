"""How a recipe's model is run."""

import contextlib

import keras

from lsmha_keras.training.devices import device_scope


@contextlib.contextmanager
def recipe_runtime(section):
    """Sets seed, precision and devices, and puts the precision back.

    Args:
        section: `RuntimeSection` of a recipe.

    Example:

    ```python
    with recipe_runtime(recipe.runtime):
        model = build_model(recipe, source)
    ```
    """
    before = keras.config.dtype_policy()
    if section.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(section.seed)
    keras.config.set_dtype_policy(section.precision)
    try:
        with device_scope(section.devices):
            yield
    finally:
        keras.config.set_dtype_policy(before)
