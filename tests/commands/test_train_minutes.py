"""`lsmha train A B --minutes N`: who gets how much of the time, and what is shared."""

import pathlib
import time

import pytest

from lsmha_keras import cli
from lsmha_keras.commands import train as command
from lsmha_keras.training import train as training

pytestmark = pytest.mark.backend_free

RECIPE = """\
name = "{}"
[model]
preset = "cct_2_3x2"
[data]
name = "digits"
[schedule]
epochs = 1
warmup_epochs = 0
"""


@pytest.fixture
def recipes(tmp_path):
    paths = [tmp_path / f"{name}.toml" for name in "abc"]
    for path in paths:
        path.write_text(RECIPE.format(path.stem))
    return [str(path) for path in paths]


@pytest.fixture
def runs(monkeypatch):
    """The arguments of each call of `train`, which takes 90 seconds."""
    calls, now = [], [1000.0]

    def train(recipe, **arguments):
        calls.append({"name": recipe.name, **arguments})
        now[0] += 90
        return f"trained {recipe.name}"

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(command, "_STARTED", 970.0)  # 30 seconds went by before the first one
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return calls


def test_recipes_share_the_time_that_is_left(recipes, runs, tmp_path, capsys):
    output = str(tmp_path / "runs")
    assert cli.main(["train", *recipes, "--minutes", "8", "--output", output]) == 0
    assert [run["name"] for run in runs] == ["a", "b", "c"]
    # 8 minutes less 0.5, then less 1.5 for each run.
    assert [run["minutes"] for run in runs] == pytest.approx([7.5 / 3, 6 / 2, 4.5])
    assert [run["output_dir"] for run in runs] == [pathlib.Path(output) / name for name in "abc"]
    assert len({id(run["visit"]) for run in runs}) == 1 and runs[0]["visit"] is not None
    assert all(run["shorten"] for run in runs)
    assert capsys.readouterr().out.splitlines() == ["trained a", "trained b", "trained c"]


def test_with_epochs_the_schedule_keeps_its_length(recipes, runs):
    assert cli.main(["train", recipes[0], "--minutes", "8", "--epochs", "300"]) == 0
    assert not runs[0]["shorten"] and runs[0]["minutes"] == pytest.approx(7.5)


@pytest.mark.parametrize(
    ("arguments", "trained", "message"),
    [
        (["--minutes", "1.5"], 1, "The time was up before b was started. Received: --minutes 1.5"),
        (["--minutes", "0.4"], 0, "The time was up before a was started. Received: --minutes 0.4"),
        (["--set", "name=same"], 0, "Recipes must differ in their names. Received: same, same"),
    ],
)
def test_what_cannot_be_is_named_in_one_line(recipes, runs, capsys, arguments, trained, message):
    assert cli.main(["train", *recipes[:2], *arguments]) == 2
    assert len(runs) == trained
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
