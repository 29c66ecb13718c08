import csv
import json

import keras
import numpy as np
import pytest
from PIL import Image

import lsmha_keras as lsmha
from lsmha_keras import cli
from lsmha_keras.commands.committee import COLUMNS
from lsmha_keras.shp.shp_result import SHPResult
from tests.checks import random_images
from tests.committee.members import varied_classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two presets, a dataset, and what their heads cover."""
    folder = tmp_path_factory.mktemp("committee")
    keras.utils.set_random_seed(2)
    images, labels = random_images(30, 16, 16, 3), np.arange(30) % 5
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for name, covered in (("a", [0, 1, 2]), ("b", [1, 2, 3])):
        member = varied_classifier(images, class_names=list("01234"))
        member.save_to_preset(str(folder / name))
        means = np.zeros((1, 5, 5))
        means[0, covered, covered] = 1
        SHPResult(1, means, [1] * 5).save(folder / f"{name}.npz")
    Image.fromarray(random_images(20, 30, 3)).save(folder / "photo.png")
    return folder


@pytest.fixture(scope="module")
def saved(folder):
    """The command's output directory."""
    arguments = ["committee", str(folder / "a"), str(folder / "b"), "--mode", "logits"]
    arguments += ["--dataset", str(folder / "data.npz"), "--results", str(folder / "r.csv")]
    arguments += ["--shp", str(folder / "a.npz"), str(folder / "b.npz")]
    assert cli.main([*arguments, "--output", str(folder / "both")]) == 0
    return folder / "both"


def test_rows_hold_what_evaluate_finds(saved, folder):
    with (folder / "r.csv").open() as file:
        rows = {row["mode"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["soft", "logits", "vote"] and tuple(rows["soft"]) == COLUMNS
    figures = lsmha.evaluate(saved, folder / "data.npz")
    for key in ("accuracy", "top5_accuracy", "loss"):
        assert float(rows["logits"][key]) == pytest.approx(figures[key], abs=1e-4)
    row = rows["vote"]
    assert row["members"] == f"{folder / 'a'}+{folder / 'b'}" and row["loss"] == ""
    assert row["num_images"] == "30" and keras.config.backend() in row["versions"]
    best = max(lsmha.evaluate(folder / name, folder / "data.npz")["accuracy"] for name in "ab")
    assert float(row["best_member_accuracy"]) == pytest.approx(best, abs=1e-4)


def test_what_is_printed(saved, folder, capsys):
    """A saved committee stands for its members."""
    arguments = ["committee", str(saved), "--dataset", str(folder / "data.npz")]
    capsys.readouterr()
    assert cli.main([*arguments, "--shp", str(folder / "a.npz"), str(folder / "b.npz")]) == 0
    printed = capsys.readouterr().out
    with (folder / "r.csv").open() as file:
        soft = next(csv.DictReader(file))
    line = next(line for line in printed.splitlines() if line.startswith("committee, soft"))
    points = 100 * (float(soft["accuracy"]) - float(soft["best_member_accuracy"]))
    assert f"{float(soft['accuracy']):.2%}" in line
    assert float(line.split()[-1]) == pytest.approx(points, abs=0.02)
    pair = printed.rstrip().splitlines()[-1].split()
    disagreement = float(soft["mean_disagreement"])
    assert pair[:3] == [f"{saved}/member_1", "and", f"{saved}/member_0"]
    assert float(pair[3].rstrip("%")) / 100 == pytest.approx(disagreement, abs=1e-4)
    # {0, 1, 2} and {1, 2, 3} of 5 labels: 2 of 4 shared; correlation (2/5 - 0.36) / 0.24.
    assert pair[5:] == ["0.17", "0.50"]


def test_other_commands_take_it(saved, folder, capsys):
    capsys.readouterr()
    data = ["--dataset", str(folder / "data.npz"), "--json"]
    assert cli.main(["evaluate", str(saved), *data]) == 0
    assert json.loads(capsys.readouterr().out)["num_images"] == 30
    assert cli.main(["predict", str(saved), str(folder / "photo.png"), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    committee = lsmha.SoftCommittee.from_preset(saved)
    image = Image.open(folder / "photo.png").resize((16, 16), Image.BILINEAR, (5, 0, 25, 20))
    scores = committee.predict(np.asarray(image)[None], verbose=0)[0]
    assert result["classes"][0]["name"] == str(scores.argmax())


def test_single_head_performance_is_of_a_member(saved, folder, capsys):
    pytest.importorskip("matplotlib")  # which the command looks for first
    data = ["--dataset", str(folder / "data.npz")]
    assert cli.main(["shp", str(saved), *data, "--output", str(folder / "shp")]) == 2
    assert "holds a committee" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b", "--shp", "a.npz"], "one file for each of the 2 members. Received: 1 files"),
        (["a", "b", "--output", "."], "--overwrite"),
        (["a", "b", "--results", "data.npz/x.csv"], "Cannot write to"),
        (["a", "missing"], "Received: preset='missing'"),
        (["a", "a", "--shp", "a.npz", "b.npz", "--block", "0"], "Received: block=0"),
    ],
)
def test_mistakes_are_named(arguments, message, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert cli.main(["committee", *arguments, "--dataset", "data.npz"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
