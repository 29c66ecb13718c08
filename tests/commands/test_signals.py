"""Commands that are told to stop."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import keras
import pytest

from lsmha_keras import cli
from lsmha_keras.interrupt import raise_if_interrupted, signals_interrupt
from lsmha_keras.progress import Progress
from lsmha_keras.training.recipe import Recipe
from lsmha_keras.training.train import train
from tests.checks import PATIENCE
from tests.training.tiny import recipe_dict, write_dataset

ROOT = pathlib.Path(__file__).parents[2]
# A command that needs no framework, in place of a long one.
WAITS = """
import sys, time
from lsmha_keras import cli
from lsmha_keras.commands import presets

def run(args):
    args.resumes, args.fresh = sys.argv[2] or None, sys.argv[3] == "fresh"
    try:
        print("begun", flush=True)
        time.sleep(300)
    except KeyboardInterrupt:
        if sys.argv[1] == "hangs":
            print("cleaning up", flush=True)
            time.sleep(300)
        raise

presets.run = run
sys.exit(cli.main(["presets"]))
"""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="these signals are POSIX's")


def start(*arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("resumes", "fresh", "message"),
    [
        ("", "", "lsmha: interrupted\n"),
        (
            "after the last finished epoch",
            "",
            "lsmha: interrupted. Give the same command again to go on after the last finished "
            "epoch.\n",
        ),
        (
            "after the last finished stage",
            "fresh",
            "lsmha: interrupted. Give the same command again without --fresh to go on after the "
            "last finished stage.\n",
        ),
    ],
)
def test_both_signals_say_the_same(number, status, resumes, fresh, message):
    process = start("ends", resumes, fresh)
    process.send_signal(number)
    assert process.communicate(timeout=PATIENCE) == ("", message)
    assert process.returncode == status


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(first, second):
    process = start("hangs", "", "")
    process.send_signal(first)
    assert process.stdout.readline() == "cleaning up\n"
    process.send_signal(second)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -second


@pytest.fixture
def own_handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def test_long_commands_say_how_to_go_on():
    parser = cli.build_parser()
    for arguments in (
        ["train", "x"],
        ["tune", "x"],
        ["shp", "x", "--dataset", "y", "--output", "z"],
        ["bench", "attention"],
        ["bench", "cct"],
        ["bench", "model", "x"],
        ["bench", "serve", "x"],
    ):
        assert parser.parse_args(arguments).resumes.startswith("after the last ")
    assert parser.parse_args(["presets"]).resumes is None


def test_handlers_are_put_back(own_handlers, capsys):
    assert cli.main(["presets"]) == 0
    assert {number: signal.getsignal(number) for number in own_handlers} == own_handlers


class FirstEpoch(Exception):
    """Carries the epoch that a training begins with."""


class EndAtFirstEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        raise FirstEpoch(epoch)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    data = write_dataset(tmp_path / "tiny.npz")
    path.write_text(Recipe.from_dict(recipe_dict(data, schedule={"epochs": 60})).to_toml())
    return path


class Swallow(keras.callbacks.Callback):
    """Drops the exception of a signal, as `except: pass` in a library does."""

    def on_epoch_begin(self, epoch, logs=None):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE)
        except KeyboardInterrupt:
            self.epoch = epoch


def test_a_signal_is_not_lost_in_a_library(own_handlers, recipe, tmp_path):
    swallow = Swallow()
    with pytest.raises(KeyboardInterrupt) as interrupt, signals_interrupt():
        train(recipe, tmp_path / "run", callbacks=[swallow], verbose=0)
    assert interrupt.value.args == (signal.SIGTERM,) and swallow.epoch == 0
    raise_if_interrupted()  # the next command begins without it


def test_a_signal_is_not_lost_in_a_pass_over_batches(own_handlers):
    progress = Progress(60, verbose=0)
    with pytest.raises(KeyboardInterrupt), signals_interrupt():
        Swallow().on_epoch_begin(0)
        progress.add()


def test_a_training_that_was_stopped_goes_on(own_handlers, recipe, tmp_path, capsys):
    run = tmp_path / "run"
    done = threading.Event()

    def stop():
        while not (run / "history.csv").exists() and not done.wait(0.02):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        status = cli.main(["train", str(recipe), "--output", str(run)])
    finally:
        done.set()
        thread.join()
    err = capsys.readouterr().err
    assert status == 143 and "to go on after the last finished epoch.\n" in err
    epochs = len((run / "history.csv").read_text().splitlines()) - 1
    assert 1 <= epochs < 60 and not (run / ".lsmha.lock").exists()
    with pytest.raises(FirstEpoch) as error:
        train(recipe, run, callbacks=[EndAtFirstEpoch()], verbose=0)
    assert error.value.args == (epochs,)
