import numpy as np
import pytest

from lsmha_keras.layers.committee_vote import MODES, CommitteeVote
from tests.checks import check_layer, to_numpy

# Probabilities of one image by the members, and by hand: the scores of each mode. The logits are
# the logarithms, with a constant added to each member's, which changes sums of logits alone.
TIE = [[0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]
SURE = [[0.98, 0.01, 0.01], [0.4, 0.5, 0.1], [0.4, 0.5, 0.1]]
VETO = [[0.001, 0.5, 0.499], [0.9, 0.09, 0.01]]


def scores(probabilities, mode, shift=0.0):
    logits = np.log(np.array([probabilities])) + shift
    return to_numpy(CommitteeVote(mode)(logits.astype("float32")))[0]


@pytest.mark.parametrize(
    ("members", "mode", "expected"),
    [
        (TIE, "soft", np.log([0.3, 0.6, 0.1])),
        (TIE, "logits", np.log([0.0025, 0.1024, 0.0001])),
        # Two votes each for 0 and 1, of which 1 is the more probable.
        (TIE, "vote", [2.3, 2.6, 0.1]),
        (SURE, "soft", np.log([1.78 / 3, 1.01 / 3, 0.21 / 3])),
        (SURE, "vote", [1 + 1.78 / 3, 2 + 1.01 / 3, 0.07]),
        (VETO, "soft", np.log([0.4505, 0.295, 0.2545])),
        (VETO, "logits", np.log([0.0009, 0.045, 0.00499])),
    ],
)
def test_worked_examples(members, mode, expected):
    np.testing.assert_allclose(scores(members, mode), expected, atol=1e-5)
    if mode != "logits":
        np.testing.assert_allclose(scores(members, mode, shift=7.0), expected, atol=1e-5)


def test_modes_answer_differently():
    answers = {m: [int(scores(p, m).argmax()) for p in (TIE, SURE, VETO)] for m in MODES}
    assert answers["soft"] == [1, 0, 0]
    assert answers["vote"] == [1, 1, 0]  # of VETO's one vote each, 0 is the more probable
    assert answers["logits"][2] == 1


def test_a_sure_member_never_outweighs_a_vote():
    logits = np.array([[[500.0, 0, 0], [0, 1e-3, 0], [0, 1e-3, 0]]], "float32")
    assert to_numpy(CommitteeVote("vote")(logits)).argmax() == 1
    assert np.isfinite(to_numpy(CommitteeVote("soft")(logits))).all()


@pytest.mark.parametrize("mode", MODES)
def test_layer(mode):
    logits = np.random.default_rng(0).normal(size=(4, 3, 5)).astype("float32")
    check_layer(CommitteeVote(mode), logits, tolerance=1e-5, half_dtype="float32")


def test_unknown_mode():
    with pytest.raises(ValueError, match="'soft', 'logits', 'vote'. Received: mode='hard'"):
        CommitteeVote("hard")
