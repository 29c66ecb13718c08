"""The command line: what it prints, what it refuses, and how it exits."""

import argparse
import csv
import errno
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import lsmha_keras
from lsmha_keras import cli, errors, presets
from lsmha_keras.commands import COMMANDS, _results
from lsmha_keras.commands import presets as presets_command
from lsmha_keras.commands.train import changed_values, parse_change

ROOT = pathlib.Path(lsmha_keras.__file__).parent.parent
FRAMEWORKS = ("keras", "keras_hub", "tensorflow", "jax", "torch", "numpy")

RECIPE = """
[model]
preset = "cct_2_3x2_h16_c1"
[data]
name = "digits"
train_split = "train[:256]"
test_split = "test[:100]"
[schedule]
epochs = 3
"""


# Help, options and errors


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *([c.__name__.split(".")[-1], "--help"] for c in COMMANDS)],
)
def test_help_imports_no_framework(arguments):
    code = (
        "import sys; from lsmha_keras.cli import main\n"
        "try: main(sys.argv[1:])\n"
        f"finally: print([m for m in {FRAMEWORKS} if m in sys.modules], file=sys.stderr)"
    )
    done = run_python("-c", code, *arguments)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    expected = {"--help": "first steps:", "--version": lsmha_keras.__version__}
    assert expected.get(arguments[0], "examples:") in done.stdout


def help_examples(parser):
    """Yields the commands in the help of a parser and of its sub-commands, without `lsmha`."""
    text = re.sub(r"\\\n *", "", parser.epilog or "")  # lines that go on
    for line in re.findall(r"^  lsmha .*", text, re.MULTILINE):
        for command in line.split("&&"):
            # A description stands two spaces or more behind a command.
            yield shlex.split(re.split(r"  +", command.strip())[0])[1:]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from help_examples(inner)


@pytest.mark.backend_free
def test_the_examples_in_the_help_can_be_parsed():
    parser = cli.build_parser()
    examples = list(help_examples(parser))
    assert len(examples) > 50
    for arguments in examples:
        assert callable(parser.parse_args(arguments).run), arguments


@pytest.mark.backend_free
def test_listing_presets_imports_no_framework():
    code = (
        "import sys; from lsmha_keras.cli import main; main(['presets'])\n"
        f"print([m for m in {FRAMEWORKS} if m in sys.modules], file=sys.stderr)"
    )
    assert run_python("-c", code).stderr == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["evaluat"], "invalid choice: 'evaluat'"),
        (["evaluate", "x"], "required: --dataset"),
        (["predict", "x", "y", "--top", "0"], "expected a positive integer. Received: 0"),
        (["train", "x", "--epochs", "two"], "expected a positive integer. Received: two"),
        (["presets", "--backend", "theano"], "invalid choice: 'theano'"),
    ],
)
def test_mistyped_command_lines_exit_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (errors.InputError("Two\n  lines."), 2, "lsmha: error: Two lines.\n"),
        (errors.MissingFileError("No file."), 2, "lsmha: error: No file.\n"),
        (PermissionError(13, "Permission denied", "x"), 2, "Permission denied: 'x'\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device\n"),
        (errors.PackageError("Needs y."), 2, "lsmha: error: Needs y.\n"),
        (KeyboardInterrupt(), 130, "lsmha: interrupted\n"),
    ],
)
def test_errors_are_one_line(error, status, message, monkeypatch, capsys):
    monkeypatch.setattr(presets_command, "run", raiser(error))
    assert cli.main(["presets"]) == status
    captured = capsys.readouterr()
    assert captured.err.endswith(message)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("way", ["option", "option first", "variable"])
def test_traceback_on_request(way, monkeypatch, capsys):
    monkeypatch.setattr(presets_command, "run", raiser(errors.InputError("Wrong.")))
    if way == "variable":
        monkeypatch.setenv("LSMHA_TRACEBACK", "1")
    arguments = {"option": ["presets", "--traceback"], "option first": ["--traceback", "presets"]}
    assert cli.main(arguments.get(way, ["presets"])) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "lsmha: error: Wrong."


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "error", [ValueError("ours"), TypeError("ours"), ImportError("ours"), OSError("ours")]
)
def test_bugs_are_reported_with_traceback_versions_and_command(error, monkeypatch, capsys):
    monkeypatch.setattr(presets_command, "run", raiser(error))
    assert cli.main(["presets", "*h 16*"]) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    *_, raised, request, command, versions = lines
    assert raised == f"{type(error).__name__}: ours"
    assert f"unexpected {type(error).__name__}" in request and "Please report" in request
    assert command == "  command: lsmha presets '*h 16*'"
    assert f"lsmha-keras={lsmha_keras.__version__} " in versions and " python=3." in versions


@pytest.mark.backend_free
def test_a_closed_pipe_is_not_an_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "lsmha_keras.cli", "presets"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 141)


# presets


@pytest.mark.backend_free
def test_presets_table(monkeypatch, tmp_path, capsys):
    folder = tmp_path / "presets" / "cct_2_3x2_h16_cifar100"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    figures = {"parameters": 295333, "dataset": "cifar100", "accuracy": 0.5699, "latency_ms": 2.5}
    (folder / "results.json").write_text(json.dumps(figures))
    monkeypatch.setattr(presets, "zoo_dir", lambda: tmp_path)

    assert cli.main(["presets", "--trained"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "name"
    assert row.split() == ["cct_2_3x2_h16_cifar100", "-", "295,333", "cifar100", "56.99", "2.50"]

    assert cli.main(["presets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == [p.name for p in presets.list_presets()]
    assert listed[0]["parameters"] == 295333
    assert listed[0]["accuracy"] == 56.99  # 100 * 0.5699 is 56.989999999999995


# train, evaluate, predict


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    path = tmp_path_factory.mktemp("recipe") / "short.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    """Output of `lsmha train` with one epoch instead of the recipe's three."""
    output = tmp_path_factory.mktemp("runs") / "digits"
    arguments = ["train", str(recipe), "--output", str(output), "--epochs", "1"]
    assert cli.main([*arguments, "--set", "optimizer.learning_rate=1e-3"]) == 0
    return output


@pytest.fixture(scope="module")
def digit_image(tmp_path_factory):
    """A grey image file whose size is not the model's."""
    path = tmp_path_factory.mktemp("images") / "digit.png"
    pixels = np.random.default_rng(0).integers(0, 256, size=(48, 40), dtype="uint8")
    Image.fromarray(pixels).save(path)
    return path


def test_train_obeys_the_options(trained):
    from lsmha_keras.training.recipe import Recipe

    used = Recipe.from_toml(trained / "recipe.toml")
    assert (used.schedule.epochs, used.optimizer.learning_rate) == (1, 1e-3)
    with (trained / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1


def test_train_again_goes_on_unless_fresh(trained, recipe, capsys):
    arguments = ["train", str(recipe), "--output", str(trained)]
    same = ["--epochs", "1", "--set", "optimizer.learning_rate=1e-3"]
    before = (trained / "checkpoints" / "last.npz").stat().st_mtime_ns
    assert cli.main([*arguments, *same]) == 0
    assert "preset" in capsys.readouterr().out
    assert (trained / "checkpoints" / "last.npz").stat().st_mtime_ns == before
    assert cli.main(arguments) == 2  # another recipe in the same place
    assert "schedule.epochs" in capsys.readouterr().err


@pytest.mark.backend_free
def test_fewer_epochs_than_the_warm_up(tmp_path, capsys):
    recipe = tmp_path / "warm.toml"
    recipe.write_text(
        'name = "warm"\n[model]\npreset = "cct_2_3x2"\n[data]\nname = "digits"\n'
        "[schedule]\nepochs = 5\nwarmup_epochs = 2\n"
    )
    assert cli.main(["train", str(recipe), "--output", str(tmp_path / "o"), "--epochs", "1"]) == 2
    error = capsys.readouterr().err
    assert "with `--set schedule.warmup_epochs=0`" in error
    assert "Received: schedule.warmup_epochs=2, schedule.epochs=1" in error
    assert not list((tmp_path / "o").glob("*"))


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("schedule.epochs=3", (["schedule", "epochs"], 3)),
        ("data.name=digits", (["data", "name"], "digits")),
        ("data.train_split=train[:90%]", (["data", "train_split"], "train[:90%]")),
        ("name=a=b", (["name"], "a=b")),
        ("augmentation.rand_augment.num_ops = 2", (["augmentation", "rand_augment", "num_ops"], 2)),
        (
            "augmentation.random_resized_crop=[0.8, 1.0]",
            (["augmentation", "random_resized_crop"], [0.8, 1.0]),
        ),
    ],
)
def test_set_is_read_as_toml(text, parsed):
    assert parse_change(text) == parsed


def test_set_changes_a_copy():
    values = {"schedule": {"epochs": 3}, "name": "x"}
    changed = changed_values(values, [(["schedule", "epochs"], 1), (["optimizer", "name"], "SGD")])
    assert changed == {"schedule": {"epochs": 1}, "name": "x", "optimizer": {"name": "SGD"}}
    assert values == {"schedule": {"epochs": 3}, "name": "x"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("schedule.epoch=3", "epochs"),
        ("shedule.epochs=3", "schedule"),
        ("schedule.epochs=many", "schedule.epochs"),
        ("epochs", "expects SECTION.KEY=VALUE"),
        ("name.x=1", "`name` is not a table"),
    ],
)
def test_wrong_settings_are_refused(change, message, recipe, tmp_path, capsys):
    output = tmp_path / "out"
    assert cli.main(["train", str(recipe), "--output", str(output), "--set", change]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists() or not any(output.iterdir())


def test_evaluate_prints_what_the_function_returns(trained, tmp_path, capsys):
    preset, table = str(trained / "preset"), tmp_path / "new" / "results.csv"
    arguments = ["evaluate", preset, "--dataset", "digits", "--split", "test[:90]"]
    capsys.readouterr()
    assert cli.main([*arguments, "--json", "--results", str(table)]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = lsmha_keras.evaluate(preset, "digits", split="test[:90]")
    assert printed == pytest.approx(expected, abs=1e-6)
    assert printed["num_images"] == 90

    assert cli.main([*arguments, "--results", str(table)]) == 0
    assert f"accuracy {expected['accuracy']:.2%}" in capsys.readouterr().out
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert float(rows[1]["accuracy"]) == pytest.approx(expected["accuracy"], abs=1e-4)
    assert rows[0]["backend"] in rows[0]["versions"]


def test_foreign_table_is_left_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lsmha_keras.commands.evaluate.import_framework", raiser(AssertionError))
    table = tmp_path / "other.csv"
    table.write_text("a,b\n1,2\n")
    arguments = ["evaluate", "x", "--dataset", "digits", "--results", str(table)]
    assert cli.main(arguments) == 2
    assert "a,b" in capsys.readouterr().err
    assert table.read_text() == "a,b\n1,2\n"


def test_results_columns_are_the_rows_keys(tmp_path):
    figures = {"num_images": 2, "accuracy": 0.5, "top5_accuracy": 1.0, "loss": 0.7}
    _results.append_row(tmp_path / "t.csv", "p", "d", "test", figures, 1.0)
    header, row = (tmp_path / "t.csv").read_text().splitlines()
    assert header == ",".join(_results.COLUMNS)
    assert row.startswith("p,d,test,2,0.5000,1.0000,0.7000,1.0,")
    _results.check_header(tmp_path / "t.csv")


def test_predict_agrees_with_the_model(trained, digit_image, capsys):
    preset = str(trained / "preset")
    classifier = lsmha_keras.CCTImageClassifier.from_preset(preset)
    photo = np.asarray(Image.open(digit_image).convert("RGB"))  # not of the model's size
    logits = classifier.predict(photo[None], verbose=0)[0].astype("float64")
    expected = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-expected)
    capsys.readouterr()

    assert cli.main(["predict", preset, str(digit_image), "--json", "--top", "3"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["image"] == str(digit_image)
    assert [entry["label"] for entry in result["classes"]] == order[:3].tolist()
    assert [entry["name"] for entry in result["classes"]] == [str(label) for label in order[:3]]
    scores = [entry["score"] for entry in result["classes"]]
    np.testing.assert_allclose(scores, expected[order[:3]], atol=1e-6)

    assert cli.main(["predict", preset, str(digit_image)]) == 0
    name, *lines = capsys.readouterr().out.splitlines()
    assert (name, len(lines)) == (str(digit_image), 5)
    assert lines[0].split() == [f"{expected[order[0]]:.2%}", str(order[0])]


def test_predict_names_the_unreadable_and_goes_on(trained, tmp_path, capsys):
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a.png", "sub/c.PNG"):
        Image.new("RGB", (20, 30), (255, 0, 0)).save(tmp_path / name)
    (tmp_path / "a2.jpg").write_bytes(b"not an image")
    (tmp_path / "notes.txt").write_text("left alone: no image by its name")
    capsys.readouterr()
    arguments = ["predict", str(trained / "preset"), str(tmp_path), "--json", "--batch-size", "2"]
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    found = [pathlib.Path(entry["image"]).name for entry in json.loads(captured.out)]
    assert found == ["a.png", "b.png", "c.PNG"]
    (line,) = captured.err.splitlines()
    assert line.startswith(f"lsmha: {tmp_path / 'a2.jpg'}")


def test_predict_does_the_others_when_one_is_missing(trained, digit_image, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    missing, empty = tmp_path / "missing.png", tmp_path / "empty"
    named = [missing, digit_image, empty, digit_image]
    capsys.readouterr()
    assert cli.main(["predict", str(trained / "preset"), "--json", *map(str, named)]) == 1
    captured = capsys.readouterr()
    assert [entry["image"] for entry in json.loads(captured.out)] == [str(digit_image)]
    first, second = captured.err.splitlines()
    assert first == f"lsmha: There is no such image or folder. Received: {missing}"
    assert second.startswith("lsmha: The folder holds no image") and str(empty) in second


def test_predict_in_a_process_of_its_own(trained, digit_image):
    done = run_python("-m", "lsmha_keras.cli", "predict", str(trained / "preset"), str(digit_image))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "cct_2_3x2", "missing.png"], "no such image or folder. Received: missing.png"),
        (["predict", "cct_2_3x2", "empty"], "holds no image"),
        (["predict", "cct_2_3x2", "x.png"], "without trained weights"),
        (["predict", "cct_2_3x2_cifar1000", "x.png"], "Received: preset='cct_2_3x2_cifar1000'"),
        (["evaluate", "cct_2_3x2", "--dataset", "digitz"], "digits"),
        (["train", "no_such_recipe"], "no_such_recipe"),
        (["convert", "missing.pth", "--output", "out"], "missing.pth"),
        (["convert", "x.png", "--output", "full"], "--overwrite"),
    ],
)
def test_mistakes_are_named(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    Image.new("RGB", (20, 30)).save(tmp_path / "x.png")
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "x", "--output", "file/below"],
        ["convert", "x", "--output", "file"],
        ["evaluate", "x", "--dataset", "digits", "--results", "file/below/results.csv"],
        ["evaluate", "x", "--dataset", "digits", "--results", "folder"],
    ],
)
def test_unwritable_output_is_found_before_any_work(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    module = f"lsmha_keras.commands.{arguments[0]}"
    monkeypatch.setattr(f"{module}.import_framework", raiser(AssertionError))
    assert cli.main(arguments) == 2
    assert "Cannot write to" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "nonesuch"],
        ["train", "cct_2_3x2_h16_c1_digits", "--set", "model.preset=nonesuch"],
        ["tune", "nonesuch"],
        ["evaluate", "nonesuch", "--dataset", "digits"],
        ["predict", "nonesuch", "x.png"],
        ["shp", "nonesuch", "--dataset", "digits", "--output", "out"],
        ["committee", "cct_2_3x2", "nonesuch", "--dataset", "digits"],
        ["zoo", "verify", "nonesuch"],
        ["bench", "model", "nonesuch"],
    ],
)
@pytest.mark.backend_free
def test_unknown_names_are_refused_before_a_framework_is_imported(
    arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").touch()
    module = f"lsmha_keras.commands.{arguments[0]}"
    loads = "open_predictor" if arguments[0] == "predict" else "import_framework"
    monkeypatch.setattr(f"{module}.{loads}", raiser(AssertionError))
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert "Received: " in error and "'nonesuch'" in error and error.count("\n") == 1


def raiser(error):
    def run(*args, **kwargs):
        raise error

    return run


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
