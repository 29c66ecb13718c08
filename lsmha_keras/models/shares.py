"""Batches that several devices share."""

import keras

from lsmha_keras.errors import InputError


def devices_per_batch(model):
    """Returns among how many devices Keras divides every batch of a model; 1 if it does not.

    Args:
        model: Keras model. On TensorFlow the strategy counts in whose scope it was made, on JAX
            the distribution that is set.
    """
    if keras.config.backend() == "tensorflow":
        return model.distribute_strategy.num_replicas_in_sync
    distribution = keras.distribution.distribution()
    name = getattr(distribution, "batch_dim_name", None)
    if name is None:
        return 1
    mesh = distribution.device_mesh
    return mesh.shape[mesh.axis_names.index(name)]


def check_shares(count, devices):
    """Refuses a batch that cannot be divided evenly.

    JAX gives every device as many images. TensorFlow's `MirroredStrategy` takes the mean of the
    devices' gradients, in which the images of a smaller share would count more, and fails where a
    device gets none or the first batch is uneven (Keras 3.15.1, TensorFlow 2.21).

    Args:
        count: int, images of the batch.
        devices: int, what `devices_per_batch` returned.

    Raises:
        ValueError: if they are no multiple of the devices.
    """
    if count % devices:
        raise InputError(
            f"Each of {devices} devices gets as many images of a batch: `batch_size` and the "
            f"number of images must be multiples of {devices}. `predict` of arrays and "
            "`lsmha_keras.evaluate` fill the last batch up themselves. "
            f"Received: a batch of {count} images"
        )
