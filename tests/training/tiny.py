"""A dataset and a recipe small enough to train in seconds."""

import csv

import numpy as np

SIDE, CLASSES = 16, 4


def write_dataset(path, seed=0, train=96, test=40):
    """Writes an `.npz` of noisy pictures: each class has a bright quarter of its own."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % CLASSES
        images = rng.integers(0, 120, (count, SIDE, SIDE, 3))
        half = SIDE // 2
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(label, 2)
            image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 100
        arrays |= {f"x_{part}": images.astype("uint8"), f"y_{part}": labels.astype("int32")}
    np.savez(path, **arrays)
    return path


def recipe_dict(dataset, /, **sections):
    """Returns a recipe as a dict; `sections` are merged into it."""
    recipe = {
        "name": "tiny",
        "model": {
            "preset": "cct_2_3x2",
            "image_shape": [SIDE, SIDE, 3],
            "overrides": {
                "hidden_dim": 16,
                "mlp_dim": 16,
                "num_heads": 4,
                "tokenizer_filters": 8,
                "num_conv_blocks": 1,
                "dropout_rate": 0.1,
            },
        },
        "data": {"name": str(dataset), "batch_size": 16},
        "augmentation": {"pad_crop": 1, "flip": False},
        "schedule": {"epochs": 4, "warmup_epochs": 1},
        "optimizer": {"learning_rate": 2e-2, "weight_decay": 0.05},
        "loss": {"label_smoothing": 0.1},
        "runtime": {"seed": 3},
    }
    for name, values in sections.items():
        recipe[name] = {**recipe.get(name, {}), **values} if isinstance(values, dict) else values
    return recipe


def read_history(run):
    with (run / "history.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
