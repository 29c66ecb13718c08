"""What a benchmark finds out about a model."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ModelSpeed:
    """Speed and cost of inference with one model at one batch size; `None` is what is not known.

    Attributes:
        model: str, its name.
        batch: int, images in a step.
        device: str, such as "cpu:0".
        runs: int, timed steps.
        p50_ms: float, median time of a step, in milliseconds.
        p90_ms: float, nine in ten steps take no longer.
        p99_ms: float, likewise 99 in 100; `None` from fewer than 100 runs.
        fastest_ms: float.
        images_per_s: float, `batch` by the median time.
        ratio_to_first: float, median time over that of the first model measured beside it; below 1
            is faster.
        compile_s: float, by how much the first step takes longer than the median, in seconds.
        peak_mib: float, what a step adds to a process's memory at its peak, in MiB.
        parameters: int.
        multiply_adds: int, of one image; see `count_multiply_adds`.
        note: str, what was not measured and why.
    """

    model: str
    batch: int
    device: str
    runs: int = 0
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    fastest_ms: float | None = None
    images_per_s: float | None = None
    ratio_to_first: float | None = None
    compile_s: float | None = None
    peak_mib: float | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    note: str = ""

    def __str__(self):
        facts = [f"{self.model}, batch {self.batch} on {self.device}:"]
        if self.p50_ms is not None:
            facts.append(f"{self.p50_ms:.2f} ms, {self.images_per_s:.0f} images/s")
        return " ".join([*facts, *([f"({self.note})"] if self.note else [])])
