"""`lsmha bench`: what it writes, skips and refuses."""

import csv
import pathlib

import keras
import pytest

from lsmha_keras import cli

TINY = ["--batch", "2", "--tokens", "9", "--width", "32"]


def bench(path, *options):
    arguments = ["bench", "attention", *TINY, "--runs", "2", "--output", str(path), *options]
    assert cli.main(arguments) == 0
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def plan(*options):
    args = cli.build_parser().parse_args(["bench", *options])
    return args.plan(args)


def test_goes_on_where_the_table_ends(tmp_path, capsys):
    path = tmp_path / "new" / "attention.csv"
    first = bench(path, "--heads", "4", "--phase", "inference")
    assert "[1/1] phase inference width 32 batch 2 tokens 9 heads 4\n  ours" in (
        capsys.readouterr().out
    )
    both = bench(path, "--heads", "4", "8", "--phase", "inference")
    printed = capsys.readouterr().out
    assert f"1 of 2 cases are in {path}" in printed
    assert "[1/1] phase inference width 32 batch 2 tokens 9 heads 8" in printed
    assert both[: len(first)] == first
    assert [row["heads"] for row in both] == ["4"] * len(first) + ["8"] * len(first)
    again = bench(path, "--heads", "4", "--phase", "inference", "--fresh", "--runs", "1")
    assert len(again) == len(both)
    assert {row["heads"]: row["runs"] for row in again} == {"8": "2", "4": "1"}
    assert {row["backend"] for row in again} == {keras.config.backend()}


def test_memory_has_its_own_table(tmp_path, monkeypatch, capsys):
    path = tmp_path / "memory.csv"
    name = "lsmha_keras.benchmark.attention_memory.peak_in_new_process"
    monkeypatch.setattr(name, lambda *case: (12.5, ""))
    rows = bench(path, "--heads", "4", "--phase", "training", "--memory")
    assert {row["peak_mib"] for row in rows} == {"12.5"}
    assert " 12.5 MiB\n" in capsys.readouterr().out
    assert cli.main(["bench", "attention", *TINY, "--heads", "4", "--output", str(path)]) == 2
    assert "The table must have the columns" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "module", "number", "last"),
    [
        (
            ["attention"],
            "attention",
            2 * 3 * 2 * 6,
            {"phase": "training", "width": 256, "batch": 64, "tokens": 256, "heads": 128},
        ),
        (
            ["attention", "--memory"],
            "attention_memory",
            2,
            {"phase": "training", "width": 256, "batch": 16, "tokens": 256, "heads": 128},
        ),
        (
            ["kinds", "--memory"],
            "attention_kinds_memory",
            2 * 2,
            {"phase": "training", "width": 256, "batch": 64, "tokens": 256, "heads": 64},
        ),
        (
            ["cct"],
            "cct",
            2 * 2 * 5,
            {"model": "cct_7_3x1", "phase": "training", "batch": 64, "heads": 128},
        ),
    ],
)
def test_default_cases(options, module, number, last):
    name, cases, _ = plan(*options)
    assert (name, len(cases)) == (module, number)
    assert cases[-1] == last
    assert cases[0]["phase"] == "inference"


def test_a_size_given_twice_counts_once():
    _, cases, _ = plan("cct", "--heads", "8", "4", "8", "--batch", "1", "--phase", "training")
    assert [case["heads"] for case in cases] == [8, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "required: WHAT"),
        (["attention", "--heads"], "expected at least one argument"),
        (["attention", "--batch", "0"], "expected a positive integer. Received: 0"),
        (["attention", "--phase", "sleeping"], "invalid choice: 'sleeping'"),
        (["cct", "--heads"], "expected at least one argument"),
        (["model"], "required: NAME"),
    ],
)
def test_mistyped_options(options, message, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["bench", *options])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["attention", "--heads", "4", "7", "12"], "divide the width of the tokens, 256."),
        (["attention", "--heads", "4", "7", "12"], "Received: --heads 7 12"),
        (["attention", "--heads", "7", "--width", "49", "--output", "/proc/x.csv"], "/proc"),
        (["cct", "--heads", "3"], "divide the width of the tokens, 256. Received: --heads 3"),
        (["cct", "--model", "resnet"], "such as cct_7_3x1"),
        (["cct", "--model", "cct_7_3x1_c2"], "Received: --model cct_7_3x1_c2"),
        (["model", "cct_2_3x2_h17x"], "cct_2_3x2"),
        (["model", "cct_2_3x2", "--against", "resnet"], "vit_pytorch.cct, keras_hub.vit or timm:"),
        (["model", "cct_2_3x2", "--device", "gpu:99"], "cpu:0. Received: device='gpu:99'"),
    ],
)
def test_refused(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", *options]) == 2
    assert message in capsys.readouterr().err
    assert list(pathlib.Path().iterdir()) == []


def test_models_beside_each_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lsmha_keras.benchmark.benchmark_model._peak", lambda *case: (12.5, ""))
    path = tmp_path / "model.csv"
    names = ["cct_2_3x2", "cct_2_3x2_c1"]
    options = ["--fuse", "--batch", "1", "2", "--runs", "2", "--device", "cpu"]
    arguments = ["bench", "model", *names, *options, "--output", str(path)]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "[1/2] models cct_2_3x2, cct_2_3x2_c1 against  fuse True device cpu:0 batch 1" in printed
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["batch"], row["model"]) for row in rows] == [
        ("1", "cct_2_3x2"),
        ("1", "cct_2_3x2_c1 (fused)"),
        ("2", "cct_2_3x2"),
        ("2", "cct_2_3x2_c1 (fused)"),
    ]
    # 100 classes in place of the reference's 10: 90 more dense units of 128 weights and a bias.
    assert rows[0]["parameters"] == str(283_723 + 90 * 129)
    assert rows[0]["multiply_adds"] == str(35_341_568 + 90 * 128)
    assert {(row["ratio_to_first"] == "1.0") for row in rows[::2]} == {True}
    assert {(row["runs"], row["p99_ms"], row["peak_mib"]) for row in rows} == {("2", "", "12.5")}
    assert cli.main(arguments) == 0
    assert f"2 of 2 cases are in {path}" in capsys.readouterr().out
