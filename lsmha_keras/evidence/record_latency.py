"""Writes a measured latency on the card of a preset."""

import json

import keras

from lsmha_keras.evidence.verify_preset import find_trained
from lsmha_keras.files import write_atomically
from lsmha_keras.presets import write_checksums
from lsmha_keras.training.environment import describe_hardware
from lsmha_keras.training.model_card import model_card
from lsmha_keras.training.recipe import Recipe


def record_latency(verification):
    """Writes a measured latency on the card of a preset, with the machine and backend it is of.

    `results.json`, `card.md` and the checksums are written anew.

    Args:
        verification: `PresetVerification` that came out just now, on this machine and backend.

    Raises:
        ValueError: if the preset was refused, its latency was not measured, or it has no recipe.
        OSError: if its directory cannot be written to.

    Example:

    ```python
    record_latency(verify_preset("runs/mine/preset"))
    ```
    """
    from lsmha_keras.models import CCTImageClassifier

    if not verification.ok or verification.latency_ms is None:
        reasons = "; ".join(verification.failures) or "its latency could not be measured"
        raise ValueError(
            "The latency of a preset is recorded once all that was measured holds. "
            f"Received: {verification.name}: {reasons}"
        )
    directory = find_trained(verification.name)
    recipe = Recipe.from_toml(directory / "recipe.toml")
    path = directory / "results.json"
    results = {
        **json.loads(path.read_text(encoding="utf-8")),
        "latency_ms": round(verification.latency_ms, 3),
        "latency_backend": keras.config.backend(),
        "latency_hardware": describe_hardware(),
    }
    model = CCTImageClassifier.from_preset(str(directory))
    write_atomically(directory / "card.md", model_card(recipe, model, results))
    write_atomically(path, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    write_checksums(directory)
