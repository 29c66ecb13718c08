"""Old spellings work for one more release, and say what to write instead."""

import inspect

import pytest

import lsmha_keras as lsmha
from lsmha_keras import cli, old_spellings

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize(("old", "new"), old_spellings.NAMES.items())
def test_old_names_are_the_new_ones(old, new):
    with pytest.warns(DeprecationWarning, match=f"{old}` is now `{new}`"):
        assert getattr(lsmha, old) is getattr(lsmha, new)
    assert new in dir(lsmha) and old not in dir(lsmha)


@pytest.mark.parametrize("name", [*old_spellings.ARGUMENTS, *old_spellings.POSITIONS])
def test_the_tables_fit_what_they_are_about(name):
    parameters = inspect.signature(getattr(lsmha, name)).parameters
    for old, new in old_spellings.ARGUMENTS.get(name, {}).items():
        assert new in parameters and old not in parameters
    for argument in old_spellings.POSITIONS.get(name, ()):
        assert parameters[argument].kind is inspect.Parameter.KEYWORD_ONLY


def test_old_arguments_of_layers_are_taken_with_a_warning():
    with pytest.warns(DeprecationWarning, match="`alpha` of CutMix is now `factor`"):
        layer = lsmha.CutMix(alpha=0.7)
    assert layer.get_config()["factor"] == 0.7
    with pytest.warns(DeprecationWarning) as warned:
        layer = lsmha.RandomErasing.from_config({"probability": 0.5, "area": [0.1, 0.2]})
    assert (layer.factor, layer.scale, len(warned)) == (0.5, [0.1, 0.2], 2)


def test_an_old_argument_is_taken_with_a_warning(tmp_path):
    with pytest.warns(DeprecationWarning, match="`directory` of SHPCallback is now `output_dir`"):
        callback = lsmha.SHPCallback("digits", "digits", directory=tmp_path)
    assert callback.output_dir == tmp_path
    with (
        pytest.warns(DeprecationWarning),
        pytest.raises(TypeError, match="two values for output_dir"),
    ):
        lsmha.SHPCallback("digits", "digits", directory=tmp_path, output_dir=tmp_path)


def test_arguments_that_had_a_position(monkeypatch):
    monkeypatch.setitem(old_spellings.POSITIONS, "toy", ("b", "c"))

    def toy(a, *, c=3, b=2):
        return a, b, c

    toy.__qualname__ = "toy"
    toy = old_spellings.takes_old_arguments(toy)
    assert toy(1) == (1, 2, 3)
    assert toy(1, c=5) == (1, 2, 5)
    with pytest.warns(DeprecationWarning, match="`b` by position in toy is now `b=`"):
        assert toy(1, 5, c=7) == (1, 5, 7)
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match="two values for b"):
        toy(1, 5, b=7)
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match="positional"):
        toy(1, 5, 6, 7)


OPTIONS = [
    (command, old, new)
    for command, options in old_spellings.OPTIONS.items()
    for old, new in options.items()
]


@pytest.mark.parametrize(("command", "old", "new"), OPTIONS)
def test_old_options_become_the_new_ones(command, old, new, capsys):
    help_of = [command, "attention", "--help"] if command == "bench" else [command, "--help"]
    with pytest.raises(SystemExit):
        cli.main(help_of)
    shown = capsys.readouterr().out
    assert f"{new} " in shown or f"{new}]" in shown
    assert f"{old} " not in shown and f"{old}]" not in shown
    with pytest.warns(DeprecationWarning, match=f"{old}` is now `{new}`"):
        changed = old_spellings.with_new_options(["--backend", "jax", command, f"{old}=y", "z"])
    assert changed == ["--backend", "jax", command, f"{new}=y", "z"]
    assert capsys.readouterr().err.startswith(f"lsmha: `lsmha {command} {old}` is now `{new}`")


def test_the_output_of_convert_had_a_position(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.warns(DeprecationWarning, match="--output DIR"):
        assert cli.main(["convert", "missing.pth", "out"]) == 2
    assert "checkpoint does not exist" in capsys.readouterr().err
    assert (tmp_path / "out").is_dir()
    assert cli.main(["convert", "missing.pth"]) == 2
    assert "Received: no --output" in capsys.readouterr().err
