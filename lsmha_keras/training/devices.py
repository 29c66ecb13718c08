"""Devices for training: which ones there are, and how a recipe uses them."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform

import keras

from lsmha_keras import __version__
from lsmha_keras._imports import import_quietly
from lsmha_keras.data.open_dataset import model_image_size
from lsmha_keras.data.sequences import SequenceDataset
from lsmha_keras.errors import InputError

# Fraction of the device's memory; the model, its gradients and activations need the rest.
_SHARE_FOR_IMAGES = 0.3
_PACKAGES = ("keras", "keras-hub", "numpy", "tensorflow", "jax", "torch")


@contextlib.contextmanager
def recipe_runtime(section):
    """Sets seed, precision and devices of a recipe, and restores the precision afterwards.

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
    # Keras imports TensorFlow on every backend, to seed it; KerasHub imports it too.
    import_quietly("keras_hub")
    keras.utils.set_random_seed(section.seed)
    keras.config.set_dtype_policy(section.precision)
    try:
        with device_scope(section.devices):
            yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def device_scope(devices):
    """Splits every batch over several devices, for models made inside.

    Uses `keras.distribution.DataParallel` on jax and `tf.distribute.MirroredStrategy` on
    tensorflow.

    Args:
        devices: int, number of devices; 1 changes nothing.

    Yields:
        None. Make, compile and fit the model inside.

    Raises:
        ValueError: if there are fewer devices, or the backend is torch.

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
        raise InputError(
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
        raise InputError(
            f"There are {len(names)} devices here: {', '.join(names)}. "
            f"Received: runtime.devices={count}"
        )
    return names[:count]


def is_on_device(recipe, source, policy, callbacks=(), timed=False, log=print):
    """Decides whether the training images are kept on the device.

    With `data.placement = "auto"` they are if it is a GPU and nothing prevents it.

    Args:
        recipe: `Recipe`.
        source: `ImageDataset` to train on.
        policy: `AugmentationPolicy` or None.
        callbacks: Keras callbacks; only training from the host can call them.
        timed: bool, whether there is a time limit. Only training on the device can keep to one, and
            "auto" then means the device even if it is a CPU.
        log: function that gets a str: why "auto" keeps the images off a GPU.

    Returns:
        bool.

    Raises:
        ValueError: if the device is requested, or required by a time limit, and cannot be used; or
            if it does not support the recipe's precision.
    """
    placement = recipe.data.placement
    if placement == "host":
        if timed:
            raise InputError(
                "A limit of time needs the images on the device. "
                'Received: data.placement="host" with a limit'
            )
        return False
    obstacle = _obstacle(recipe, source, policy, callbacks)
    if placement == "device" or timed:
        if obstacle:
            raise InputError(
                f"The images cannot lie on the device{', as a limit of time needs' * timed}: "
                f"{obstacle}. Received: data.placement={placement!r}"
            )
    elif not has_gpu():
        return False
    elif obstacle:
        log(f"The images stay on the host: {obstacle}.")
        return False
    _check_precision(recipe.runtime.precision)
    return True


def _check_precision(precision):
    name, capability = gpu_generation()
    if "bfloat16" in precision and capability and capability < 8:
        raise InputError(
            f"{name} has no bfloat16; set runtime.precision to mixed_float16. "
            f"Received: runtime.precision={precision!r}"
        )


def _obstacle(recipe, source, policy, callbacks):
    backend = keras.backend.backend()
    if backend not in ("jax", "torch"):
        return f"that takes the jax or torch backend (KERAS_BACKEND=jax), not {backend}"
    if recipe.runtime.devices > 1:
        return f"that takes one device, not runtime.devices={recipe.runtime.devices}"
    if callbacks:
        return f"Keras callbacks cannot be called there, {len(callbacks)} given"
    schedule = recipe.schedule
    if schedule.token_keep_epochs or schedule.expert_epochs:
        return "callbacks follow token_keep_epochs and expert_epochs, which cannot be called there"
    if policy is not None and not policy.reproducible:
        return "only this package's augmentation runs there"
    if isinstance(source, SequenceDataset):
        return "only images are trained on there, no texts or series"
    if recipe.loss.class_weights != "none":
        return "classes have no weights there"
    shape = recipe.model.image_shape or model_image_size(recipe.model.preset)
    if tuple(shape[:2]) != tuple(source.image_shape[:2]):
        return (
            f"the model takes {shape[0]}x{shape[1]} pixels and the images have "
            f"{source.image_shape[0]}x{source.image_shape[1]}; data.image_size resizes them"
        )
    height, width, channels = source.image_shape
    needed, room = len(source) * height * width * channels, _room()
    if room is not None and needed > room:
        return f"they take {_mib(needed)}, and there is room for {_mib(room)}"
    return None


def _mib(count):
    return f"{count / 2**20:,.{0 if count > 2**24 else 2}f} MiB"


def _room():
    memory = memory_bytes()
    return None if memory is None else _SHARE_FOR_IMAGES * memory


def has_gpu():
    """Returns whether the backend, jax or torch, computes on a GPU; False on tensorflow."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.default_backend() == "gpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    return False


def memory_bytes():
    """Returns the memory of the GPU in bytes, an int, or None if it is unknown."""
    if not has_gpu():
        return None
    if keras.backend.backend() == "jax":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    import torch

    return torch.cuda.mem_get_info()[1]


def peak_bytes():
    """Returns the peak memory use of the GPU in bytes, an int, or None if it is unknown."""
    if not has_gpu():
        return None
    if keras.backend.backend() == "jax":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    import torch

    return torch.cuda.max_memory_allocated()


def gpu_generation():
    """Returns the name (str) and the compute capability (float) of the GPU, or two Nones.

    Ampere, 8.0, is the first generation with bfloat16. On jax, AMD's GPUs have no capability.
    """
    if not has_gpu():
        return None, None
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        capability = getattr(device, "compute_capability", None)
        return device.device_kind, float(capability) if capability else None
    import torch

    major, minor = torch.cuda.get_device_capability()
    return torch.cuda.get_device_name(), major + minor / 10


def describe_hardware():
    """Describes the processor, its usable cores and the backend's accelerators.

    Returns:
        str, such as "AMD EPYC 7B13, 2 cores".

    Example:
        >>> "core" in describe_hardware()
        True
    """
    # A container or `taskset` may leave fewer cores than the machine has.
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count()
    parts = [_processor(), f"{cores} core{'s' if cores != 1 else ''}", *_accelerators()]
    return ", ".join(parts)


def describe_versions():
    """Lists the versions of Python and of the packages in use.

    Returns:
        dict of str to str; of the backends, it holds only the current one.
    """
    backend = keras.backend.backend()
    names = [n for n in _PACKAGES if n == backend or n not in ("tensorflow", "jax", "torch")]
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"  # installed under another name, such as tensorflow-cpu

    return {**versions, "lsmha-keras": __version__}


def _processor():
    # `platform.processor()` is empty on many Linux systems.
    path = pathlib.Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _accelerators():
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    elif backend == "jax":
        import jax

        names = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    else:
        import torch

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    names = [name or "GPU" for name in names]
    return [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
