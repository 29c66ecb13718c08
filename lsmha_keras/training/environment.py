"""Describes the machine and the software a model was trained with."""

import importlib.metadata
import os
import pathlib
import platform

import keras

_PACKAGES = ("keras", "keras-hub", "numpy", "tensorflow", "jax", "torch")


def describe_hardware():
    """Names the processor, its usable cores and the accelerators of the backend.

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
    """Lists versions of Python and of the packages that were in use.

    Returns:
        dict of str to str; other backends than the one in use are left out.
    """
    backend = keras.backend.backend()
    names = [n for n in _PACKAGES if n == backend or n not in ("tensorflow", "jax", "torch")]
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"  # installed under another name, such as tensorflow-cpu
    from lsmha_keras import __version__

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
