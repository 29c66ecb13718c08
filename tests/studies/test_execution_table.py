"""The table of executions: what is written comes back, what is torn is named."""

import json

import pytest

from lsmha_keras.studies.execution_table import collect_executions, read_table, write_table
from tests.studies.rows import row

pytestmark = pytest.mark.backend_free


def test_table_round_trip(tmp_path):
    rows = [row("00", 1.5, 0.25, error="two\nlines", seed=3), row("01", None, None, heads=4)]
    write_table(rows, tmp_path / "deep" / "table.csv")
    again = read_table(tmp_path / "deep" / "table.csv")
    assert again[0]["trial"] == "00" and again[0]["latency_ms"] == 1.5
    assert again[0]["error"] == "two lines" and again[0]["seed"] == 3
    assert again[1]["latency_ms"] is None and again[1]["hp.num_heads"] == 4
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="other.csv without study, trial"):
        read_table(tmp_path / "other.csv")


def test_torn_files_are_left_out(tmp_path):
    for trial, text in (("1", json.dumps(row("1", 1.0, 0.5))), ("0", '{"trial": "0", ')):
        path = tmp_path / f"trial_{trial}" / "execution_0" / "execution.json"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    with pytest.warns(UserWarning, match="trial_0.execution_0.execution.json"):
        assert [found["trial"] for found in collect_executions(tmp_path)] == ["1"]


@pytest.mark.parametrize("bad", [{"trial": 1}, {"execution": "0"}, {"status": None}])
def test_rows_that_cannot_be_sorted_are_left_out(tmp_path, bad):
    for trial, found in (("0", row("0", 1.0, 0.5) | bad), ("1", row("1", 1.0, 0.5))):
        path = tmp_path / f"trial_{trial}" / "execution_0" / "execution.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(found))
    with pytest.warns(UserWarning, match=f"trial_0.*{next(iter(bad))}="):
        assert [found["trial"] for found in collect_executions(tmp_path)] == ["1"]


def test_kinds_of_cells(tmp_path):
    settings = {"hp.design": "1_2", "hp.heads": [2, 4], "hp.bias": False, "hp.name": "cct_2_3x2"}
    write_table([row("0", 0.1 + 0.2, 0.5) | settings], tmp_path / "table.csv")
    (again,) = read_table(tmp_path / "table.csv")
    assert again["latency_ms"] == 0.1 + 0.2  # to the last bit
    assert {key: again[key] for key in settings} == settings | {"hp.heads": "[2, 4]"}
    assert again["hp.bias"] is False


@pytest.mark.parametrize("end", [",1", ""])
def test_torn_tables_are_named(tmp_path, end):
    path = tmp_path / "table.csv"
    write_table([row("0", 1.0, 0.5), row("1", 1.0, 0.5)], path)
    text = path.read_text().rstrip("\n")
    path.write_text(text + end if end else text[: text.rindex(",")])
    with pytest.raises(ValueError, match="Received: .*table.csv, line 3"):
        read_table(path)
