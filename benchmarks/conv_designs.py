"""Compares the designs of the conv block: accuracy after equal training, and latency.

`python -m benchmarks.conv_designs --data-dir DATA` trains a small model with each design
(and with a transformer block in its place) with the recipe `conv_design_study`, then times the
folded blocks beside each other. If it is stopped, the same command continues both tables.
"""

import argparse
import pathlib

import keras
import numpy as np

from lsmha_keras.benchmark.results_table import ResultsTable
from lsmha_keras.benchmark.timing import make_step, summarise, time_in_turn
from lsmha_keras.layers.conv_block import DESIGNS, ConvBlock
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.training.recipe import Recipe, load_recipe
from lsmha_keras.training.train import train

TRANSFORMER = "transformer"
ACCURACY_CASE = ("design", "seed")
ACCURACY_FIGURES = ("accuracy", "loss", "parameters", "epochs", "train_split", "test_split")
LATENCY_CASE = ("grid", "width", "batch")
LATENCY_FIGURES = (
    "design",
    "median_ms",
    "fastest_ms",
    "slowest_ms",
    "ratio_to_transformer",
    "runs",
)
# Grid of tokens and width of CCT-2/3x2 and of CCT-7/3x1.
_SIZES = ((8, 128), (16, 256))
_HEADS = 16


def measure_accuracy(design, seed, data_dir=None, output_dir=None, recipe="conv_design_study"):
    """Trains the study's model with one design and evaluates it on held-out images.

    Args:
        design: str, one of `lsmha_keras.layers.conv_block.DESIGNS`, or "transformer", which leaves
            the first block as it is.
        seed: int.
        data_dir: folder that holds the data.
        output_dir: path of the run; an earlier one there is continued.
        recipe: name or path of the recipe. Defaults to `"conv_design_study"`.

    Returns:
        A dictionary, its keys `ACCURACY_FIGURES`.

    Example:

    ```python
    row = measure_accuracy("full", seed=0, data_dir="~/datasets")
    ```
    """
    table = load_recipe(recipe).to_dict()
    table["runtime"]["seed"] = seed
    if design == TRANSFORMER:
        table["model"]["overrides"]["num_conv_blocks"] = 0
    else:
        table["model"]["overrides"]["conv_block_design"] = design
    recipe = Recipe.from_dict(table)
    results = train(recipe, output_dir, data_dir, verbose=0).results
    row = {key: results[key] for key in ("accuracy", "loss", "parameters", "epochs")}
    return {**row, "train_split": recipe.data.train_split, "test_split": recipe.data.test_split}


def measure_latency(grid, width, batch, runs=30):
    """Times the folded blocks of all designs, and a transformer block of 16 heads, in turn.

    Args:
        grid: int, side of the grid of tokens.
        width: int, width of the tokens.
        batch: int.
        runs: int, number of timed steps of each, after warm-up.

    Returns:
        A list of dictionaries, one for each candidate, their keys `LATENCY_FIGURES`.

    Example:

    ```python
    rows = measure_latency(grid=8, width=128, batch=1)
    ```
    """
    tokens = np.random.default_rng(0).normal(size=(batch, grid * grid, width)).astype("float32")
    # The perceptron of CCT-2 is as wide as its tokens, that of CCT-7 twice.
    blocks = {TRANSFORMER: TransformerBlock(_HEADS, width if width < 256 else 2 * width)}
    blocks |= {name: ConvBlock((grid, grid), design=name, fused=True) for name in DESIGNS}
    steps = {}
    for name, block in blocks.items():
        block.build(tokens.shape)
        step = make_step(block, block)
        steps[name] = lambda step=step: step(keras.ops.convert_to_tensor(tokens))
    seconds, _ = time_in_turn(steps, runs)
    rows = []
    for name, found in seconds.items():
        figures = summarise(found, seconds[TRANSFORMER])
        ratio = figures.pop("ratio_to_ours")
        rows.append({"design": name, **figures, "ratio_to_transformer": ratio})
    return rows


def main(arguments=None):
    """Runs the study from the command line.

    Args:
        arguments: list of str; `None` takes the process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="conv_designs.csv", help="table of accuracies")
    parser.add_argument("--latency-output", default="conv_block_latency.csv")
    parser.add_argument("--data-dir", help="folder that holds cifar-100-python")
    parser.add_argument("--runs-dir", default="runs/conv_designs", help="where training writes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", choices=("accuracy", "latency"), help="one of the two tables")
    given = parser.parse_args(arguments)
    if given.only != "latency":
        _tabulate_accuracy(given)
    if given.only != "accuracy":
        _tabulate_latency(given)


def _tabulate_accuracy(given):
    table = ResultsTable(given.output, ACCURACY_CASE, ACCURACY_FIGURES)
    for seed in given.seeds:
        for design in (TRANSFORMER, *DESIGNS):
            case = {"design": design, "seed": seed}
            if not table.holds(case):
                output_dir = pathlib.Path(given.runs_dir) / f"{design}_seed{seed}"
                row = measure_accuracy(design, seed, given.data_dir, output_dir)
                table.put(case, [row])
                print(f"{design:20} seed {seed}: {row['accuracy']:.2%}", flush=True)


def _tabulate_latency(given):
    table = ResultsTable(given.latency_output, LATENCY_CASE, LATENCY_FIGURES)
    for grid, width in _SIZES:
        for batch in (1, 64):
            case = {"grid": grid, "width": width, "batch": batch}
            if table.holds(case):
                continue
            rows = measure_latency(grid, width, batch)
            table.put(case, rows)
            for row in rows:
                ms = f"{row['median_ms']:9.3f} ms {row['ratio_to_transformer']:>6}x"
                print(f"{grid}x{grid}x{width} batch {batch:<3} {row['design']:20} {ms}", flush=True)


if __name__ == "__main__":
    main()
