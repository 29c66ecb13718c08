"""The tables of kinds of attention: what is measured, and what is said of the rest."""

import pytest

from lsmha_keras.attention.registry import attention_names
from lsmha_keras.presets import zoo_dir
from lsmha_keras.text_files import read_rows
from tools.evidence.kind_tables import (
    TABLES,
    accuracy_table,
    cost_table,
    memory_table,
    time_table,
)
from tools.evidence.tables import evidence_text

pytestmark = pytest.mark.backend_free

COST = """\
backend,phase,batch,heads,attention,ratio_to_multi_head,ratio_of_multiply_adds
torch,inference,1,16,multi_head,1.0,1.0
torch,inference,1,16,grouped,0.95,0.69
jax,training,64,64,multi_head,1.0,1.0
"""
MEMORY = """\
backend,phase,batch,heads,attention,xla,peak_mib,ratio_to_multi_head
jax,inference,64,64,multi_head,True,10.0,1.0
jax,inference,64,64,talking,True,25.0,2.5
tensorflow,inference,64,64,talking,True,10.0,3.0
tensorflow,inference,64,64,talking,False,10.0,7.25
"""
ACCURACY = """\
attention,seed,options,accuracy,top5_accuracy,parameters,multiply_adds,epochs,train_split,\
clusters_per_head,coverage,noise_per_head
moh,0,{},0.40,0.7,300123,27000000,8,train[:50%],16.25,4.1,301
moh,1,{},0.42,0.7,300123,27000000,8,train[:50%],15.75,4.3,299
"""


def line_of(table, kind):
    (line,) = [text for text in table.splitlines() if text.startswith(f"| `{kind}` |")]
    return line


def test_cost_and_time(tmp_path):
    assert "not measured yet" in cost_table(tmp_path)
    assert "not measured yet" in time_table(tmp_path, "torch")
    (tmp_path / "attention_kinds.csv").write_text(COST)
    table = cost_table(tmp_path)
    assert table.startswith("| kind | 16 heads | 64 heads |")
    assert line_of(table, "multi_head") == "| `multi_head` | 1.00 | 1.00 |"
    assert line_of(table, "grouped") == "| `grouped` | 0.69 | not measured |"
    table = time_table(tmp_path, "torch")
    assert table.startswith("| kind | 16 heads, inference, batch 1 |")
    assert line_of(table, "grouped") == "| `grouped` | 0.95 |"
    assert "64 heads, training, batch 64" in time_table(tmp_path, "jax")
    assert len(table.splitlines()) == 2 + len(attention_names())


def test_memory(tmp_path):
    assert "not measured yet" in memory_table(tmp_path, "jax")
    (tmp_path / "attention_kinds_memory.csv").write_text(MEMORY)
    assert line_of(memory_table(tmp_path, "jax"), "talking") == "| `talking` | 2.50 |"
    table = memory_table(tmp_path, "tensorflow")
    assert line_of(table, "talking") == "| `talking` | 7.25 |"
    assert line_of(table, "eit") == "| `eit` | not measured |"


def test_accuracy(tmp_path):
    assert "not measured yet" in accuracy_table(tmp_path)
    (tmp_path / "kinds.csv").write_text(ACCURACY)
    table = accuracy_table(tmp_path)
    assert line_of(table, "moh") == "| `moh` | 41.00 | 2 | 300,123 | 27.0 | 16.0 | 4.20 | 300 |"
    assert line_of(table, "eit").startswith("| `eit` | not measured |")


@pytest.mark.skipif(not (zoo_dir() / "VARIANTS.md").exists(), reason="needs a checkout")
def test_the_page_is_what_the_csv_files_give():
    text = (zoo_dir() / "VARIANTS.md").read_text(encoding="utf-8")
    assert evidence_text(text, zoo_dir() / "results", TABLES) == text


@pytest.mark.skipif(not (zoo_dir() / "VARIANTS.md").exists(), reason="needs a checkout")
def test_what_the_page_concludes():
    text = " ".join((zoo_dir() / "VARIANTS.md").read_text(encoding="utf-8").split())
    columns = ["attention", "accuracy", "clusters_per_head", "coverage", "noise_per_head"]
    rows = read_rows(zoo_dir() / "results" / "kinds.csv", columns)
    figures = {
        row["attention"]: (
            f"{float(row['clusters_per_head']):.1f}",
            f"{float(row['noise_per_head']):.0f}",
        )
        for row in rows
    }
    moh, plain, shared = (figures[kind] for kind in ("moh", "multi_head", "multi_query"))
    assert f"`moh` has {moh[0]} clusters and a noise of {moh[1]}" in text
    assert f"one of plain attention {plain[0]} and {plain[1]}." in text
    assert f"does the opposite, {shared[0]} and {shared[1]}." in text
    accuracy = {row["attention"]: 100 * float(row["accuracy"]) for row in rows}
    order = sorted(accuracy, key=accuracy.get)
    assert order[-3:] == ["knocking", "windows", "talking"] and order[0] == "head_embedding"
    told = {kind: f"{accuracy[kind]:.2f}" for kind in ("talking", "windows", "knocking", "normlin")}
    assert f"(`talking`, {told['talking']} %) is the most accurate" in text
    assert f"`windows` ({told['windows']}) and `knocking` ({told['knocking']}) come next" in text
    lost = accuracy["multi_head"] - accuracy["normlin"]
    assert f"reaches {told['normlin']} %: {lost:.1f} points" in text
    (alike,) = (row["coverage"] for row in rows if row["attention"] == "head_embedding")
    assert f"recognised by {float(alike):.1f} of the 16 heads" in text
    assert abs(accuracy["efficient"] - accuracy["multi_head"]) < 0.1  # "loses nothing"


@pytest.mark.skipif(not (zoo_dir() / "VARIANTS.md").exists(), reason="needs a checkout")
def test_what_the_page_says_of_times():
    text = " ".join((zoo_dir() / "VARIANTS.md").read_text(encoding="utf-8").split())
    columns = ["attention", "batch", "ratio_to_multi_head", "ratio_of_multiply_adds"]
    rows = read_rows(zoo_dir() / "results" / "attention_kinds.csv", columns)
    times = {
        kind: [
            float(row["ratio_to_multi_head"])
            for row in rows
            if (row["attention"], row["batch"]) == (kind, "1")
        ]
        for kind in ("talking", "knocking")
    }
    assert len(times["talking"]) == 12
    low, high = min(times["talking"]), max(times["talking"])
    assert f"at {low:.1f} to {high:.1f} times the time of plain attention at batch 1" in text
    assert f"costs at most {max(times['knocking']):.1f} times the time at batch 1" in text
    saved = {row["ratio_of_multiply_adds"] for row in rows if row["attention"] == "efficient"}
    assert saved == {"0.67"} and "saves a third of a layer's multiply-adds" in text
