"""The attention benchmark measures every layer, and says what it leaves out."""

import keras
import pytest

from lsmha_keras.benchmark import attention, attention_memory
from tests.checks import PATIENCE

TINY = {"batch": 2, "tokens": 9, "width": 32, "heads": 4}
LAYERS = ["ours", "keras.layers.MultiHeadAttention"]
if keras.config.backend() == "torch":
    LAYERS.append("torch.nn.MultiheadAttention")


@pytest.mark.parametrize("phase", ["inference", "training"])
def test_one_consistent_row_for_each_layer(phase):
    rows = attention.measure(phase, **TINY, runs=3, limit=PATIENCE)
    assert [row["layer"] for row in rows] == LAYERS
    for row in rows:
        assert tuple(row) == attention.FIGURES
        ratio = row["median_ms"] / rows[0]["median_ms"]
        assert row["ratio_to_ours"] == pytest.approx(ratio, rel=0.01, abs=0.006)
        assert (row["runs"], row["note"]) == (3, "")


def test_peers_that_do_not_fit_are_named_not_run(monkeypatch):
    made = []
    monkeypatch.setattr(attention, "make_steps", lambda *case: made.append(case) or {True: len})
    # 100,000 x 4 heads x 9 x 9 scores of 4 bytes, 4 times.
    case = {**TINY, "batch": 100_000}
    monkeypatch.setattr("lsmha_keras.benchmark.memory._free_gib", lambda: 0.2)
    monkeypatch.setattr(attention, "make_tokens", lambda *shape: "")
    ours, *peers = attention.measure("inference", **case, runs=1)
    assert [layer for layer, *_ in made] == ["ours"]
    assert ours["runs"] == 1
    for row in peers:
        assert (row["median_ms"], row["ratio_to_ours"], row["runs"]) == ("", "", 0)
        assert row["note"] == "not run: it needs about 0.5 GiB, 0.2 GiB are free"


@pytest.mark.parametrize(
    ("graph", "xla", "chosen", "tried"),
    [
        (0.02, 0.01, True, [16]),
        (0.01, 0.02, False, [16]),
        (0.12, 0.06, True, [1, 16]),
        # More than three times as long, by what one image takes.
        (0.12, 0.8, False, [1]),
    ],
)
def test_xla_is_chosen_where_faster_and_not_waited_for(graph, xla, chosen, tried, monkeypatch):
    sizes = {False: [], True: []}

    def fastest_of(variant, x):
        sizes[variant].append(len(x))
        return (xla if variant else graph) * len(x) / 16

    monkeypatch.setattr(attention, "fastest_of", fastest_of)
    found, note = attention.choose_xla({False: False, True: True}, range(16))
    assert found is chosen
    assert sizes == {False: [16], True: tried}
    assert note == ("" if 16 in tried else "XLA takes 0.05 s for a batch of 1")


@pytest.mark.slow
def test_memory_of_each_layer():
    case = {"batch": 8, "tokens": 256, "width": 32, "heads": 16}
    rows = attention_memory.measure("inference", **case, limit=PATIENCE)
    assert [row["layer"] for row in rows if not (row["xla"] and len(rows) > 3)] == LAYERS
    # Keras's layer holds at least one tensor of 8 x 16 x 256 x 256 floats.
    assert all(row["peak_mib"] >= 32 for row in rows if "keras" in row["layer"])
    assert {row["note"] for row in rows} == {""}


def test_memory_that_takes_too_long_is_given_up(monkeypatch):
    rows = attention_memory.measure("inference", **TINY, limit=0.01)
    assert [row["peak_mib"] for row in rows] == [None] * len(rows)
    assert {row["note"] for row in rows} == {"not measured: it took more than 0.01 s"}
