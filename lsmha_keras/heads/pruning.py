"""What pruning costs and saves, step by step: figures, a table, a curve; and the fine-tuning."""

import keras
import numpy as np

from lsmha_keras import presets
from lsmha_keras.benchmark.benchmark_model import benchmark_model
from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.data.pipelines import epoch_batches
from lsmha_keras.errors import InputError
from lsmha_keras.figure_style import INK, MUTED, NOISE, SIGNAL, draws, new_figure
from lsmha_keras.files import write_atomically
from lsmha_keras.progress import fit_progress
from lsmha_keras.surgery.prune_heads import prunable_blocks, prune_heads
from lsmha_keras.text_files import read_rows, write_rows
from lsmha_keras.training.build_model import compile_model, make_policy
from lsmha_keras.training.evaluate import evaluate
from lsmha_keras.training.recipe import Recipe, load_recipe

_BATCH = 128
# Of images that are not scored, as many times more to fit readouts on.
_READOUT_SHARE = 4


# Of the cells of a row.
_KINDS = {
    "fraction": float,
    "heads": int,
    "heads_per_block": str,
    "parameters": int,
    "multiply_adds": int,
    "images": int,
    "accuracy_untuned": float,
    "accuracy": float,
    "tuned": "True".__eq__,
    "latency_ms": lambda text: float(text) if text else None,
    "latency_ratio": lambda text: float(text) if text else None,
}


class FineTuning:
    """Trains a pruned model; called with it.

    The images are augmented as in the recipe that is saved with the preset, if there is one. AdamW
    with a cosine schedule; weight decay 0.05, no warm-up.

    Args:
        teacher: `CCTImageClassifier`, the model with all heads.
        preset: str, name or directory of its preset.
        source: `ImageDataset` to train on.
        epochs: int.
        learning_rate: float.
        teach: float from 0 to 1, the teacher's share of the loss.
        seed: int.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.

    Raises:
        ValueError: if a number is out of range, or the augmentation does not suit the images.

    Example:

    ```python
    tune = FineTuning(model, "lsmha-small", train_data, epochs=3)
    tune(prune_heads(model, remove={2: [0]}))
    ```
    """

    def __init__(
        self,
        teacher,
        preset,
        source,
        epochs,
        learning_rate=5e-4,
        teach=0.5,
        seed=0,
        verbose="auto",
    ):
        if not 0 <= teach <= 1:
            raise InputError(
                f"The teacher's share of the loss must be from 0 to 1. Received: teach={teach}"
            )
        if keras.activations.get(teacher.activation) is not keras.activations.linear:
            raise InputError(
                "A model that is fine-tuned must predict logits. "
                f"Received: activation={teacher.activation!r}"
            )
        self.teacher, self.teach = teacher, teach
        self.source, self.seed, self.verbose = source, seed, verbose
        file = presets.resolve_preset(preset) / "recipe.toml"
        augmentation = load_recipe(str(file)).augmentation if file.is_file() else {}
        self.recipe = Recipe.from_dict(
            {
                "model": {"preset": str(preset)},
                "data": {"name": source.name, "batch_size": min(_BATCH, len(source))},
                "augmentation": augmentation,
                "schedule": {"epochs": epochs},
                "optimizer": {"learning_rate": learning_rate, "weight_decay": 0.05},
                "runtime": {"seed": seed},
            }
        )
        self.policy = make_policy(self.recipe, source)

    def __call__(self, model):
        """Trains a model, in place."""
        epochs = self.recipe.schedule.epochs
        batches, steps_per_epoch = epoch_batches(
            self.source,
            self.recipe.data.batch_size,
            policy=self.policy,
            one_hot=True,
            seed=self.seed,
            epochs=epochs,
            drop_remainder=True,
        )
        compile_model(model, self.recipe, steps_per_epoch)
        if self.teach:
            model.distill_from(self.teacher, weight=self.teach)
        model.fit(
            batches,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            shuffle=False,  # the batches come shuffled
            **fit_progress(self.verbose),
        )
        if self.teach:
            model.distill_from(None)


def split_for_scores(source, count, seed=0):
    """Chooses images to score heads on, and others to fit readouts on.

    Args:
        source: `ImageDataset`.
        count: int, of the former; at most half of the images.
        seed: int.

    Returns:
        Two `ImageDataset`s without an image in common; the second has at most four times as many.
    """
    rows = np.random.default_rng(seed).permutation(len(source))
    count = max(1, min(count, len(rows) // 2))
    return source.select(rows[:count]), source.select(rows[count : (1 + _READOUT_SHARE) * count])


class PruningReport:
    """Collects the figures of steps, see `prune_steps`.

    Args:
        test_data: `ImageDataset` to measure accuracy on.

    Example:

    ```python
    report = PruningReport(test_data)
    for step in prune_steps(model, 0.5, "random"):
        report.add(step)
    report.measure_latency()
    report.save("runs/half", step)
    ```
    """

    def __init__(self, test_data):
        self.test_data = test_data
        self.rows = []
        self._models = []

    def add(self, step):
        """Measures a `PruningStep`; returns its row, a dict."""
        untuned = evaluate(step.untuned, self.test_data)["accuracy"]
        tuned = step.model is not step.untuned
        row = {
            "fraction": round(step.fraction, 6),
            "heads": sum(map(len, step.heads.values())),
            "heads_per_block": " ".join(str(len(heads)) for heads in step.heads.values()),
            "parameters": step.model.count_params(),
            "multiply_adds": count_multiply_adds(step.model),
            "images": len(self.test_data),
            "accuracy_untuned": untuned,
            "accuracy": evaluate(step.model, self.test_data)["accuracy"] if tuned else untuned,
            "tuned": tuned,
            "latency_ms": None,
            "latency_ratio": None,
        }
        self.rows.append(row)
        self._models.append(step.model)
        return row

    def restore(self, folder, model):
        """Takes the rows that `save` wrote, as if their steps had been added.

        Args:
            folder: path with a `curve.csv`.
            model: `CCTImageClassifier`, the one with all heads. Those of the steps are made of it
                anew, with as many heads; latency depends on nothing else.
        """
        blocks = prunable_blocks(model)
        for row in read_rows(folder / "curve.csv", _KINDS):
            self.rows.append({name: kind(row[name]) for name, kind in _KINDS.items()})
            counts = map(int, row["heads_per_block"].split())
            keep = {block: range(count) for block, count in zip(blocks, counts, strict=True)}
            self._models.append(prune_heads(model, keep=keep))

    def measure_latency(self, runs=100):
        """Adds the median time of one image, all models in turn, in ms and over the first one's."""
        first, *others = self._models
        speeds = benchmark_model(first, [1], runs, against=others, memory=False)
        for row, speed in zip(self.rows, speeds, strict=True):
            row["latency_ms"], row["latency_ratio"] = speed.p50_ms, speed.ratio_to_first

    def save(self, folder, step):
        """Writes `curve.csv` and `heads.csv` into a folder, the latter for the given step."""
        write_rows(folder / "curve.csv", self.rows)
        rows = [
            {"block": block, "head": place, "head_before": head}
            for block, heads in step.heads.items()
            for place, head in enumerate(heads)
        ]
        write_rows(folder / "heads.csv", rows)


@draws
def draw_curve(rows, folder, title):
    """Draws accuracy, parameters and latency against the share of heads removed.

    Args:
        rows: list of dicts as `PruningReport` makes them.
        folder: path; gets `curve.png` and `curve.svg`.
        title: str.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    note = f"{rows[0]['heads']} heads, {rows[0]['images']:,} images"
    figure = new_figure(6.4, 5.2, title, note)
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 2])
    shares = [100 * row["fraction"] for row in rows]
    kinds = [("accuracy_untuned", "pruned", NOISE, "--")]
    if any(row["tuned"] for row in rows):
        kinds.append(("accuracy", "fine-tuned", SIGNAL, "-"))
    for name, label, color, style in kinds:
        above.plot(
            shares, [100 * row[name] for row in rows], style, color=color, label=label, marker="o"
        )
    above.set_ylabel("accuracy (%)")
    above.legend()
    for name, label, color in (
        ("parameters", "parameters", INK),
        ("multiply_adds", "multiply-adds", MUTED),
        ("latency_ms", "latency of one image", SIGNAL),
    ):
        if rows[0][name] is not None:
            values = [100 * row[name] / rows[0][name] for row in rows]
            below.plot(shares, values, color=color, label=label, marker="o")
    below.set(xlabel="heads removed (%)", ylabel="of the whole model (%)", ylim=(0, None))
    below.legend()
    for kind in ("png", "svg"):
        write_atomically(
            folder / f"curve.{kind}", lambda file, kind=kind: figure.savefig(file, format=kind)
        )
    return figure
