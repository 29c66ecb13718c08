"""Whether a recipe is trained with its images on the device."""

import keras

from lsmha_keras.data.open_for_model import model_image_size

# Of the device's memory, the rest being for the model.
_SHARE_FOR_IMAGES = 0.3


def is_on_device(recipe, source, policy, callbacks=(), timed=False, say=print):
    """Decides where the images lie while a recipe is trained.

    With `data.placement = "auto"` they lie on the device if it is a GPU and nothing is in the way.

    Args:
        recipe: `Recipe`.
        source: `ImageDataset` to train on.
        policy: `AugmentationPolicy` or None.
        callbacks: Keras callbacks, which only training from the host can call.
        timed: bool, whether there is a limit of time, which only training on the device keeps to;
            "auto" then takes a CPU for a device too.
        say: function that is told why "auto" leaves images on the host of a GPU.

    Returns:
        bool.

    Raises:
        ValueError: if the device is asked for, or is needed for the limit of time, and something
            is in the way.
    """
    placement = recipe.data.placement
    if placement == "host":
        if timed:
            raise ValueError(
                "A limit of time needs the images on the device. "
                'Received: data.placement="host" with a limit'
            )
        return False
    obstacle = _obstacle(recipe, source, policy, callbacks)
    if placement == "device" or timed:
        if obstacle:
            raise ValueError(
                f"The images cannot lie on the device{', as a limit of time needs' * timed}: "
                f"{obstacle}. Received: data.placement={placement!r}"
            )
        return True
    if not _has_gpu():
        return False
    if obstacle:
        say(f"The images stay on the host: {obstacle}.")
    return not obstacle


def _obstacle(recipe, source, policy, callbacks):
    backend = keras.backend.backend()
    if backend != "jax":
        return f"that takes the jax backend (KERAS_BACKEND=jax), not {backend}"
    if recipe.runtime.devices > 1:
        return f"that takes one device, not runtime.devices={recipe.runtime.devices}"
    if callbacks:
        return f"Keras callbacks cannot be called there, {len(callbacks)} given"
    if policy is not None and not policy.reproducible:
        return "only this package's augmentation runs there"
    shape = recipe.model.image_shape or model_image_size(recipe.model.preset)
    if tuple(shape[:2]) != tuple(source.image_shape[:2]):
        return (
            f"the model takes {shape[0]}x{shape[1]} pixels and the images have "
            f"{source.image_shape[0]}x{source.image_shape[1]}; data.image_size resizes them"
        )
    height, width, channels = source.image_shape
    needed, room = len(source) * height * width * channels, _room()
    if room is not None and needed > room:
        return f"they take {needed / 2**20:,.0f} MiB, and there is room for {room / 2**20:,.0f} MiB"
    return None


def _has_gpu():
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.default_backend() == "gpu"


def _room():
    import jax

    statistics = jax.devices()[0].memory_stats() or {}
    limit = statistics.get("bytes_limit")
    return None if limit is None else _SHARE_FOR_IMAGES * limit
