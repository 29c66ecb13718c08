"""Writes a measured latency on the card of a preset."""

import keras

from lsmha_keras.evidence.verify_preset import find_trained
from lsmha_keras.evidence.write_card import write_card
from lsmha_keras.training.devices import describe_hardware


def record_latency(verification):
    """Writes a measured latency on the card of a preset, with the machine and backend it is of.

    `results.json`, `README.md` and the checksums are written again.

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
    if not verification.ok or verification.latency_ms is None:
        reasons = "; ".join(verification.failures) or "its latency could not be measured"
        raise ValueError(
            "The latency of a preset is recorded only if the preset agrees with its card. "
            f"Received: {verification.name}: {reasons}"
        )
    write_card(
        find_trained(verification.name),
        latency_ms=round(verification.latency_ms, 3),
        latency_backend=keras.config.backend(),
        latency_hardware=describe_hardware(),
    )
