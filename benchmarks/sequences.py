"""Measures recipes of texts and series over heads, seeds and architectures, beside linear models.

`python -m benchmarks.sequences text_cct_2_4x1_h16_trec --data-dir DIR` adds what the table
`zoo/results/sequences.csv` lacks, on the backend of KERAS_BACKEND. `--presets` trains other
architectures, such as `text_cct_2_2x1_h16_mqa`, with the settings of the recipe.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

from lsmha_keras.benchmark.results_table import ResultsTable
from lsmha_keras.data.open_dataset import open_dataset
from lsmha_keras.errors import PackageError
from lsmha_keras.presets import parse_architecture
from lsmha_keras.training.recipe import load_recipe
from lsmha_keras.training.train import train
from lsmha_keras.words import split_words

CASE = ("model", "dataset", "heads", "seed")
FIGURES = ("accuracy", "macro_accuracy", "num_texts", "parameters", "epochs", "seconds")
# Longest runs of words that count, by the name of the linear model.
BASELINES = {"linear, words": 1, "linear, words and pairs": 2}
SERIES_BASELINE = "linear, values"


def measure_recipe(recipe, heads, seed, data_dir=None):
    """Trains a recipe of texts or series with another number of heads and another seed.

    Args:
        recipe: as for `lsmha_keras.train`.
        heads: int, heads of each block, or "" for those of the recipe.
        seed: int.
        data_dir: folder that holds the data.

    Returns:
        A dict with the keys `FIGURES`; accuracies of the recipe's test split, in 0 .. 1.

    Example:

    ```python
    measure_recipe("text_cct_2_4x1_h16_trec", heads=32, seed=1, data_dir="datasets")
    ```
    """
    values = load_recipe(recipe).to_dict()
    if heads != "":
        values["model"]["overrides"] = {**values["model"]["overrides"], "num_heads": heads}
    values["runtime"] |= {"seed": seed}
    with tempfile.TemporaryDirectory() as directory:
        results = train(values, directory + "/run", data_dir, verbose=0).results
    return {
        "accuracy": round(results["accuracy"], 4),
        "macro_accuracy": round(results["macro_accuracy"], 4),
        "num_texts": results["num_images"],
        "parameters": results["parameters"],
        "epochs": results["epochs"],
        "seconds": results["train_seconds"],
    }


def measure_baseline(name, dataset, split="test", data_dir=None, train_split="train"):
    """Fits a linear model to which words, or also which pairs of neighbours, a text has.

    It is scikit-learn's logistic regression with its default penalty, on the words that the text
    models have; for series on all values of all time steps.

    Args:
        name: a key of `BASELINES`, or `SERIES_BASELINE`.
        dataset: str, as for `open_dataset`.
        split: str, split to measure the accuracy on.
        data_dir: folder that holds the data.
        train_split: str, split to train on.

    Returns:
        A dict with the keys `FIGURES`.

    Raises:
        ImportError: if scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import FunctionTransformer
    except ImportError as error:
        raise PackageError("The linear models need `pip install scikit-learn`.") from error
    fitted, tested = (open_dataset(dataset, part, data_dir) for part in (train_split, split))
    begun = time.perf_counter()
    if name == SERIES_BASELINE:
        bags = FunctionTransformer(lambda series: series.reshape(len(series), -1))
    else:
        bags = CountVectorizer(
            analyzer=lambda text: _grams(split_words(text, lowercase=True), BASELINES[name]),
            binary=True,
        )
    model = LogisticRegression(max_iter=1000)
    model.fit(bags.fit_transform(fitted.load(np.arange(len(fitted)))), fitted.labels)
    seconds = time.perf_counter() - begun
    right = model.predict(bags.transform(tested.load(np.arange(len(tested))))) == tested.labels
    of_classes = [right[tested.labels == label].mean() for label in np.unique(tested.labels)]
    return {
        "accuracy": round(float(right.mean()), 4),
        "macro_accuracy": round(float(np.mean(of_classes)), 4),
        "num_texts": len(right),
        "parameters": model.coef_.size + model.intercept_.size,
        "epochs": "",
        "seconds": round(seconds, 1),
    }


def _grams(words, longest):
    return [
        " ".join(words[i : i + length])
        for length in range(1, longest + 1)
        for i in range(len(words) - length + 1)
    ]


def main(arguments=None):
    """Measures what the table does not hold yet, for these versions and this machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    parser.add_argument("--heads", nargs="+", type=int, default=[16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--presets", nargs="+", default=[], metavar="ARCHITECTURE")
    parser.add_argument("--data-dir", metavar="DIR")
    parser.add_argument("--output", default="zoo/results/sequences.csv", metavar="FILE.csv")
    args = parser.parse_args(arguments)
    table = ResultsTable(pathlib.Path(args.output), CASE, FIGURES)
    for recipe in map(load_recipe, args.recipes):
        data = recipe.data
        series = parse_architecture(recipe.model.preset) and "series" in recipe.model.preset
        for name in [SERIES_BASELINE] if series else BASELINES:
            case = {"model": name, "dataset": data.name, "heads": "", "seed": ""}
            if not table.holds(case):
                found = measure_baseline(
                    name, data.name, data.test_split, args.data_dir, data.train_split
                )
                table.put(case, [found])
        for model, values in _models(recipe, args.presets).items():
            for heads in _heads(values["model"]["preset"], args):
                for seed in args.seeds:
                    case = dict(zip(CASE, (model, data.name, heads, seed), strict=True))
                    if not table.holds(case):
                        table.put(case, [measure_recipe(values, heads, seed, args.data_dir)])


def _models(recipe, architectures):
    """The recipe by its name, or those with other architectures by theirs and the data's."""
    found = {} if architectures else {recipe.name: recipe.to_dict()}
    for architecture in architectures:
        values = recipe.to_dict()
        values["model"]["preset"] = architecture
        found[f"{architecture}_{recipe.data.name}"] = values
    return found


def _heads(architecture, args):
    """The numbers of heads to measure; of a CNN there are none."""
    config = parse_architecture(architecture) or {}
    is_cnn = config.get("num_conv_blocks") == config.get("num_layers", 0)
    return [""] if is_cnn else args.heads


if __name__ == "__main__":
    main()
