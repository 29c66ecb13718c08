"""What was measured of a committee."""

import dataclasses

import numpy as np

from lsmha_keras.committee.diversity import mean_over_pairs


@dataclasses.dataclass(frozen=True, eq=False)
class CommitteeReport:
    """Accuracy of a committee and its members, and how differently these answer.

    Args:
        members: list of what `lsmha_keras.evaluate` returns, one dict for each member.
        modes: dict from `"soft"`, `"logits"` and `"vote"` to such a dict of the whole committee.
            The loss of `"vote"` is NaN: votes are not logits.
        disagreement: `(members, members)` array, the share of images on which two members answer
            differently.
        double_fault: `(members, members)` array, the share on which two members are both wrong.
        oracle_accuracy: float, the share on which at least one member is right.

    Example:

    ```python
    report = measure_committee(committee, (images, labels), verbose=0)
    print(f"{report.gain('soft'):+.2%} over the best member")
    ```
    """

    members: list
    modes: dict
    disagreement: np.ndarray
    double_fault: np.ndarray
    oracle_accuracy: float

    @property
    def best_accuracy(self):
        """Float, accuracy of the best member."""
        return max(member["accuracy"] for member in self.members)

    @property
    def mean_disagreement(self):
        """Float, mean disagreement of two members."""
        return mean_over_pairs(self.disagreement)

    def gain(self, mode):
        """Returns how much more accurate than its best member the committee is."""
        return self.modes[mode]["accuracy"] - self.best_accuracy
