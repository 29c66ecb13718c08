"""Commands on a small text model: the same as on images, with texts on the pages."""

import csv
import json
import re

import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras import cli
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readouts import BlockReadouts
from lsmha_keras.shp.report import write as report
from tests.shp.texts import NAMES, questions, text_classifier

pytest.importorskip("matplotlib", reason='figures need pip install "lsmha-keras[plots]"')


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    path = tmp_path_factory.mktemp("preset") / "tiny"
    text_classifier().save_to_preset(path)
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with `train.csv` and `test.csv`."""
    folder = tmp_path_factory.mktemp("data") / "questions"
    folder.mkdir()
    for seed, part in enumerate(("train", "test")):
        texts, labels = questions(32, seed)
        with open(folder / f"{part}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "text"])
            writer.writerows((NAMES[k], text) for text, k in zip(texts, labels, strict=True))
    return str(folder)


@pytest.fixture
def no_figures(monkeypatch):
    """Leaves out what takes longest and is not looked at."""
    monkeypatch.setattr(report, "_draw", lambda *args: None)


def test_shp(preset, data, tmp_path, no_figures, capsys):
    out = tmp_path / "shp"
    options = ["--readout-epochs", "2", "--batch-size", "16", "--output", str(out)]
    assert cli.main(["shp", preset, "--dataset", data, *options]) == 0
    printed = capsys.readouterr().out
    assert "measuring all heads, permuted labels: 32 texts" in printed
    test_data = lsmha.open_dataset(data, "test")
    readouts = BlockReadouts.load(out / "readouts.npz")
    model = lsmha.load_classifier(preset)
    results = single_head_performance(model, readouts, test_data, verbose=0)
    with np.load(out / "shp.npz") as arrays:
        for block, result in results.items():
            means = arrays[f"trained/block_{block}"]
            np.testing.assert_allclose(means, result.class_means, atol=1e-5)
    page = (out / "index.html").read_text(encoding="utf-8")
    shown = json.loads(page.split('"exemplars": ')[1].split(', "labels"')[0] + "}")["texts"]
    assert {" ".join(words) for words in shown} <= set(test_data.load(range(32)).tolist())
    # Nothing is measured again: the texts are known by content, in another process too.
    assert cli.main(["shp", preset, "--dataset", data, *options]) == 0
    assert "measuring" not in capsys.readouterr().out


def test_explain(preset, tmp_path, capsys):
    command = ["explain", preset, "Where is the king", "--methods", "relevance", "occlusion"]
    assert cli.main([*command, "--output", str(tmp_path / "out"), "--label", "person"]) == 0
    assert "person" in capsys.readouterr().out
    found = lsmha.explain(lsmha.load_classifier(preset), "Where is the king", label="person")
    with open(tmp_path / "out" / "relevance.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["word"] for row in rows] == ["Where", "is", "the", "king"]
    shown = [float(row["relevance"]) for row in rows]
    np.testing.assert_allclose(shown, found.tokens, rtol=1e-4, atol=1e-6)


def test_curves(preset, data, tmp_path, capsys):
    out = tmp_path / "curves.csv"
    command = ["explain", preset, "--curves", data, "--methods", "occlusion", "--output", str(out)]
    assert cli.main([*command, "--max-images", "8", "--quiet"]) == 0
    with open(out, encoding="utf-8") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"occlusion", "random"}
    assert {row["num_images"] for row in rows.values()} == {"8"}
    assert float(rows["occlusion"]["deletion"]) < float(rows["random"]["deletion"])
    assert rows["occlusion"]["deletion"] in capsys.readouterr().out


def test_prune(preset, data, tmp_path, capsys):
    out = tmp_path / "pruned"
    command = ["prune", preset, "--dataset", data, "--fraction", "0.5", "--by", "shp", "--quiet"]
    options = ["--finetune", "1", "--images", "16", "--output", str(out)]
    assert cli.main([*command, *options]) == 0
    smaller = lsmha.load_classifier(out / "preset")
    assert type(smaller) is lsmha.CCTTextClassifier
    assert sum(block.num_heads for block in smaller.backbone.blocks) == 4
    assert smaller.preprocessor.vocabulary == lsmha.load_classifier(preset).preprocessor.vocabulary
    printed = capsys.readouterr().out
    test_data = lsmha.open_dataset(data, "test")
    assert f"{lsmha.evaluate(smaller, test_data)['accuracy']:.2%}" in printed


def test_committee(preset, data, tmp_path, capsys):
    other = tmp_path / "other"
    text_classifier(1).save_to_preset(other)
    out = tmp_path / "committee"
    command = ["committee", preset, str(other), "--dataset", data, "--output", str(out), "--quiet"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    committee = lsmha.load_classifier(out)
    figures = lsmha.evaluate(committee, lsmha.open_dataset(data, "test"))
    row = next(line for line in printed.splitlines() if line.startswith("committee, soft"))
    assert f"{figures['accuracy']:.2%}" in row


BAD = {
    "series": (["explain", "{preset}", "  ", "--output", "{out}"], "must have a word"),
    "blocks": (
        ["shp", "{preset}", "--dataset", "{data}", "--output", "{out}", "--blocks", "7"],
        "blocks=\\[7\\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_line(name, preset, data, tmp_path, capsys):
    command, message = BAD[name]
    places = {"preset": preset, "data": data, "out": str(tmp_path / "out")}
    assert cli.main([part.format(**places) for part in command]) != 0
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error
