"""The data of a recipe, and what the runs of one process share."""

import json

import numpy as np

from lsmha_keras.data.open_dataset import model_image_size, open_dataset_for_model
from lsmha_keras.errors import InputError

PARTS = ("train", "validation", "test")


def open_recipe_data(recipe, data_dir=None, parts=PARTS):
    """Opens the data of a recipe's `[data]`.

    Args:
        recipe: `Recipe`.
        data_dir: folder that holds the data, or None.
        parts: which of "train", "validation" and "test" to open.

    Returns:
        A dict from part to `ImageDataset`, without parts that have no split in the recipe.

    Raises:
        ValueError: if the data cannot be found, or the splits have different classes.

    Example:

    ```python
    sources = open_recipe_data(recipe, parts=["train", "validation"])
    ```
    """
    data, model = recipe.data, recipe.model
    splits = {part: getattr(data, f"{part}_split") for part in parts}
    sources = {
        part: open_dataset_for_model(
            data.name,
            split,
            data_dir,
            data.image_size,
            lambda: model.image_shape[:2] if model.image_shape else model_image_size(model.preset),
        )
        for part, split in splits.items()
        if split is not None
    }
    for part, source in sources.items():
        if source.class_names != sources["train"].class_names:
            raise InputError(
                f"The splits of {data.name} must have the same classes. Received: "
                f"{data.train_split} with {len(sources['train'].class_names)}, {splits[part]} with "
                f"{len(source.class_names)}, or other names"
            )
    return sources


class Visit:
    """Data and compiled programs shared by successive runs in one process.

    Example:

    ```python
    visit = Visit()
    for seed in range(2):
        values = {**recipe.to_dict(), "name": f"seed {seed}", "runtime": {"seed": seed}}
        train(values, output_dir=f"runs/{seed}", visit=visit)
    ```
    """

    def __init__(self):
        self._sources, self._images, self._programs = {}, {}, {}
        self._compile_seconds = {}

    def sources(self, recipe, data_dir):
        """Opens the data of a recipe, unless it is open already.

        Args:
            recipe: `Recipe`.
            data_dir: folder that holds the data, or None.

        Returns:
            A dict, as `open_recipe_data`.
        """
        data = {**recipe.to_dict()["data"], "batch_size": None, "placement": None}
        # Images of mixed sizes are resized to the model's, so that is part of the key.
        size = recipe.model.image_shape or model_image_size(recipe.model.preset)
        key = _text([data, list(size)[:2], str(data_dir)])
        if key not in self._sources:
            self._sources[key] = open_recipe_data(recipe, data_dir)
        return self._sources[key]

    def images(self, source, put):
        """Puts all images and labels on the device, unless they are there already.

        Args:
            source: `ImageDataset`.
            put: function from a NumPy array to a tensor on the device.

        Returns:
            `(images, height, width, channels)` uint8 and `(images,)` int32, on the device.
        """
        # The source is kept, so that its `id` cannot be reused.
        if id(source) not in self._images:
            arrays = source.load(np.arange(len(source))), source.labels.astype("int32")
            self._images[id(source)] = source, tuple(put(array) for array in arrays)
        return self._images[id(source)][1]

    def program(self, key, make):
        """Returns the program of this key, after making it if necessary.

        Args:
            key: hashable, or None for a program that is not shared.
            make: function without arguments that returns the program.

        Returns:
            The result of `make`.
        """
        if key is None:
            return make()
        if key not in self._programs:
            self._programs[key] = make()
        return self._programs[key]

    def compile_seconds(self, key, seconds):
        """Returns how long the program took to compile in the run that compiled it.

        Args:
            key: as for `program`.
            seconds: float, how long it took in this run, which may have found it compiled already.

        Returns:
            float, in seconds.
        """
        longest = max(seconds, self._compile_seconds.get(key, 0.0))
        self._compile_seconds[key] = longest
        return longest


def program_key(recipe, source):
    """Returns a key for a run's compiled program.

    Args:
        recipe: `Recipe`.
        source: `ImageDataset` to train on.

    Returns:
        str, equal for recipes that differ only in name and seed, on equal data.
    """
    values = recipe.to_dict()
    values.pop("name")
    values["runtime"] = {k: v for k, v in values["runtime"].items() if k != "seed"}
    return _text([values, len(source), source.image_shape, list(source.class_names)])


def _text(value):
    return json.dumps(value, sort_keys=True, default=str)
