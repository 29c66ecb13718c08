"""Evaluates a committee and its members."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
from keras import ops

from lsmha_keras.committee import diversity
from lsmha_keras.committee.diversity import mean_over_pairs
from lsmha_keras.data.open_dataset import open_dataset_for_model
from lsmha_keras.layers.committee_vote import MODES, CommitteeVote
from lsmha_keras.old_spellings import takes_old_arguments
from lsmha_keras.training.evaluate import checked_chunks, full_batches, mean_figures, score_sums
from lsmha_keras.types import Dataset, PathLike, Verbose


@dataclasses.dataclass(frozen=True, eq=False)
class CommitteeReport:
    """Accuracy of a committee and its members, and the members' diversity.

    Args:
        members: list with a dict for each member, as `lsmha_keras.evaluate` returns it.
        modes: dict from `"soft"`, `"logits"` and `"vote"` to such a dict for the whole committee.
            The loss of `"vote"` is NaN, as votes are not logits.
        disagreement: `(members, members)` array, fraction of images on which two members answer
            differently.
        double_fault: `(members, members)` array, fraction on which two members are both wrong.
        oracle_accuracy: float, fraction on which at least one member is right.

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
        """Float, disagreement averaged over all pairs of members."""
        return mean_over_pairs(self.disagreement)

    def gain(self, mode):
        """Returns the committee's accuracy in a mode minus that of its best member, a float."""
        return self.modes[mode]["accuracy"] - self.best_accuracy


@takes_old_arguments
def measure_committee(
    committee: Any,
    dataset: Dataset,
    *,
    split: str = "test",
    data_dir: PathLike | None = None,
    batch_size: int = 256,
    verbose: Verbose = "auto",
) -> CommitteeReport:
    """Evaluates the committee in every mode, its members, and their diversity.

    Every member computes every image once; all modes share its logits.

    Args:
        committee: a `SoftCommittee`.
        dataset: labelled images or the name of a dataset, as for `lsmha_keras.evaluate`.
        split: str, the split of a dataset given by name.
        data_dir: folder that holds a dataset given by name.
        batch_size: int, images per step.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.

    Returns:
        A `CommitteeReport`.

    Raises:
        ValueError: as `lsmha_keras.evaluate`.

    Example:

    ```python
    report = measure_committee(committee, (images, labels), verbose=0)
    print(report.modes["soft"]["accuracy"], report.mean_disagreement)
    ```
    """
    if isinstance(dataset, (str, os.PathLike)):
        dataset = open_dataset_for_model(
            dataset, split, data_dir, None, lambda: committee.image_shape[:2]
        )
    votes = {mode: CommitteeVote(mode) for mode in MODES}
    member_sums = np.zeros((len(committee.members), 4))
    mode_sums = dict.fromkeys(MODES, 0.0)
    answers, truth = [], []
    for images, labels in checked_chunks(committee, dataset, batch_size):
        padded = full_batches(images, batch_size)
        logits = committee.predict_members(padded, batch_size, verbose)[: len(images)]
        member_sums += [score_sums(logits[:, m], labels) for m in range(logits.shape[1])]
        for mode, vote in votes.items():
            mode_sums[mode] += score_sums(ops.convert_to_numpy(vote(logits)), labels)
        answers.append(logits.argmax(axis=-1).T)  # (members, images)
        truth.append(labels)
    answers, truth = np.concatenate(answers, axis=1), np.concatenate(truth)
    modes = {mode: mean_figures(sums) for mode, sums in mode_sums.items()}
    modes["vote"]["loss"] = float("nan")
    return CommitteeReport(
        members=[mean_figures(sums) for sums in member_sums],
        modes=modes,
        disagreement=diversity.pairwise_disagreement(answers),
        double_fault=diversity.pairwise_double_fault(answers, truth),
        oracle_accuracy=diversity.oracle_accuracy(answers, truth),
    )
