"""The results of measuring a preset again."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class PresetVerification:
    """The results of measuring a preset again.

    Attributes:
        name: str, the preset.
        failures: tuple of str, why it is refused; empty when everything agrees with the card.
        notes: tuple of str, what was not measured or not compared, and why.
        golden_difference: float or `None`, largest difference of a logit of the golden images.
        accuracy: float or `None`, measured now, in 0 .. 1.
        card_accuracy: float or `None`, what the card says.
        latency_ms: float or `None`, median for one image, measured now.
        card_latency_ms: float or `None`, what the card says.

    Example:
        >>> PresetVerification("mine", failures=("checksums.sha256 is missing",)).ok
        False
    """

    name: str
    failures: tuple = ()
    notes: tuple = ()
    golden_difference: float | None = None
    accuracy: float | None = None
    card_accuracy: float | None = None
    latency_ms: float | None = None
    card_latency_ms: float | None = None

    @property
    def ok(self):
        """Whether all that was measured agrees with the card."""
        return not self.failures
