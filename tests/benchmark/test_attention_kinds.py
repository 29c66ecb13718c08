"""The benchmark of the kinds of attention has a row for each, beside plain attention."""

import pytest

from lsmha_keras.attention.registry import attention_names
from lsmha_keras.benchmark import attention_kinds, attention_kinds_memory
from tests.checks import PATIENCE


def test_one_consistent_row_for_each_kind(monkeypatch):
    # XLA compiles every layer otherwise; what it is chosen by has a test of its own.
    monkeypatch.setattr(attention_kinds, "choose_xla", lambda variants, x: (min(variants), ""))
    case = {"batch": 1, "tokens": 16, "width": 32, "heads": 8}
    rows = attention_kinds.measure("inference", **case, runs=2, limit=PATIENCE)
    assert [row["attention"] for row in rows] == attention_names()
    plain = rows[0]
    assert (plain["ratio_to_multi_head"], plain["ratio_of_multiply_adds"]) == (1, 1)
    for row in rows:
        assert tuple(row) == attention_kinds.FIGURES
        ratio = row["median_ms"] / plain["median_ms"]
        assert row["ratio_to_multi_head"] == pytest.approx(ratio, rel=0.01, abs=0.006)
    found = {row["attention"]: (row["parameters"], row["multiply_adds"]) for row in rows}
    # Tokens 16, width 32, eight heads of width 4, by the formulas of the layers.
    assert found["multi_head"] == (4 * 32 * 32 + 32, 16 * 4 * 32 * 32 + 2 * 16**2 * 32)
    assert found["multi_query"][0] == 2 * 32 * 32 + 2 * 32 * 4 + 32
    assert found["talking"][1] == found["multi_head"][1] + 2 * 16**2 * 8**2


def test_memory_of_each_kind(monkeypatch):
    module = attention_kinds_memory
    monkeypatch.setattr(module, "attention_names", lambda: ["multi_head", "talking"])
    case = {"batch": 8, "tokens": 256, "width": 32, "heads": 16}
    rows = module.measure("inference", **case, limit=PATIENCE)
    assert {row["note"] for row in rows} == {""}
    for plain, talking in zip(rows[::2], rows[1::2], strict=True):
        assert (plain["attention"], talking["attention"]) == ("multi_head", "talking")
        assert plain["ratio_to_multi_head"] == 1
        ratio = talking["peak_mib"] / plain["peak_mib"]
        assert talking["ratio_to_multi_head"] == pytest.approx(ratio, abs=0.006)
        # It holds the scores of all heads, 8 x 16 x 256 x 256 floats.
        assert talking["peak_mib"] >= 32


@pytest.mark.parametrize("module", [attention_kinds, attention_kinds_memory])
def test_tokens_that_are_no_square(module):
    with pytest.raises(ValueError, match="tokens=15"):
        module.measure("inference", batch=1, tokens=15, width=32, heads=8)
