"""Facts about the backend's device: is it a GPU, and what can it do?"""

import keras


def has_gpu():
    """Whether the backend, jax or torch, computes on a GPU; False on tensorflow."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.default_backend() == "gpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    return False


def memory_bytes():
    """Returns the memory of the device in bytes, an int, or None if the backend does not tell."""
    if not has_gpu():
        return None
    if keras.backend.backend() == "jax":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    import torch

    return torch.cuda.mem_get_info()[1]


def peak_bytes():
    """Returns the most memory that was in use, in bytes, or None if the backend does not tell."""
    if not has_gpu():
        return None
    if keras.backend.backend() == "jax":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    import torch

    return torch.cuda.max_memory_allocated()


def gpu_generation():
    """Returns the name and the compute capability of the GPU: a str and a float, or None twice.

    A capability of 8.0 is Ampere, the first with bfloat16. AMD's GPUs have none on jax.
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
