"""Rewrites the card of a preset from the files beside it."""

import json
import pathlib

from lsmha_keras.checksums import CARD, write_checksums
from lsmha_keras.data.open_dataset import can_open_offline, open_dataset_for_model
from lsmha_keras.errors import InputError, MissingFileError
from lsmha_keras.files import write_atomically
from lsmha_keras.models import CCTClassifier
from lsmha_keras.presets import zoo_dir
from lsmha_keras.text_files import read_json, read_rows
from lsmha_keras.training.evaluate import class_report
from lsmha_keras.training.model_card import model_card
from lsmha_keras.training.recipe import Recipe

_OLD_CARD = "card.md"  # until version 0.1.0


def write_card(directory, **figures):
    """Rewrites `README.md`, `results.json` and the checksums of a preset.

    Args:
        directory: path of a preset that `lsmha train` wrote.
        **figures: values to add to `results.json` or to replace there.

    Raises:
        ValueError: if a file of the preset was changed, or it has no recipe or results.
        OSError: if it cannot be written to.

    Example:

    ```python
    write_card("runs/mine/preset")
    ```
    """
    directory = pathlib.Path(directory)
    model = CCTClassifier.from_preset(str(directory))
    _write(directory, model, figures)


def measure_card(directory, data_dir=None):
    """Rewrites the card like `write_card`, after measuring each class on the card's data.

    Args:
        directory: path of a preset that `lsmha train` wrote.
        data_dir: folder that holds the data. Default: the environment variable LSMHA_DATA_DIR.

    Returns:
        The `ClassReport`.

    Raises:
        FileNotFoundError: if the data is not found; nothing is downloaded.
        ValueError: as `write_card`, and if the accuracy on the data differs from the card's.

    Example:

    ```python
    measure_card("runs/mine/preset", "datasets")
    ```
    """
    directory = pathlib.Path(directory)
    card = _results(directory)
    name = card["dataset"]
    if not can_open_offline(name, data_dir):
        raise MissingFileError(
            f"The data must be in --data-dir or LSMHA_DATA_DIR. Received: dataset={name}"
        )
    model = CCTClassifier.from_preset(str(directory))
    source = open_dataset_for_model(
        name, card["split"], data_dir, None, lambda: model.image_shape[:2]
    )
    report = class_report(model, source)
    accuracy = report.figures["accuracy"]
    if round(100 * abs(accuracy - card["accuracy"]), 9) > 0.1:
        raise InputError(
            f"The card says {card['accuracy']:.2%}; `lsmha zoo verify` gives details. "
            f"Received: {accuracy:.2%} on {name}"
        )
    report.write(directory)
    _write(directory, model, {key: report.figures[key] for key in ("ece", "confidence")})
    return report


def _write(directory, model, figures):
    results = {**_results(directory), **figures}
    recipe = Recipe.from_toml(directory / "recipe.toml")
    per_class = read_rows(directory / "per_class.csv", ["name", "images", "accuracy"])
    shp = []
    # Only for the shipped preset: another directory may have its name.
    if directory.resolve().parent == (zoo_dir() / "presets").resolve():
        shp = read_rows(zoo_dir() / f"results/shp_{directory.name}/blocks.csv", ["snr"])
    text = model_card(recipe, model, results, per_class, shp)
    write_atomically(directory / CARD, text)
    (directory / _OLD_CARD).unlink(missing_ok=True)
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    write_atomically(directory / "results.json", text)
    write_checksums(directory)


def _results(directory):
    for name in ("recipe.toml", "results.json"):
        if not (directory / name).is_file():
            raise InputError(
                f"{name} is missing; `lsmha train` writes it. Received: a preset in {directory}"
            )
    return read_json(directory / "results.json")
