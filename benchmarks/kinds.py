"""Trains one small model with each kind of attention and measures its heads.

`python -m benchmarks.kinds --data-dir DATA` trains the layout `cct_2_3x2_h16` for 8 epochs on half
of CIFAR-100's training images, one kind after the other, and adds a row for each to a table. If it
is stopped, the same command continues.
"""

import argparse
import json
import pathlib

from lsmha_keras.attention.registry import attention_names
from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.benchmark.results_table import ResultsTable
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readout_trainer import fit_readout
from lsmha_keras.training.recipe import Recipe, load_recipe
from lsmha_keras.training.train import train
from tools.evidence.kind_tables import ACCURACY_CASE, ACCURACY_FIGURES


def measure(
    attention,
    seed,
    options=None,
    data_dir=None,
    output_dir=None,
    recipe="cct_2_3x2_h16_cifar100",
    epochs=8,
    train_split="train[:50%]",
    readout_epochs=10,
):
    """Trains a model with a kind of attention, evaluates it, and measures its last block's heads.

    Args:
        attention: str, a name of `list_attention`.
        seed: int.
        options: dict of the arguments that only this kind has, or `None`.
        data_dir: folder that holds the data.
        output_dir: path of the run; an earlier one there is continued.
        recipe: name, path or dict of the recipe whose model, data and schedule are taken.
        epochs: int, of the schedule.
        train_split: str.
        readout_epochs: int, of the readouts.

    Returns:
        A dict, its keys `ACCURACY_FIGURES`. The heads' figures are those of single-head performance
        on the test split, at the threshold 0.3.

    Example:

    ```python
    row = measure("moh", seed=0, data_dir="~/datasets")
    ```
    """
    table = load_recipe(recipe).to_dict()
    overrides = {"attention": attention, **({"attention_options": options} if options else {})}
    table["model"]["overrides"] = {**table["model"]["overrides"], **overrides}
    table["data"]["train_split"], table["schedule"]["epochs"] = train_split, epochs
    table["runtime"]["seed"] = seed
    recipe = Recipe.from_dict(table)
    trained = train(recipe, output_dir, data_dir, verbose=0)
    model, name = trained.model, recipe.data.name
    splits = {"train": train_split, "test": recipe.data.test_split}
    blocks = [len(model.backbone.blocks) - 1]
    readouts = fit_readout(
        model,
        name,
        blocks,
        num_labels=model.num_classes,
        epochs=readout_epochs,
        split=splits["train"],
        data_dir=data_dir,
        verbose=0,
    )
    (heads,) = single_head_performance(
        model, readouts, name, split=splits["test"], data_dir=data_dir, verbose=0
    ).values()
    return {
        "options": json.dumps(options or {}),
        **{key: trained.results[key] for key in ("accuracy", "top5_accuracy", "parameters")},
        "multiply_adds": count_multiply_adds(model),
        "epochs": epochs,
        "train_split": train_split,
        "clusters_per_head": round(float(heads.statistics.num_clusters.mean()), 3),
        "coverage": round(float(heads.coverage[heads.label_counts > 0].mean()), 3),
        "noise_per_head": round(float(heads.noise), 3),
    }


def main(arguments=None):
    """Runs the study from the command line.

    Args:
        arguments: list of str; `None` takes the process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="kinds.csv", help="csv file to add to")
    parser.add_argument("--data-dir", help="folder that holds cifar-100-python")
    parser.add_argument("--runs-dir", default="runs/kinds", help="where training writes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="cct_2_3x2_h16_cifar100", help="name or path")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--train-split", default="train[:50%]", help="images to train on")
    parser.add_argument("--only", nargs="+", choices=attention_names(), help="some of the kinds")
    given = parser.parse_args(arguments)
    table = ResultsTable(given.output, ACCURACY_CASE, ACCURACY_FIGURES)
    for attention in given.only or attention_names():
        case = {"attention": attention, "seed": given.seed}
        if table.holds(case):
            continue
        row = measure(
            attention,
            given.seed,
            data_dir=given.data_dir,
            output_dir=pathlib.Path(given.runs_dir) / f"{attention}_seed{given.seed}",
            recipe=given.recipe,
            epochs=given.epochs,
            train_split=given.train_split,
        )
        table.put(case, [row])
        print(f"{attention:15} seed {given.seed}: {row['accuracy']:.2%}", flush=True)


if __name__ == "__main__":
    main()
