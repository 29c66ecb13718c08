"""Cards written again from the files of a preset."""

import json

import pytest

from lsmha_keras import cli
from lsmha_keras.presets import CARD, verify_checksums, write_checksums

pytestmark = pytest.mark.backend_free


def test_training_and_the_command_write_the_same(preset, tmp_path):
    written = {path.name: path.read_bytes() for path in preset.iterdir()}
    (preset / CARD).rename(preset / "card.md")  # as before version 0.1
    for name in ("per_class.csv", "calibration.csv"):
        (preset / name).unlink()
    results = json.loads((preset / "results.json").read_text())
    old = {key: value for key, value in results.items() if key not in ("ece", "confidence")}
    (preset / "results.json").write_text(json.dumps(old))
    write_checksums(preset)

    assert cli.main(["zoo", "cards", str(preset)]) == 0
    card = (preset / CARD).read_text()
    assert not (preset / "card.md").exists()
    assert "Best classes" not in card and "calibration error" not in card
    verify_checksums(preset)

    assert cli.main(["zoo", "cards", str(preset), "--data-dir", str(tmp_path)]) == 0
    assert json.loads((preset / "results.json").read_text()) == results
    for name in (CARD, "per_class.csv", "calibration.csv"):
        assert (preset / name).read_bytes() == written[name], name
    verify_checksums(preset)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": 2.0}, "The card says 200.00%"),
        ({"dataset": "no_such.npz"}, "Received: dataset=no_such.npz"),
    ],
)
def test_other_figures_are_not_written(changes, message, preset, tmp_path, capsys):
    results = json.loads((preset / "results.json").read_text())
    (preset / "results.json").write_text(json.dumps({**results, **changes}))
    write_checksums(preset)
    before = {path.name: path.read_bytes() for path in preset.iterdir()}
    assert cli.main(["zoo", "cards", str(preset), "--data-dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in preset.iterdir()} == before


def test_a_changed_file_is_refused_and_kept(preset, capsys):
    (preset / "history.csv").write_text("changed")
    card = (preset / CARD).read_bytes()
    assert cli.main(["zoo", "cards", str(preset)]) == 2
    assert "history.csv was changed" in capsys.readouterr().err
    assert (preset / CARD).read_bytes() == card
