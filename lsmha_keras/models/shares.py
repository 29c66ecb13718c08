"""Batches that several devices share."""

import keras


def devices_per_batch():
    """Returns among how many devices Keras divides every batch; 1 without a distribution."""
    distribution = keras.distribution.distribution()
    name = getattr(distribution, "batch_dim_name", None)
    if name is None:
        return 1
    mesh = distribution.device_mesh
    return mesh.shape[mesh.axis_names.index(name)]


def check_shares(count):
    """Refuses a batch that Keras 3.15 cannot divide: JAX gives every device as many images.

    Args:
        count: int, images of the batch.

    Raises:
        ValueError: if they are no multiple of the devices.
    """
    devices = devices_per_batch()
    if count % devices:
        raise ValueError(
            f"Each of {devices} devices gets as many images of a batch: `batch_size` and the "
            f"number of images must be multiples of {devices}. `predict` of arrays and "
            "`lsmha_keras.evaluate` fill the last batch up themselves. "
            f"Received: a batch of {count} images"
        )
