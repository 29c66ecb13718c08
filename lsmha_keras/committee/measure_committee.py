"""Measures how good a committee is."""

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
    """Measures the members, the committee in every mode, and how differently the members answer.

    Every image goes through every member once, whatever the committee's own mode.

    Args:
        committee: a `SoftCommittee`.
        dataset: labelled images or the name of a dataset, as `lsmha_keras.evaluate` takes them.
        split: part of a dataset given by name.
        data_dir: folder that holds a dataset given by name.
        batch_size: int, images that go through the members at a time.
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
