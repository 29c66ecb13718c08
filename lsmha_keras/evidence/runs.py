"""Finished training runs as rows of a table."""

import pathlib

from lsmha_keras.errors import InputError
from lsmha_keras.presets import parse_architecture
from lsmha_keras.text_files import read_json, read_rows, write_rows
from lsmha_keras.training.recipe import Recipe


class UnfinishedRunError(InputError):
    """A training run is not finished.

    Args:
        directory: path of the run.
        epoch: int, the last finished epoch.
        epochs: int, number of epochs in the recipe.

    Example:
        >>> str(UnfinishedRunError("runs/a", 6, 18)).partition(";")[0]
        'The run is not finished: it has reached epoch 6 of 18'
    """

    def __init__(self, directory, epoch, epochs):
        super().__init__(
            f"The run is not finished: it has reached epoch {epoch} of {epochs}; the same "
            f"`lsmha train` continues it. Received: {directory}"
        )


COLUMNS = (
    "name",
    "layout",
    "heads",
    "head_dim",
    "conv_blocks",
    "design",
    "start",
    "epochs",
    "seed",
    "augmentation",
    "dataset",
    "split",
    "num_images",
    "accuracy",
    "top5_accuracy",
    "loss",
    "parameters",
    "train_seconds",
    "backend",
    "precision",
    "machine",
    "versions",
    "date",
)


def run_row(directory):
    """Describes a finished training run as a row of a table.

    Args:
        directory: output directory of `lsmha_keras.train`, or the preset that it made.

    Returns:
        A dict with the keys `COLUMNS`.

    Raises:
        UnfinishedRunError: if the run is not finished; says which epoch it has reached.
        ValueError: if it is not the directory of a run.

    Example:

    ```python
    row = run_row("runs/mine")
    print(row["layout"], row["seed"], row["accuracy"])
    ```
    """
    directory = pathlib.Path(directory).expanduser()
    if not (directory / "recipe.toml").is_file():
        raise InputError(
            "A run is the output directory of `lsmha train`, with a recipe.toml. "
            f"Received: {directory}"
        )
    recipe = Recipe.from_toml(directory / "recipe.toml")
    preset = directory / "preset" if (directory / "preset").is_dir() else directory
    if not (preset / "results.json").is_file():
        reached = _epochs(directory / "history.csv")
        raise UnfinishedRunError(directory, reached, recipe.schedule.total_epochs)
    results = read_json(preset / "results.json")
    config = read_json(preset / "config.json")["config"]
    versions = results["versions"].items()
    return {
        **{key: results[key] for key in COLUMNS if key in results},
        **_structure(config),
        "start": _start(recipe.model),
        "augmentation": _augmentation(recipe.augmentation),
        **{key: f"{results[key]:.4f}" for key in ("accuracy", "top5_accuracy", "loss")},
        "machine": results["hardware"],
        "versions": " ".join(f"{name}={version}" for name, version in versions),
    }


def _structure(config):
    blocks = (config.get("blocks") or ["conv"] * config["num_conv_blocks"]).count("conv")
    heads, width = config["num_heads"], config["head_dim"]
    if blocks == config["num_layers"]:  # a CNN
        heads = width = None
    elif width is None and not isinstance(heads, list):
        width = config["hidden_dim"] // heads
    return {
        "layout": _layout(config),
        "heads": _words(heads),
        "head_dim": _words(width),
        "conv_blocks": blocks,
        # Empty where there is no convolutional block.
        "design": config["conv_block_design"] if blocks else "",
    }


def _layout(config):
    """Names the architecture, as `from_preset` takes it if all blocks have the same heads."""
    kind = ""
    if "sequence_length" in config:
        kind = "text_" if config["vocabulary_size"] else "series_"
    name = f"{kind}cct_{config['num_layers']}_{config['tokenizer_kernel_size']}x"
    name += str(config["tokenizer_layers"])
    designs = {"separable": "_sep", "inverted_bottleneck": "_ib"}
    name += designs.get(config.get("tokenizer_design", "plain"), "")
    name += {"sine": "_sine", "none": "_none"}.get(config["position_embedding"], "")
    heads, width = config["num_heads"], config["head_dim"]
    cnn = config["num_conv_blocks"] == config["num_layers"]
    known = (parse_architecture(name) or {}).get("num_heads")
    if not cnn and (width is not None or heads != known):
        name += f"_h{_words(heads, '-')}" + ("" if width is None else f"x{_words(width, '-')}")
    if config.get("blocks"):
        return f"{name}_{'-'.join(config['blocks'])}"
    return name + (f"_c{config['num_conv_blocks']}" if config["num_conv_blocks"] else "")


def _start(section):
    if not section.load_weights or parse_architecture(section.preset):
        return "random"
    return pathlib.Path(section.preset).name


def _words(value, separator=" "):
    """Writes a number, or one for each block; what follows from the heads is left empty."""
    if isinstance(value, list):
        return separator.join(map(_words, value))
    return "" if value is None else str(value)


def _augmentation(table):
    return ", ".join(f"{key} {value}" for key, value in table.items()) or "none"


def _epochs(path):
    return len(read_rows(path, ["epoch"]))


def merge_runs(path, rows):
    """Adds training runs to a table; a run of the same name and seed is replaced in its place.

    Args:
        path: csv file, made if it does not exist.
        rows: list of dicts, as `run_row` returns them.

    Raises:
        ValueError: if the file has other columns.

    Example:

    ```python
    merge_runs("layouts.csv", [run_row("runs/mine")])
    ```
    """
    merged = {_key(row): row for row in [*read_rows(path, COLUMNS), *rows]}
    write_rows(path, merged.values(), COLUMNS)


def _key(row):
    return row["name"], str(row["seed"])
