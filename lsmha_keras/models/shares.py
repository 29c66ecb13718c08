"""Batches that are divided among devices."""

import keras

from lsmha_keras.errors import InputError


def devices_per_batch(model):
    """Returns the number of devices among which Keras divides each batch; 1 if it does not.

    Args:
        model: Keras model. TensorFlow uses the strategy in whose scope the model was made, JAX the
            distribution that is set.
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

    JAX needs equal shares. TensorFlow's `MirroredStrategy` averages the devices' gradients, so that
    images in a smaller share would count more; it fails if a device gets no images or the first
    batch is uneven (Keras 3.15.1, TensorFlow 2.21).

    Args:
        count: int, number of images of the batch.
        devices: int, from `devices_per_batch`.

    Raises:
        ValueError: if `count` is not a multiple of `devices`.
    """
    if count % devices:
        raise InputError(
            f"{devices} devices share each batch evenly: `batch_size` and the number of images "
            f"must be multiples of {devices}. `predict` on arrays and `lsmha_keras.evaluate` pad "
            "the last batch themselves. "
            f"Received: a batch of {count} images"
        )
