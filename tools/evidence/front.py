"""Accuracy against cost: the shipped presets beside published CNNs of the same image size."""

import pathlib
import tomllib

from lsmha_keras.errors import InputError
from lsmha_keras.figure_style import INK, MUTED, SIGNAL, draws, new_figure
from lsmha_keras.files import write_atomically
from lsmha_keras.text_files import markdown_table, read_json, read_rows, write_rows

COLUMNS = (
    "model",
    "kind",
    "parameters",
    "multiply_adds",
    "accuracy",
    "epochs",
    "augmentation",
    "source",
)
PRESET = "preset"
# The runtime that `Predictor` prefers.
_RUNTIME = "openvino"
_LATENCY = "median_ms"
_COSTS = {
    "multiply_adds": "multiply-adds of one image",
    "parameters": "parameters",
    _LATENCY: "time of one image (ms)",
}


def measure_front(directories, results_dir):
    """Counts the multiply-adds of presets and updates their rows in `front.csv`.

    Rows of published models stay.

    Args:
        directories: paths of trained presets.
        results_dir: path of `zoo/results`.

    Returns:
        The path of the table.

    Example:

    ```python
    measure_front([find_trained("cct_2_3x2_h16_cifar100")], "zoo/results")
    ```
    """
    from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
    from lsmha_keras.models.cct_classifier import CCTClassifier

    path = pathlib.Path(results_dir) / "front.csv"
    rows = [row for row in read_rows(path, COLUMNS) if row["kind"] != PRESET]
    for directory in map(pathlib.Path, directories):
        results = read_json(directory / "results.json")
        recipe = tomllib.loads((directory / "recipe.toml").read_text(encoding="utf-8"))
        model = CCTClassifier.from_preset(str(directory))
        rows.append(
            {
                "model": results["name"],
                "kind": PRESET,
                "parameters": results["parameters"],
                "multiply_adds": count_multiply_adds(model.backbone),
                "accuracy": results["accuracy"],
                "epochs": _epochs(directory),
                "augmentation": _augmentation(recipe.get("augmentation", {})),
                "source": f"zoo/presets/{results['name']}",
            }
        )
    write_rows(path, rows, COLUMNS)
    return path


def front_table(results_dir):
    """Tabulates accuracy and cost, cheapest model first.

    Args:
        results_dir: path of `zoo/results`, with a `front.csv`, and the `cnn_latency.csv` that
            `python -m benchmarks.cnns` wrote.

    Returns:
        str, a Markdown table; the time is empty for models that were not timed.
    """
    header = ["model", "kind", "multiply-adds (million)", "parameters (million)"]
    header += ["one image (ms)", "top-1 (%)", "epochs", "augmentation", "source"]
    rows = [
        [
            *(row["model"], row["kind"], f"{int(row['multiply_adds']) / 1e6:.1f}"),
            *(f"{int(row['parameters']) / 1e6:.2f}", _milliseconds(row)),
            f"{100 * float(row['accuracy']):.1f}",
            *(row["epochs"], row["augmentation"], row["source"]),
        ]
        for row in sorted(_front_rows(results_dir), key=lambda row: int(row["multiply_adds"]))
    ]
    return markdown_table(header, rows)


@draws
def plot_zoo_front(results_dir, path):
    """Plots accuracy against multiply-adds, parameters and time, on logarithmic axes.

    Args:
        results_dir: as for `front_table`.
        path: image to write.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: if there is no row.

    Example:

    ```python
    plot_zoo_front("zoo/results", "front.png")
    ```
    """
    rows = _front_rows(results_dir)
    if not rows:
        raise InputError(f"`results_dir` must have a front.csv with rows. Received: {results_dir}")
    note = (
        "Blue: presets of this repository, the best named. Grey: CNNs published after 200 epochs."
    )
    figure = new_figure(10.4, 4.2, "CIFAR-100: what an image costs and how often it is right", note)
    for axes, (cost, label) in zip(figure.subplots(1, 3, sharey=True), _COSTS.items(), strict=True):
        for row in filter(lambda row, cost=cost: row[cost], rows):
            ours = row["kind"] == PRESET
            point = float(row[cost]), 100 * float(row["accuracy"])
            axes.plot(*point, "o" if ours else "s", color=SIGNAL if ours else MUTED)
            if not ours or _is_best_at(row, rows, cost):
                offset = {"xytext": (4, 2), "textcoords": "offset points"}
                name = row["model"].replace("_cifar100", "")
                axes.annotate(name, point, fontsize=5.5, color=INK, **offset)
        axes.set_xscale("log")
        axes.margins(x=0.2)
        axes.set_xlabel(label)
    figure.axes[0].set_ylabel("top-1 accuracy (%)")
    path = pathlib.Path(path)
    form = path.suffix.lstrip(".") or None
    write_atomically(path, lambda file: figure.savefig(file, format=form))


def _is_best_at(row, rows, cost):
    """Returns whether no other preset is more accurate at the same or a lower cost."""
    return not any(
        other["kind"] == PRESET
        and other[cost]
        and float(other[cost]) <= float(row[cost])
        and float(other["accuracy"]) > float(row["accuracy"])
        for other in rows
    )


def _front_rows(results_dir):
    """Reads the rows of `front.csv`, each with the time of one image, or "" if not measured."""
    folder = pathlib.Path(results_dir)
    times = {
        row["model"]: row[_LATENCY]
        for row in read_rows(folder / "cnn_latency.csv", ("runtime", "model", _LATENCY))
        if row["runtime"] == _RUNTIME
    }
    rows = read_rows(folder / "front.csv", COLUMNS)
    return [{**row, _LATENCY: times.get(row["model"], "")} for row in rows]


def _milliseconds(row):
    return f"{float(row[_LATENCY]):.2f}" if row[_LATENCY] else ""


def _epochs(directory):
    """Counts the epochs of a preset, with those of the preset that it was trained from."""
    epochs = read_json(directory / "results.json")["epochs"]
    model = tomllib.loads((directory / "recipe.toml").read_text(encoding="utf-8"))["model"]
    start = directory.parent / model["preset"]
    trained = model.get("load_weights", True) and (start / "results.json").is_file()
    return epochs + (_epochs(start) if trained else 0)


def _augmentation(table):
    names = {"pad_crop": "crop", "flip": "flip", "rand_augment": "RandAugment"}
    names |= {"mixup": "MixUp", "cutmix": "CutMix", "random_erasing": "erasing"}
    used = [names.get(key, key) for key, value in table.items() if value]
    return " and ".join(used) if len(used) < 3 else f"{', '.join(used[:-1])} and {used[-1]}"
