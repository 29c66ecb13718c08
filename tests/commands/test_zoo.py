"""`lsmha zoo`: what it prints and writes, what it refuses, and how it exits."""

import csv

import pytest

from lsmha_keras import cli, presets
from lsmha_keras.evidence import verify_preset as verify_module
from lsmha_keras.evidence.verify_preset import PresetVerification
from tests.evidence.runs import write_run

pytestmark = pytest.mark.backend_free

# verify


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A zoo of two presets, whose verification is given."""
    for name in ("good", "tampered"):
        (tmp_path / "presets" / name).mkdir(parents=True)
        (tmp_path / "presets" / name / "config.json").write_text("{}")
    monkeypatch.setattr(presets, "zoo_dir", lambda: tmp_path)
    found = {
        "good": PresetVerification(
            "good", (), ("a note",), 2e-6, 0.5845, 0.5840, latency_ms=1.234, card_latency_ms=2.5
        ),
        "tampered": PresetVerification("tampered", ("golden logits differ by up to 0.3",), (), 0.3),
    }
    asked = []

    def verify_preset(name, data_dir, accuracy):
        asked.append((name, data_dir, accuracy))
        return found[name]

    monkeypatch.setattr(verify_module, "verify_preset", verify_preset)
    return asked


def test_verify_names_the_refused_and_goes_on(zoo, capsys):
    assert cli.main(["zoo", "verify", "tampered", "good", "--data-dir", "d"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "lsmha: refused: tampered: golden logits differ by up to 0.3\n"
    assert "  a note\n" in captured.out
    tampered, good = captured.out.splitlines()[-2:]
    assert tampered.split() == [
        *("tampered", "3.0e-01", "-", "(not", "on", "the", "card)"),
        *("-", "(not", "on", "the", "card)", "REFUSED"),
    ]
    assert good.split() == ["good", "2.0e-06", "58.45", "(58.40)", "1.23", "(2.50)", "holds"]
    assert zoo == [("tampered", "d", True), ("good", "d", True)]


def test_verify_all_or_some(zoo, capsys):
    assert cli.main(["zoo", "verify", "good", "--skip-accuracy"]) == 0
    assert cli.main(["zoo", "verify", "--all"]) == 1
    assert zoo == [("good", None, False), ("good", None, True), ("tampered", None, True)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "or --all for every one that is shipped. Received: no name"),
        (["good", "--all"], "Received: good --all"),
        (["good", "goood"], "nearest: good"),
        (["good", "cct_2_3x2"], "no weights to verify"),
    ],
)
def test_mistaken_names_are_found_before_any_work(arguments, message, zoo, capsys):
    assert cli.main(["zoo", "verify", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert zoo == []


# collect


def test_collect_writes_the_finished(tmp_path, capsys):
    runs = [
        write_run(tmp_path / "a", seed=0, accuracy=0.5),
        write_run(tmp_path / "b", seed=1, epochs=2),
        write_run(tmp_path / "c", seed=2, accuracy=0.75),
    ]
    table = tmp_path / "new" / "layouts.csv"
    arguments = ["zoo", "collect", *map(str, runs), "--output", str(table)]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert "epoch 2 of 3" in error and str(runs[1]) in error and "--skip-unfinished" in error
    assert not table.exists()

    for _ in range(2):  # Given again, nothing is doubled.
        assert cli.main([*arguments, "--skip-unfinished"]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("skipped: ") and "mine, seed 2: 75.00 %" in printed
    with table.open(newline="") as file:
        assert [(row["seed"], row["accuracy"]) for row in csv.DictReader(file)] == [
            ("0", "0.5000"),
            ("2", "0.7500"),
        ]
