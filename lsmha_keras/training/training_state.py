"""The state of a training run, in one file that is replaced atomically."""

import contextlib
import json
import zipfile

import keras
import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.files import write_atomically

_FORMAT = 1


def save_state(path, model, progress):
    """Saves everything a compiled model needs to continue training.

    That is the variables of the model (weights, running statistics, states of seed generators) and
    of the optimiser (moments, step count, averaged weights).

    Args:
        path: path of the file. An existing file is replaced when the new one is complete and on
            disk: a killed process leaves either the old one or the new one.
        model: compiled `keras.Model` whose optimiser is built.
        progress: dict of JSON values: epoch, history and so on.

    Raises:
        FloatingPointError: if a variable holds a number that is not finite; nothing is written.
        OSError: if the file cannot be written; names it, and on a full disk the space needed.

    Example:

    ```python
    save_state("last.npz", model, {"epoch": 3})
    ```
    """
    arrays = {}
    for key, variable in _variables(model):
        array = keras.ops.convert_to_numpy(variable)
        if "float" in str(variable.dtype):
            # NumPy cannot save bfloat16; float32 holds its values exactly.
            array = array.astype("float64" if array.dtype == np.float64 else "float32")
            if not np.isfinite(array).all():
                raise FloatingPointError(f"{variable.path} holds values that are not finite")
        arrays[key] = array
    _write(path, progress, arrays)


def copy_state(source, target, **progress):
    """Copies a saved state for another run to continue from.

    Args:
        source: path of the file that `save_state` wrote.
        target: path of the copy.
        **progress: values that replace those in the progress.

    Raises:
        ValueError: if `source` is not a training state.

    Example:

    ```python
    copy_state("last.npz", "continued.npz", stopped=False)
    ```
    """
    found, arrays = load_state(source)
    _write(target, {**found, **progress}, arrays)


def _write(path, progress, arrays):
    header = json.dumps({"format": _FORMAT, "progress": progress})
    # Per array: NumPy's header and two entries in the zip archive.
    needed = len(header) * 4 + sum(array.nbytes + 512 for array in arrays.values()) + 1024
    write_atomically(path, lambda file: np.savez(file, header=np.array(header), **arrays), needed)


def load_state(path):
    """Reads what `save_state` wrote.

    Args:
        path: path of the file.

    Returns:
        The `progress` that `save_state` got, and a dict of arrays for `restore_state`.

    Raises:
        ValueError: if the file is not a training state.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        header = json.loads(str(arrays.pop("header")))
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a complete training state. Remove the file to start again. "
            f"Received: {error}"
        ) from error
    if header.get("format") != _FORMAT:
        raise InputError(
            f"{path} was written by another version of lsmha_keras. "
            f"Received: format={header.get('format')}, expected {_FORMAT}"
        )
    return header["progress"], arrays


def restore_state(model, arrays):
    """Assigns the saved values to a model and its optimiser.

    Args:
        model: compiled `keras.Model` of the same architecture whose optimiser is built.
        arrays: dict of arrays from `load_state`.

    Raises:
        ValueError: if the arrays belong to another model; nothing is changed.
    """
    variables = dict(_variables(model))
    wanted = {key: tuple(variable.shape) for key, variable in variables.items()}
    found = {key: array.shape for key, array in arrays.items()}
    if wanted != found:
        key = next(k for k in [*wanted, *found] if wanted.get(k) != found.get(k))
        path = variables[key].path if key in variables else key
        raise InputError(
            f"The saved state belongs to another model: {path} has shape {wanted.get(key)} here. "
            f"Received: {found.get(key)}"
        )
    for key, variable in variables.items():
        variable.assign(arrays[key])


def _variables(model):
    # By position, as Keras numbers the default names of layers through the whole process.
    yield from ((f"model/{i}", v) for i, v in enumerate(model.variables))
    yield from ((f"optimizer/{i}", v) for i, v in enumerate(model.optimizer.variables))


@contextlib.contextmanager
def ema_weights(model):
    """Swaps the moving average of the weights into the model, and the weights back afterwards.

    Does nothing if the optimiser keeps no average.

    Args:
        model: compiled `keras.Model` whose optimiser is built.

    Yields:
        The model.

    Example:

    ```python
    with ema_weights(model):
        model.save_weights("averaged.weights.h5")
    ```
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not getattr(optimizer, "use_ema", False):
        yield model
        return
    # Keras's callback does this on every backend and under a distribution strategy. It is called by
    # hand, as by itself it leaves the weights swapped in `on_epoch_end`, where the state is saved.
    swap = keras.callbacks.SwapEMAWeights()
    swap.set_model(model)
    swap.on_test_begin()
    try:
        yield model
    finally:
        swap.on_test_end()


def cast_to_float32(model):
    """Makes a model that was trained in a lower precision compute in float32.

    Mixed precision makes training faster, with weights in float32. Computing in float32 with them
    gives the same logits on every backend and device; bfloat16 and float16 do not.

    Args:
        model: a `CCTImageClassifier`.

    Returns:
        A new `CCTImageClassifier` with the same weights, compiled as `from_preset` compiles one;
        `model` itself if it computes in float32 already.

    Example:

    ```python
    classifier = lsmha_keras.CCTImageClassifier.from_preset(
        "cct_2_3x2", num_classes=10, dtype="mixed_bfloat16"
    )
    print(cast_to_float32(classifier).compute_dtype)  # float32
    ```
    """
    from lsmha_keras.models import CCTBackbone

    if model.backbone.dtype_policy.name == "float32":
        return model
    backbone = CCTBackbone.from_config({**model.backbone.get_config(), "dtype": "float32"})
    backbone.set_weights(model.backbone.get_weights())
    return model.with_backbone(backbone)
