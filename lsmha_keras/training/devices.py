"""Several devices that share each batch."""

import contextlib

import keras


@contextlib.contextmanager
def device_scope(devices):
    """Builds and trains models on several devices, each with a part of every batch.

    Uses `keras.distribution.DataParallel` on jax and `tf.distribute.MirroredStrategy` on
    tensorflow.

    Args:
        devices: int, how many; 1 changes nothing.

    Yields:
        None. Make, compile and fit the model inside.

    Raises:
        ValueError: if there are fewer devices, or the backend cannot.

    Example:

    ```python
    with device_scope(recipe.runtime.devices):
        model = make_model()
        model.fit(images, labels)
    ```
    """
    backend = keras.backend.backend()
    if devices == 1:
        yield
    elif backend == "jax":
        names = _take(devices, _of_best_kind(keras.distribution.list_devices()))
        before = keras.distribution.distribution()
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names))
        try:
            yield
        finally:
            keras.distribution.set_distribution(before)
    elif backend == "tensorflow":
        import tensorflow as tf

        names = [device.name for device in tf.config.list_logical_devices()]
        strategy = tf.distribute.MirroredStrategy(_take(devices, _of_best_kind(names)))
        with strategy.scope():
            yield
    else:
        raise ValueError(
            f"Keras trains on one device with the {backend} backend; set KERAS_BACKEND to jax or "
            f"tensorflow, or runtime.devices to 1. Received: runtime.devices={devices}"
        )


def _of_best_kind(names):
    # "gpu:0" on jax, "/device:GPU:0" on tensorflow.
    for kind in ("TPU:", "GPU:"):
        if chosen := [name for name in names if kind in name.upper()]:
            return chosen
    return [name for name in names if "CPU:" in name.upper()]


def _take(count, names):
    if len(names) < count:
        raise ValueError(
            f"There are {len(names)} devices here: {', '.join(names)}. "
            f"Received: runtime.devices={count}"
        )
    return names[:count]
