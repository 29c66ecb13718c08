"""A table of results: one row a measurement, with all that is needed to judge it."""

import csv
import datetime
import pathlib

COLUMNS = (
    "preset",
    "dataset",
    "split",
    "num_images",
    "accuracy",
    "top5_accuracy",
    "loss",
    "seconds",
    "backend",
    "machine",
    "versions",
    "date",
)


def check_header(path):
    """Refuses a table whose columns are not ours.

    Args:
        path: the csv file; it need not exist.

    Raises:
        ValueError: if the file has another header.
    """
    path = pathlib.Path(path)
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open(newline="") as file:
        header = next(csv.reader(file), [])
    if tuple(header) != COLUMNS:
        raise ValueError(
            f"The results file must start with the columns {','.join(COLUMNS)}. "
            f"Received: {path} with {','.join(header)}"
        )


def append_row(path, preset, dataset, split, figures, seconds):
    """Appends one measurement, with a header when the file is new.

    Args:
        path: the csv file.
        preset: name or directory of the model.
        dataset: name of the dataset.
        split: its part.
        figures: dictionary with `num_images`, `accuracy`, `top5_accuracy` and `loss`.
        seconds: wall-clock time of the measurement.
    """
    path = pathlib.Path(path).expanduser()
    is_new = not path.exists() or path.stat().st_size == 0
    row = {
        "preset": preset,
        "dataset": dataset,
        "split": split,
        "num_images": int(figures["num_images"]),
        "accuracy": f"{figures['accuracy']:.4f}",
        "top5_accuracy": f"{figures['top5_accuracy']:.4f}",
        "loss": f"{figures['loss']:.4f}",
        "seconds": f"{seconds:.1f}",
        **_surroundings(),
    }
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _surroundings():
    import keras

    from lsmha_keras.training.environment import describe_hardware, describe_versions

    return {
        "backend": keras.backend.backend(),
        "machine": describe_hardware(),
        "versions": " ".join(f"{name}={version}" for name, version in describe_versions().items()),
        "date": datetime.date.today().isoformat(),
    }
