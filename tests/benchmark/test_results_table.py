"""The table of a benchmark: which cases it holds, replaces and refuses."""

import csv
import os

import keras
import pytest

from lsmha_keras.benchmark.results_table import ResultsTable

pytestmark = pytest.mark.backend_free

CASES = [{"batch": 1, "heads": 4}, {"batch": 16, "heads": 4}]


def open_table(path):
    return ResultsTable(path, ["batch", "heads"], ["layer", "ms"], packages=["pytest"])


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def path(tmp_path):
    """A table with two rows for the first case and one for the second."""
    table = open_table(tmp_path / "table.csv")
    table.put(CASES[0], [{"layer": "ours", "ms": 1.5}, {"layer": "peer", "ms": ""}])
    table.put(CASES[1], [{"layer": "ours", "ms": 2.5}])
    return table.path


def test_rows(path):
    columns = ["backend", "batch", "heads", "layer", "ms", "machine", "versions"]
    rows = read(path)
    assert [list(row) for row in rows] == [columns] * 3
    assert [(row["batch"], row["layer"], row["ms"]) for row in rows] == [
        ("1", "ours", "1.5"),
        ("1", "peer", ""),
        ("16", "ours", "2.5"),
    ]
    assert {row["backend"] for row in rows} == {keras.config.backend()}
    assert f"pytest={pytest.__version__}" in rows[0]["versions"]


def test_a_reopened_table_knows_its_cases(path):
    table = open_table(path)
    assert all(table.holds(case) for case in CASES)
    assert not table.holds({"batch": 64, "heads": 4})


def test_another_machine_is_another_case(path, monkeypatch):
    name = "lsmha_keras.benchmark.results_table.describe_hardware"
    monkeypatch.setattr(name, lambda: "another")
    table = open_table(path)
    assert not table.holds(CASES[0])
    table.put(CASES[0], [{"layer": "ours", "ms": 9}])
    assert [row["ms"] for row in read(path)] == ["1.5", "", "2.5", "9"]


def test_a_case_is_replaced(path):
    open_table(path).put(CASES[0], [{"layer": "ours", "ms": 3}])
    assert [(row["batch"], row["ms"]) for row in read(path)] == [("16", "2.5"), ("1", "3")]


def test_a_kill_while_writing_leaves_the_table_of_before(path, monkeypatch):
    before = path.read_text()
    table = open_table(path)

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        table.put(CASES[0], [{"layer": "ours", "ms": 3}])
    assert path.read_text() == before


def test_a_table_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"must have the columns backend,batch.*with a,b"):
        open_table(path)


def test_a_missing_package_is_left_to_the_measurement(tmp_path):
    table = ResultsTable(tmp_path / "table.csv", ["batch"], ["ms"], packages=["no-such-package"])
    table.put({"batch": 1}, [{"ms": 1}])
    assert read(table.path)[0]["versions"].endswith(" no-such-package=missing")
