"""The devices that a benchmark can run on."""

import keras


def list_devices():
    """Lists the devices of the current backend by Keras's names, such as "gpu:0" and "cpu:0".

    Returns:
        A list of str; the first is the one that Keras uses by itself.

    Example:

    ```python
    list_devices()  # ["cpu:0"] where there is no accelerator
    ```
    """
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        names = [device.name for device in tf.config.list_logical_devices("GPU")]
        names = [name.removeprefix("/device:").lower() for name in names]
    elif backend == "jax":
        import jax

        # The index, not `id`: among several processes ids go on from one to the next.
        names = [f"{jax.default_backend()}:{i}" for i in range(jax.local_device_count())]
    else:
        import torch

        names = [f"gpu:{i}" for i in range(torch.cuda.device_count())]
    return list(dict.fromkeys([*names, "cpu:0"]))


def find_device(name=None):
    """Finds a device.

    Args:
        name: str such as "cpu" or "gpu:0", "cuda" for "gpu"; `None` is the one Keras uses.

    Returns:
        str, one of `list_devices()`.

    Raises:
        ValueError: if it is not there; those that are are named.
    """
    devices = list_devices()
    if name is None:
        return devices[0]
    kind, _, number = name.lower().replace("cuda", "gpu").partition(":")
    found = f"{kind}:{number or 0}"
    if found not in devices:
        raise ValueError(
            f"`device` must be one that the {keras.config.backend()} backend has: "
            f"{', '.join(devices)}. Received: device={name!r}"
        )
    return found
