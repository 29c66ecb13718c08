"""Progress: a bar in a terminal, lines elsewhere, and only the result with --quiet."""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

import lsmha_keras
from lsmha_keras import cli
from lsmha_keras.progress import Progress, progress_style
from lsmha_keras.training.recipe import load_recipe
from tests.training.tiny import read_history, recipe_dict, write_dataset

ROOT = pathlib.Path(__file__).parent.parent
CONTROLS = set("\b\r\x1b")
EPOCHS = 2
needs_terminals = pytest.mark.skipif(
    not hasattr(os, "openpty"), reason="the system has no pseudo-terminals"
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Path of a recipe that trains in seconds, with a validation split."""
    folder = tmp_path_factory.mktemp("recipe")
    values = recipe_dict(
        write_dataset(folder / "tiny.npz"),
        data={"validation_split": "test"},
        schedule={"epochs": EPOCHS},
    )
    path = folder / "tiny.toml"
    path.write_text(load_recipe(values).to_toml())
    return path


@contextlib.contextmanager
def terminal(monkeypatch):
    """Replaces standard output by a pseudo-terminal; returns what is written to it.

    Inside a test, not a fixture: pytest itself replaces the standard output between the two.
    """
    reader, writer = os.openpty()
    parts, lines = [], []

    def read():
        with contextlib.suppress(OSError):  # what Linux raises at the end
            while part := os.read(reader, 4096):
                parts.append(part)

    thread = threading.Thread(target=read)
    thread.start()
    with os.fdopen(writer, "w") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        yield lines
    thread.join()
    os.close(reader)
    lines += b"".join(parts).decode().split("\r\n")


def test_training_into_a_pipe_prints_one_line_per_epoch(recipe, tmp_path):
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "lsmha_keras.cli", "train", str(recipe), "--output", str(run)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not CONTROLS & set(done.stdout)
    lines = [line for line in done.stdout.splitlines() if line.startswith("Epoch")]
    for row, line in zip(read_history(run), lines, strict=True):
        assert line.startswith(f"Epoch {row['epoch']:.0f}/{EPOCHS} - ")
        shown = dict(re.findall(r"(\w+): (\S+)", line))
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert float(shown[name]) == pytest.approx(row[name], rel=1e-3)
    assert done.stdout.splitlines()[-1] == f"preset: {run / 'preset'}"


@needs_terminals
def test_training_in_a_terminal_shows_a_bar(recipe, tmp_path, monkeypatch):
    with terminal(monkeypatch) as lines:
        assert cli.main(["train", str(recipe), "--output", str(tmp_path / "run")]) == 0
    bars = [line for line in lines if "━" in line]
    assert len(bars) == EPOCHS and all("\b" in bar and "val_loss" in bar for bar in bars)


def test_quiet_training_prints_the_result_only(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(["train", str(recipe), "--output", str(run), "--quiet"]) == 0
    result, preset = capsys.readouterr().out.splitlines()
    assert result.startswith("tiny: accuracy ") and preset == f"preset: {run / 'preset'}"
    # Nothing is left to train: with --quiet that is not said either.
    assert cli.main(["train", str(recipe), "--output", str(run), "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == [result, preset]


@pytest.mark.parametrize("command", ["train", "tune", "shp", "committee"])
@pytest.mark.backend_free
def test_quiet_and_verbose_exclude_each_other(command, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([command, "--quiet", "--verbose"])
    assert exit.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_fit_evaluate_and_predict_print_lines(capsys):
    model, images, labels = small_model()
    model.fit(images, labels, epochs=3)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" - ")[0] for line in lines] == ["Epoch 1/3", "Epoch 2/3", "Epoch 3/3"]
    for call in (lambda: model.evaluate(images, labels), lambda: model.predict(images)):
        call()
        out = capsys.readouterr().out
        assert not CONTROLS & set(out) and len(out.splitlines()) == 1
    model.fit(images, labels, verbose=0)
    model.predict(images, verbose=0)
    assert capsys.readouterr().out == ""


@needs_terminals
def test_fit_evaluate_and_predict_show_bars_in_a_terminal(monkeypatch):
    model, images, labels = small_model()
    with terminal(monkeypatch) as lines:
        model.fit(images, labels)
        model.evaluate(images, labels)
        model.predict(images)
    bars = [line for line in lines if "━" in line]
    assert len(bars) == 3 and all("\b" in bar for bar in bars)


def test_readouts_and_measurements_print_lines(capsys):
    model, images, labels = small_model()
    readouts = lsmha_keras.fit_readout(model, (images, labels), epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["Readouts, epoch 1/2", "Readouts, epoch 2/2"]
    assert all(re.search(r"1/1 - .* - loss: \d", line) for line in lines)
    lsmha_keras.single_head_performance(model, readouts, (images, labels))
    out = capsys.readouterr().out
    assert not CONTROLS & set(out) and len(out.splitlines()) == 1


@pytest.mark.backend_free
def test_a_pass_of_unknown_length_ends_its_line(capsys):
    for verbose in (1, 2):
        progress = Progress(0, verbose, "Pass")
        for loss in (3.0, 1.0):
            progress.add(loss=loss)
        progress.finish(loss=2.0)
        out = capsys.readouterr().out
        assert out.endswith(" - loss: 2.0000\n") and out.startswith("Pass")
        assert out.count("\n") == (2 if verbose == 1 else 1)
    progress = Progress(2, 0, "Pass")
    progress.add()
    progress.finish()
    assert capsys.readouterr().out == ""


@needs_terminals
@pytest.mark.backend_free
def test_styles(monkeypatch):
    with terminal(monkeypatch):
        assert progress_style("auto") == 1
    styles = {"auto": 2, 0: 0, 1: 1, 2: 2}
    assert {verbose: progress_style(verbose) for verbose in styles} == styles
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    assert progress_style("auto") == 1
    with pytest.raises(ValueError, match="\"auto\", 0, 1 or 2. Received: verbose='loud'"):
        progress_style("loud")


def small_model():
    """Returns a classifier, images and labels."""
    model = lsmha_keras.CCTImageClassifier.from_preset(
        "cct_2_3x2", image_shape=(16, 16, 3), hidden_dim=8, num_heads=2, num_classes=3
    )
    rng = np.random.default_rng(0)
    return model, rng.integers(0, 256, (9, 16, 16, 3), "uint8"), np.arange(9) % 3
