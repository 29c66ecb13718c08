"""Directories of training runs and tables of them, written by hand."""

import json

from lsmha_keras.evidence.runs import COLUMNS
from lsmha_keras.text_files import write_rows

RECIPE = """
name = "{name}"
[model]
preset = "cct_2_3x2_h25x5_c1"
[data]
name = "cifar100"
[augmentation]
flip = true
[schedule]
epochs = 3
[runtime]
seed = {seed}
"""

CONFIG = {
    "num_layers": 2,
    "hidden_dim": 128,
    "num_heads": 25,
    "head_dim": 5,
    "tokenizer_layers": 2,
    "tokenizer_kernel_size": 3,
    "num_conv_blocks": 1,
    "conv_block_design": "rep",
    "position_embedding": "learnable",
}


def write_run(directory, name="mine", seed=0, accuracy=0.5, epochs=3, config=CONFIG):
    """Writes what `lsmha train` leaves after some of three epochs."""
    directory.mkdir(parents=True)
    (directory / "recipe.toml").write_text(RECIPE.format(name=name, seed=seed))
    lines = ["epoch,loss", *(f"{epoch + 1},1.0" for epoch in range(epochs))]
    (directory / "history.csv").write_text("\n".join(lines) + "\n")
    if epochs < 3:
        return directory
    results = {
        "name": name,
        "seed": seed,
        "dataset": "cifar100",
        "split": "test",
        "num_images": 10000,
        "accuracy": accuracy,
        "top5_accuracy": 0.75,
        "loss": 1.23456,
        "parameters": 1000,
        "epochs": 3,
        "train_seconds": 60.5,
        "hardware": "a machine, 2 cores",
        "backend": "jax",
        "precision": "float32",
        "versions": {"python": "3.11", "keras": "3.15"},
        "date": "2026-01-31",
    }
    (directory / "preset").mkdir()
    (directory / "preset" / "results.json").write_text(json.dumps(results))
    (directory / "preset" / "config.json").write_text(json.dumps({"config": config}))
    return directory


def write_layouts(path, runs):
    """Writes a table of runs from (layout, conv blocks, accuracy), perhaps a dict of more."""
    rows = []
    for seed, (layout, conv_blocks, accuracy, *more) in enumerate(runs):
        given = {"layout": layout, "conv_blocks": conv_blocks, "accuracy": accuracy, "seed": seed}
        same = {"heads": 4, "parameters": 1000, "epochs": 9, "dataset": "data", "start": "random"}
        rows.append({**dict.fromkeys(COLUMNS, ""), **same, **given, **(more[0] if more else {})})
    write_rows(path, rows, COLUMNS)
