"""Measures how much faster a model is with half of its heads, or a quarter of their maps.

`python -m benchmarks.heads --output head_speed.csv` adds to a table, on the backend of
KERAS_BACKEND. The three models take turns, one step each, in one process. Weights are random: the
time of a step does not depend on them, nor on which heads are gone.
"""

import argparse

import numpy as np

from lsmha_keras.benchmark.benchmark_model import benchmark_model
from lsmha_keras.benchmark.results_table import ResultsTable
from lsmha_keras.errors import InputError
from lsmha_keras.models import CCTImageClassifier
from lsmha_keras.surgery.prune_heads import prune_heads
from lsmha_keras.surgery.share_heads import share_heads

CASE = ("parent", "batch")
FIGURES: tuple[str, ...] = ("model", "heads", "maps", "p50_ms", "p90_ms", "p99_ms")
FIGURES += ("images_per_s", "speedup", "parameters", "multiply_adds", "runs", "note")
WHOLE, PRUNED, SHARED = "whole", "half of the heads", "a quarter of the maps"
_CLASSES = 100


def make_models(parent, **changes):
    """Makes the parent, the pruned and the shared model.

    Args:
        parent: str, name of an architecture with plain attention and a multiple of four heads in
            each block.
        **changes: arguments of the architecture to change, such as `image_shape`.

    Returns:
        A dict from `WHOLE`, `PRUNED` and `SHARED` to a pair: the model, and its heads and maps as
        text.

    Raises:
        ValueError: if the number of heads is no multiple of four.

    Example:

    ```python
    models = make_models("cct_7_3x1_h64")
    ```
    """
    whole = CCTImageClassifier.from_preset(parent, num_classes=_CLASSES, **changes)
    blocks = {i: b for i, b in enumerate(whole.backbone.blocks) if hasattr(b, "num_heads")}
    heads = {index: block.num_heads for index, block in blocks.items()}
    if any(count % 4 for count in heads.values()):
        raise InputError(
            "Blocks must have a multiple of four heads, so that clusters are of one size. "
            f"Received: {parent} with {sorted(set(heads.values()))}"
        )
    halves = {index: range(count // 2) for index, count in heads.items()}
    # Heads that follow each other are alike: four of them share a map.
    similarity = {i: np.kron(np.eye(count // 4), np.ones((4, 4))) for i, count in heads.items()}
    quarters = {index: count // 4 for index, count in heads.items()}
    half, full, quarter = (
        " ".join(str(count // part) for count in heads.values()) for part in (2, 1, 4)
    )
    return {
        WHOLE: (whole, full, full),
        PRUNED: (prune_heads(whole, keep=halves), half, half),
        SHARED: (share_heads(whole, quarters, similarity=similarity), full, quarter),
    }


def measure(models, batch, runs=None):
    """Times the models in turn.

    Args:
        models: dict as `make_models` returns it.
        batch: int, images of a step.
        runs: int, timed steps of each, or `None`; see `benchmark_model`.

    Returns:
        A list with a dict for each model, its keys `FIGURES`; `speedup` is the median time of the
        first over its own.
    """
    first, *others = (model for model, _, _ in models.values())
    speeds = benchmark_model(first, [batch], runs, against=others, memory=False)
    names = [name for name in FIGURES if hasattr(speeds[0], name) and name != "model"]
    rows = []
    for (name, (_, heads, maps)), speed in zip(models.items(), speeds, strict=True):
        figures = {key: getattr(speed, key) for key in names}
        ratio = speed.ratio_to_first
        speedup = round(1 / ratio, 3) if ratio else None
        rows.append({"model": name, "heads": heads, "maps": maps, **figures, "speedup": speedup})
    return rows


def main(arguments=None, **changes):
    """Runs the benchmark from the command line.

    Args:
        arguments: list of str; None takes the process's.
        **changes: arguments of the architecture to change.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="head_speed.csv", help="csv file to add to")
    parser.add_argument("--parent", default="cct_7_3x1_h64", help="name of an architecture")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64], help="images of a step")
    parser.add_argument("--runs", type=int, help="timed steps of each model")
    given = parser.parse_args(arguments)
    results = ResultsTable(given.output, CASE, FIGURES)
    models = None
    for batch in given.batch:
        case = {"parent": given.parent, "batch": batch}
        if results.holds(case):
            print(f"batch {batch}: in {given.output} already")
            continue
        models = models or make_models(given.parent, **changes)
        rows = measure(models, batch, given.runs)
        results.put(case, rows)
        for row in rows:
            print(f"batch {batch}: {row['p50_ms']:9.2f} ms  {row['speedup']:.2f}x  {row['model']}")


if __name__ == "__main__":
    main()
