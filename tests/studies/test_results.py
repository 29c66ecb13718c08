"""The tables of tuning/README.md are those of the committed csv files."""

import re

import pytest

from lsmha_keras.presets import tuning_dir
from lsmha_keras.studies.execution_table import read_table
from lsmha_keras.studies.search_result import study_report
from lsmha_keras.studies.study import load_study

pytestmark = pytest.mark.backend_free

RESULTS = sorted((tuning_dir() / "results").glob("*.csv"))
_TABLES = re.compile(r"<!-- begin: (\w+) -->\n(.*?)<!-- end: \1 -->", re.DOTALL)


def test_tables_of_the_readme():
    found = dict(_TABLES.findall((tuning_dir() / "README.md").read_text(encoding="utf-8")))
    assert "cifar100_heads" in found
    for name, text in found.items():
        rows = read_table(tuning_dir() / "results" / f"{name}.csv")
        assert text == study_report(rows).replace("## ", "### ")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_rows_are_of_the_study(path):
    study = load_study(path.stem)
    for row in read_table(path):
        values = {name: row[f"hp.{name}"] for name in study.space.names}
        for name, value in values.items():
            dimension = study.space.dimensions[name]
            if dimension.choices is not None:
                assert value in dimension.choices
            else:
                assert dimension.low <= value <= dimension.high
        assert row["epochs"] == study.recipe.schedule.epochs


def test_cifar100_executions():
    rows = read_table(tuning_dir() / "results" / "cifar100_heads.csv")
    assert len(rows) >= 24
    assert {row["hp.num_heads"] for row in rows} == {2, 4, 8, 16, 32, 64}
