"""Writes a trained model as a preset: weights, recipe, history, figures and card."""

import datetime
import json
import pathlib

import keras
import numpy as np

from lsmha_keras.checksums import CARD, write_checksums
from lsmha_keras.files import fill_directory, write_atomically
from lsmha_keras.text_files import write_rows
from lsmha_keras.training.devices import describe_hardware, describe_versions
from lsmha_keras.training.evaluate import predict_logits
from lsmha_keras.training.model_card import model_card
from lsmha_keras.training.recipe import load_recipe

_GOLDEN_IMAGES = 8
# Keys of `results.json` that describe the training.
_TRAINING = ("hardware", "devices", "backend", "precision", "seed", "versions", "date", "command")


def write_preset(directory, model, recipe, report, history, train_seconds, trained=None):
    """Writes a trained model as a preset with recipe, history, figures, golden logits and card.

    Args:
        directory: path of the preset. An existing one is replaced when the new one is complete.
        model: trained `CCTImageClassifier`.
        recipe: `Recipe` it was trained with.
        report: `ClassReport` on the test split.
        history: list of a dict per epoch.
        train_seconds: float.
        trained: dict, the `results.json` of the preset that this one is made from: its machine,
            versions and date are kept. Default: those of this process.

    Returns:
        dict, as written to `results.json`.

    Example:

    ```python
    results = write_preset("preset", result.model, recipe, report, history, 61.5)
    ```
    """
    directory = pathlib.Path(directory)
    results = _results(model, recipe, report.figures, history, train_seconds)
    results |= {key: trained[key] for key in _TRAINING} if trained else {}
    images = golden_images(model.backbone.image_shape)
    logits = predict_logits(model, images, _GOLDEN_IMAGES * recipe.runtime.devices)
    golden = {"images": images, "labels": logits.argmax(axis=1), "logits": logits}
    with fill_directory(directory, replace=True) as folder:
        model.save_to_preset(str(folder))
        write_atomically(folder / "recipe.toml", recipe.to_toml())
        write_rows(folder / "history.csv", history)
        text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
        write_atomically(folder / "results.json", text)
        write_atomically(folder / "golden.npz", lambda file: np.savez_compressed(file, **golden))
        report.write(folder)
        card = model_card(recipe, model, results, report.per_class)
        write_atomically(folder / CARD, card)
        write_checksums(folder)
    return results


def golden_images(image_shape):
    """Makes the artificial images of `golden.npz`; a preset ships no images of a dataset.

    Args:
        image_shape: `(height, width, channels)`.

    Returns:
        `(8, height, width, channels)` uint8, coarse patches with noise, always the same.
    """
    rng = np.random.default_rng(0)
    height, width, channels = image_shape
    coarse = rng.integers(0, 256, (_GOLDEN_IMAGES, -(-height // 8), -(-width // 8), channels))
    patches = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    noise = rng.integers(-32, 33, patches.shape)
    return np.clip(patches + noise, 0, 255).astype("uint8")


def _results(model, recipe, figures, history, train_seconds):
    return {
        "name": recipe.name,
        "dataset": recipe.data.name,
        "split": recipe.data.test_split,
        **figures,
        "parameters": model.count_params(),
        "epochs": len(history),
        "train_seconds": round(train_seconds, 1),
        "hardware": describe_hardware(),
        "devices": recipe.runtime.devices,
        "backend": keras.backend.backend(),
        "precision": recipe.runtime.precision,
        "seed": recipe.runtime.seed,
        "versions": describe_versions(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "command": _command(recipe),
    }


def _command(recipe):
    try:
        shipped = not recipe.differences(load_recipe(recipe.name))
    except ValueError:
        shipped = False
    backend = keras.backend.backend()
    return f"lsmha train {recipe.name if shipped else 'recipe.toml'} --backend {backend}"
