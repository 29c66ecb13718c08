"""The readouts of the blocks of a model, as arrays."""

import hashlib
import json
import os
import pathlib

import numpy as np

from lsmha_keras.files import write_atomically

# Name in a preset's directory.
FILE_NAME = "shp_readouts.npz"
_ARRAYS = ("pool_kernel", "pool_bias", "kernel")


class BlockReadouts:
    """For each block a sequence pooling and a linear layer without bias, on its head outputs.

    `a = softmax_over_tokens(A w + b)`, `p = sum_t a_t A_t`, `logits = p W`, where A are the head
    outputs of a block, next to each other: head h owns columns `[h head_dim, (h + 1) head_dim)`.

    Args:
        weights: `{block: (w, b, W)}` with arrays of shapes `(inner, 1)`, `(1,)` and
            `(inner, labels)`, where inner is heads times head_dim.
        accuracy: `{block: float}`, accuracies in 0 .. 1, or `None`.
        label_names: list of str or `None`.
        epochs: int, how long they were fitted, or `None` if that is not known.

    Raises:
        ValueError: if there are no blocks or the shapes do not fit.

    Example:

    ```python
    readouts = lsmha_keras.fit_readout(model, "cifar100")
    readouts.save("readouts.npz")
    readouts = BlockReadouts.load("readouts.npz")
    print(readouts.accuracy)
    ```
    """

    def __init__(self, weights, accuracy=None, label_names=None, epochs=None):
        self.weights = {
            int(block): tuple(np.asarray(array, "float32") for array in arrays)
            for block, arrays in sorted(weights.items(), key=lambda item: int(item[0]))
        }
        if not self.weights:
            raise ValueError("There must be a readout for at least one block. Received: none")
        self.num_labels = next(iter(self.weights.values()))[2].shape[-1]
        for block, arrays in self.weights.items():
            self._check_shapes(block, [array.shape for array in arrays])
        self.accuracy = {int(block): float(value) for block, value in (accuracy or {}).items()}
        self.label_names = None if label_names is None else [str(name) for name in label_names]
        self.epochs = epochs

    @property
    def blocks(self):
        """List of the indices of the blocks, ascending."""
        return list(self.weights)

    def digest(self):
        """Returns a str that is the same for the same weights and no others (SHA-256)."""
        found = hashlib.sha256()
        for block, arrays in self.weights.items():
            found.update(repr([block, *(array.shape for array in arrays)]).encode())
            for array in arrays:
                found.update(array.tobytes())
        return found.hexdigest()

    def save(self, path):
        """Writes the readouts to an `.npz`, or into a preset's directory.

        Args:
            path: a file, or a directory, where the file is called `shp_readouts.npz`. The
                checksums of a preset are brought up to date.
        """
        path = pathlib.Path(path)
        directory = path if path.is_dir() else None
        path = path / FILE_NAME if directory else path
        arrays = {
            f"block_{block}/{name}": array
            for block, arrays in self.weights.items()
            for name, array in zip(_ARRAYS, arrays, strict=True)
        }
        about = {name: getattr(self, name) for name in ("accuracy", "label_names", "epochs")}
        arrays["about"] = json.dumps(about)
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
        if directory and (directory / "config.json").exists():
            from lsmha_keras.presets import write_checksums

            write_checksums(directory)

    @classmethod
    def load(cls, path):
        """Reads what `save` wrote.

        Args:
            path: the file, or the name or directory of a preset that has one.

        Returns:
            A `BlockReadouts`.

        Raises:
            ValueError: if there is no such file, or it is another one.
        """
        path = _find(path)
        with np.load(path) as file:
            arrays = dict(file)
        weights = {}
        try:
            about = json.loads(str(arrays.pop("about")))
            for key in arrays:
                block = int(key.partition("/")[0].removeprefix("block_"))
                weights[block] = tuple(arrays[f"block_{block}/{name}"] for name in _ARRAYS)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"The file was not written by `BlockReadouts.save`. Received: {path}"
            ) from error
        return cls(weights, about["accuracy"], about["label_names"], about.get("epochs"))

    def _check_shapes(self, block, shapes):
        inner = shapes[0][0]
        if shapes != [(inner, 1), (1,), (inner, self.num_labels)]:
            raise ValueError(
                "A readout must have arrays of shapes (inner, 1), (1,) and (inner, labels), with "
                f"as many labels in every block. Received: block {block} with shapes {shapes}"
            )


def _find(path):
    if os.path.isfile(path):
        return path
    from lsmha_keras.presets import resolve_preset

    directory = pathlib.Path(path) if os.path.isdir(path) else resolve_preset(path)
    if isinstance(directory, dict) or not (directory / FILE_NAME).is_file():
        raise ValueError(
            f"There is no file {FILE_NAME}: fit readouts with `lsmha_keras.fit_readout` and save "
            f"them there. Received: {path}"
        )
    return directory / FILE_NAME
