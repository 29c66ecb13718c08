"""Candidates are timed in turn, and slow ones are left out."""

import pytest

from lsmha_keras.benchmark import timing
from lsmha_keras.benchmark.timing import fastest_of, summarise, time_in_turn

pytestmark = pytest.mark.backend_free


class Clock:
    """A clock that advances only in the candidates that it makes."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def candidate(self, name, *seconds):
        seconds = iter(seconds)

        def call():
            self.calls.append(name)
            self.now += next(seconds)

        return call


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", lambda: clock.now)
    return clock


def test_in_turn(clock):
    steps = {
        "long": clock.candidate("long", 9, 0.25, 0.5),
        # Short calls are made twice a turn, and the second counts.
        "short": clock.candidate("short", 1, 0.15, 0.01, 0.15, 0.02),
    }
    seconds, left_out = time_in_turn(steps, runs=2)
    assert clock.calls == ["long", "short"] + ["long", "short", "short"] * 2
    assert left_out == {}
    assert seconds["long"] == pytest.approx([0.25, 0.5])
    assert seconds["short"] == pytest.approx([0.01, 0.02])


def test_slow_candidates_are_left_out_after_one_call(clock):
    steps = {"slow": clock.candidate("slow", 3.14), "quick": clock.candidate("quick", 3, 1, 1, 1)}
    seconds, left_out = time_in_turn(steps, runs=3, limit=3.1)
    assert clock.calls == ["slow"] + ["quick"] * 4
    assert seconds == {"quick": pytest.approx([1, 1, 1])}
    assert left_out == {"slow": "not timed: the first step took 3.14 s"}


@pytest.mark.parametrize(
    ("seconds", "fastest"),
    [
        ([0, 8, 6, 1], 6),
        # Quick calls are repeated until they make up 50 ms.
        ([0, 0.02, 0.01, 0.01, 0.005, 0.02, 0.001], 0.005),
    ],
)
def test_fastest_of_leaves_out_the_first_call(seconds, fastest, clock):
    assert fastest_of(clock.candidate("", *seconds)) == pytest.approx(fastest)


def test_summary():
    assert summarise([0.003, 0.001, 0.0025], ours=[0.001, 0.004, 0.002]) == {
        "median_ms": 2.5,
        "fastest_ms": 1.0,
        "slowest_ms": 3.0,
        "ratio_to_ours": 1.25,
        "runs": 3,
    }
    assert summarise([0.001], ours=[])["ratio_to_ours"] == ""
    assert set(summarise([], ours=[0.001]).values()) == {"", 0}
