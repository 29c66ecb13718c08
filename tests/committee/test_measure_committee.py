import inspect
import math
import re

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.committee.measure_committee import CommitteeReport, measure_committee
from tests.checks import random_images
from tests.committee.members import varied_classifier

IMAGES = random_images(40, 16, 16, 3)
LABELS = np.arange(40) % 5


@pytest.fixture(scope="module")
def committee():
    keras.utils.set_random_seed(1)
    members = [varied_classifier(IMAGES) for _ in range(3)]
    return lsmha.SoftCommittee(members, mode="vote")


@pytest.fixture(scope="module")
def report(committee):
    # Batches that do not divide the number of images.
    return lsmha.measure_committee(committee, (IMAGES, LABELS), batch_size=16, verbose=0)


@pytest.fixture(scope="module")
def probabilities(committee):
    logits = committee.predict_members(IMAGES, batch_size=40, verbose=0).astype("float64")
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)  # (images, members, classes)


def test_members_and_oracle(report, probabilities):
    answers = probabilities.argmax(axis=-1)
    right = answers == LABELS[:, None]
    assert [member["accuracy"] for member in report.members] == pytest.approx(right.mean(axis=0))
    own = probabilities[np.arange(40), :, LABELS]
    losses = [member["loss"] for member in report.members]
    assert losses == pytest.approx(-np.log(own).mean(axis=0), rel=1e-4)
    assert report.best_accuracy == pytest.approx(right.mean(axis=0).max())
    assert report.oracle_accuracy == pytest.approx(right.any(axis=1).mean())
    pairs = [(answers[:, i] != answers[:, j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert 0 < min(pairs) and max(pairs) < 1
    assert report.mean_disagreement == pytest.approx(np.mean(pairs))
    assert report.double_fault[0, 1] == pytest.approx((~right[:, :2]).all(axis=1).mean())


def test_modes(report, probabilities):
    soft = probabilities.mean(axis=1)
    votes = np.stack([np.bincount(row, minlength=5) for row in probabilities.argmax(axis=-1)])
    scores = {"soft": soft, "logits": probabilities.prod(axis=1), "vote": votes + soft}
    for mode, expected in scores.items():
        accuracy = (expected.argmax(axis=1) == LABELS).mean()
        assert report.modes[mode]["accuracy"] == pytest.approx(accuracy), mode
        assert report.gain(mode) == pytest.approx(accuracy - report.best_accuracy)
        assert report.modes[mode]["num_images"] == 40
    losses = {mode: figures["loss"] for mode, figures in report.modes.items()}
    assert losses["soft"] == pytest.approx(-np.log(soft[np.arange(40), LABELS]).mean(), rel=1e-4)
    assert math.isnan(losses["vote"])


def test_a_dataset_may_be_named(committee, report, tmp_path):
    path = tmp_path / "pictures.npz"
    np.savez(path, x_train=IMAGES[:5], y_train=LABELS[:5], x_test=IMAGES, y_test=LABELS)
    named = lsmha.measure_committee(committee, path, batch_size=16, verbose=0)
    assert named.modes["soft"] == report.modes["soft"]
    train = lsmha.measure_committee(
        committee, "pictures.npz", verbose=0, split="train", data_dir=tmp_path
    )
    assert train.modes["soft"]["num_images"] == 5
    with pytest.raises(ValueError, match=r"lsmha_keras.evaluate\(model, name\).*pictures"):
        committee.evaluate("pictures.npz")


def test_bad_data(committee):
    with pytest.raises(ValueError, match="Received: label 5 of sample"):
        lsmha.measure_committee(committee, (IMAGES, LABELS + 1), verbose=0)
    with pytest.raises(ValueError, match="3 channels"):
        lsmha.measure_committee(committee, (IMAGES[..., :1], LABELS), verbose=0)


@pytest.mark.parametrize("documented", [CommitteeReport, measure_committee])
def test_example(documented, committee):
    (code,) = re.findall(r"```python\n(.*?)```", inspect.getdoc(documented), re.S)
    names = {"committee": committee, "images": IMAGES, "labels": LABELS}
    exec(code, {**names, "measure_committee": lsmha.measure_committee})
