"""Runs that are interrupted, and whether they can continue."""

import os
import shutil

import keras
import numpy as np
import pytest

from lsmha_keras.training.checkpoint import NonFiniteLossError, load_state
from lsmha_keras.training.train import train
from tests.training.conftest import SECTIONS
from tests.training.tiny import read_history, recipe_dict


def check_same_history(run, expected):
    rows, expected_rows = read_history(run), read_history(expected)
    assert [row.keys() for row in rows] == [row.keys() for row in expected_rows]
    for row, other in zip(rows, expected_rows, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-6)


def saved_seconds(run):
    return load_state(run / "checkpoints" / "last.npz")[0]["train_seconds"]


class Interrupt(keras.callbacks.Callback):
    """Ends training in the middle of an epoch, as a kill does."""

    def __init__(self, epoch):
        super().__init__()
        self.target, self.epoch = epoch, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.target and batch == 1:
            raise KeyboardInterrupt


def test_resumed_run_ends_with_the_same_history(result, recipe, tmp_path):
    run = tmp_path / "run"
    for epoch in (0, 2):  # before anything was saved, and later
        with pytest.raises(KeyboardInterrupt):
            train(recipe, run, callbacks=[Interrupt(epoch)], verbose=0)
        assert len(read_history(run) if epoch else []) == epoch
    seconds = saved_seconds(run)
    resumed = train(recipe, run, verbose=0)
    assert 0 < seconds < saved_seconds(run)
    assert resumed.results["train_seconds"] == pytest.approx(saved_seconds(run), abs=0.05)
    check_same_history(run, result.output_dir)
    assert resumed.results["accuracy"] == result.results["accuracy"]
    assert resumed.results["loss"] == pytest.approx(result.results["loss"], rel=1e-3)
    ours, theirs = np.load(run / "preset/golden.npz"), np.load(result.preset_dir / "golden.npz")
    np.testing.assert_allclose(ours["logits"], theirs["logits"], atol=1e-3)


def test_finished_run_is_not_repeated(result, recipe, capsys):
    changed = os.stat(result.preset_dir / "results.json").st_mtime_ns
    again = train(recipe, result.output_dir)
    assert "there is nothing left to train" in capsys.readouterr().out
    assert os.stat(result.preset_dir / "results.json").st_mtime_ns == changed
    assert again.history == result.history and again.results == result.results
    assert str(again) == str(result) and str(result.preset_dir) in str(again)


def test_killed_while_the_preset_was_written(result, recipe, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(result.output_dir, run)
    unfinished = run / ".preset.lsmha-tmp"
    (run / "preset").rename(unfinished)  # as a kill leaves it
    (unfinished / "results.json").unlink()
    (run / "checkpoints" / ".last.npz.0.lsmha-tmp").write_bytes(b"half of the ne")
    second = train(recipe, run, verbose=0)
    assert second.history == result.history
    assert not [path for path in run.rglob("*") if path.name.endswith(".lsmha-tmp")]
    # The averaged weights are put in place without `fit`, which does that at its end.
    ours, theirs = np.load(run / "preset/golden.npz"), np.load(result.preset_dir / "golden.npz")
    np.testing.assert_allclose(ours["logits"], theirs["logits"], atol=1e-4)


@pytest.mark.parametrize("moment", ["before the preset", "after the preset", "no checkpoint"])
def test_a_table_that_lacks_the_last_epoch_is_completed(result, recipe, tmp_path, moment):
    """The process was killed after it saved an epoch's state and before it wrote the row."""
    run = tmp_path / "run"
    shutil.copytree(result.output_dir, run)
    whole = (run / "history.csv").read_text()
    (run / "history.csv").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    if moment == "before the preset":
        shutil.rmtree(run / "preset")
    if moment == "no checkpoint":
        shutil.rmtree(run / "checkpoints")
    again = train(recipe, run, verbose=0)
    assert (run / "history.csv").read_text() == whole
    assert again.history == result.history


@pytest.mark.parametrize("checkpoints", [True, False])
def test_finished_run_that_lost_files(result, recipe, tmp_path, checkpoints, monkeypatch, capsys):
    """The run is not trained again: without a state, that would replace the existing preset."""
    run = tmp_path / "run"
    shutil.copytree(result.output_dir, run)
    monkeypatch.setattr(keras.Model, "fit", None)
    if not checkpoints:
        shutil.rmtree(run / "checkpoints")
    assert train(recipe, run).results == result.results
    assert f"{run} holds the finished run; there is nothing left" in capsys.readouterr().out
    (run / "preset" / "results.json").unlink()
    (run / "preset" / "history.csv").unlink()
    if checkpoints:
        assert train(recipe, run, verbose=0).results["accuracy"] == result.results["accuracy"]
        return
    with pytest.raises(ValueError, match="incomplete .* without results.json and history.csv"):
        train(recipe, run, verbose=0)
    assert (run / "preset" / "model.weights.h5").exists()


@pytest.mark.parametrize("resume", [True, False])
def test_files_of_others_are_refused_and_kept(recipe, tmp_path, resume):
    for name in ("checkpoints/mine.h5", "tensorboard/log", "preset/config.json", "history.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"not written there by a run .* \(checkpoints"):
        train(recipe, tmp_path, resume=resume, verbose=0)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "checkpoints" / "mine.h5").read_text() == "mine"
    # The recipe that lies in the directory is not a run either.
    other = tmp_path / "other"
    other.mkdir()
    (other / "recipe.toml").write_text("# my notes")
    with pytest.raises(ValueError, match="recipe.toml"):
        train(recipe, other, resume=resume, verbose=0)
    assert (other / "recipe.toml").read_text() == "# my notes"


def test_a_run_from_before_there_were_marks_goes_on(result, recipe, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(result.output_dir, run)
    (run / ".lsmha").unlink()
    assert train(recipe, run, verbose=0).history == result.history
    assert (run / ".lsmha").exists()


def test_two_runs_in_one_directory(recipe, tmp_path):
    run = tmp_path / "run"

    class Second(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on "):
                train(recipe, run, verbose=0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, callbacks=[Second()], verbose=0)
    assert not (run / ".lsmha.lock").exists()


def test_early_stop_is_remembered(data, tmp_path):
    recipe = recipe_dict(data, data={"validation_split": "test[:20]"}, schedule={"epochs": 6})
    stop = keras.callbacks.EarlyStopping("val_loss", min_delta=100.0, patience=1)
    first = train(recipe, tmp_path / "run", callbacks=[stop], verbose=0)
    assert len(first.history) == 2 and first.results["epochs"] == 2
    first.preset_dir.rename(tmp_path / "elsewhere")
    assert train(recipe, tmp_path / "run", verbose=0).history == first.history


def test_another_recipe_is_refused(result, data):
    changed = {"schedule": {"epochs": 5}, "loss": {"label_smoothing": 0.0}}
    recipe = recipe_dict(data, **SECTIONS, **changed)
    with pytest.raises(ValueError) as error:
        train(recipe, result.output_dir, verbose=0)
    message = str(error.value)
    assert "schedule.epochs is 4 there and 5 here" in message
    assert "loss.label_smoothing is 0.1 there and 0.0 here" in message
    assert "optimizer" not in message
    assert "resume=False" in message and str(result.output_dir) in message


def test_a_run_that_never_began_does_not_block_its_directory(data, tmp_path):
    with pytest.raises(ValueError, match="cct_2_3x2"):
        train(recipe_dict(data, model={"preset": "cct_2_3x3x"}), tmp_path / "run", verbose=0)
    assert (tmp_path / "run" / "recipe.toml").exists()
    with pytest.raises(ValueError, match="Adam"):  # not: belongs to another recipe
        train(recipe_dict(data, optimizer={"name": "Adem"}), tmp_path / "run", verbose=0)


def test_resume_false_starts_again(result, data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(result.output_dir, run)
    (run / "notes.txt").write_text("mine")
    short = recipe_dict(data, schedule={"epochs": 1, "warmup_epochs": 0})
    fresh = train(short, run, resume=False, verbose=0)
    assert len(fresh.history) == len(read_history(run)) == 1
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.npz"]
    assert (run / "notes.txt").read_text() == "mine"


class Spoil(keras.callbacks.Callback):
    """Makes a weight NaN at the beginning or the end of the second epoch."""

    def __init__(self, moment):
        super().__init__()
        setattr(self, moment, self.spoil)

    def spoil(self, epoch, logs=None):
        if epoch == 1:
            weight = self.model.trainable_variables[-1]
            weight.assign(np.full(weight.shape, np.nan, "float32"))


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        ("on_epoch_begin", "The loss became nan in epoch 2, step 1"),
        # As the last update of an epoch does, after a loss that was fine.
        ("on_epoch_end", "predictions/bias holds values that are not finite in epoch 2, step 6"),
    ],
)
def test_divergence_leaves_the_last_good_state(data, tmp_path, moment, message):
    with pytest.raises(NonFiniteLossError, match=message) as error:
        train(recipe_dict(data), tmp_path / "run", callbacks=[Spoil(moment)], verbose=0)
    assert "learning_rate" in str(error.value) and "state at the end of epoch 1" in str(error.value)
    progress, arrays = load_state(error.value.checkpoint)
    assert progress["epoch"] == 1
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert len(read_history(tmp_path / "run")) == 1


def test_huge_learning_rate_diverges(data, tmp_path):
    recipe = recipe_dict(
        data,
        optimizer={"name": "SGD", "learning_rate": 1e30},
        schedule={"decay": "constant", "warmup_epochs": 0},
    )
    with pytest.raises(NonFiniteLossError, match="No epoch was finished") as error:
        train(recipe, tmp_path / "run", verbose=0)
    assert isinstance(error.value, ValueError)  # the command line makes one line of it
    assert not (tmp_path / "run" / "checkpoints" / "last.npz").exists()
