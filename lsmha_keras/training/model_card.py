"""Writes the model card of a preset."""

import itertools

from lsmha_keras.presets import list_presets, parse_architecture
from lsmha_keras.text_files import markdown_table
from lsmha_keras.training.card_of_inputs import card_of_inputs
from lsmha_keras.training.known_data import KNOWN_DATA, card_metadata

# Cards have a table of so many classes at most.
_LISTED_CLASSES = 10
_TEXT = """\
{metadata}
# {name}

A compact convolutional transformer that classifies {inputs} into
{num_classes} classes, {start}
({structure}).

| | |
|---|---|
| accuracy ({split}, {num_images:,} {many}) | {accuracy:.2%} |
{macro}{top5}| cross-entropy | {loss:.4f} |
{calibration}| parameters | {parameters:,} |
| latency of one {one} | {latency} |
| training | {epochs} epochs in {precision}, {minutes:.1f} min |
| hardware | {hardware} |
| backend | {backend} |
| date | {date} |

These are the figures of one run with seed {seed}. Other seeds give slightly different ones. The
training time includes whatever slowed the machine down.

## Use

```python
import lsmha_keras

# A name, a directory or "hf://user/repository".
classifier = lsmha_keras.{loader}.from_preset({name!r})
{use}
```

{elsewhere}

## Intended use and limits

{limits}
{classes}{siblings}{shp}
## Data

{data}. Trained on `{train_split}`{validation}, evaluated once on `{split}`.
{augmentation}

## Schedule

{schedule}

## Reproduce

```
{command}
```

Versions: {versions}. `recipe.toml` holds every setting, `history.csv` every epoch, `golden.npz`
artificial {many} with the logits they must give.

## Licence

The weights are under Apache-2.0. {data_licence}

## Citation

```bibtex
@article{{gross2025lowlatency,
  title   = {{Low-latency vision transformers via large-scale multi-head attention}},
  author  = {{Gross, Ronit D. and Halevi, Tal and Koresh, Ella and Tzach, Yarden and Kanter, Ido}},
  journal = {{Physica A}},
  volume  = {{675}},
  year    = {{2025}},
  note    = {{arXiv:2506.23832}}
}}
@article{{hassani2021escaping,
  title   = {{Escaping the Big Data Paradigm with Compact Transformers}},
  author  = {{Hassani, Ali and Walton, Steven and Shah, Nikhil and Abuduweili, Abulikemu
             and Li, Jiachen and Shi, Humphrey}},
  journal = {{arXiv:2104.05704}},
  year    = {{2021}}
}}
```
"""


def model_card(recipe, model, results, per_class=(), shp=()):
    """Writes the model card of a trained preset: figures, use, limits, data and training.

    Args:
        recipe: `Recipe` it was trained with.
        model: the trained `CCTImageClassifier`.
        results: dict, as in `results.json`.
        per_class: list of dicts, as in `ClassReport.per_class`, or an empty one.
        shp: list of dicts, as in the `blocks.csv` of `lsmha shp`, or an empty one.

    Returns:
        str, Markdown, with the metadata that Hugging Face reads.

    Example:

    ```python
    text = model_card(result.recipe, result.model, result.results)
    ```
    """
    data = recipe.data
    return _TEXT.format(
        **{key: value for key, value in results.items() if key != "versions"},
        metadata=card_metadata(results, task=card_of_inputs(model)["task"]),
        structure=_structure(model.backbone),
        num_classes=model.num_classes,
        **card_of_inputs(model),
        start=_start(recipe.model),
        latency=_latency(results),
        minutes=results["train_seconds"] / 60,
        macro=_macro(results),
        top5=_top5(results),
        calibration=_calibration(results),
        classes=_classes(per_class, card_of_inputs(model)["many"]),
        siblings=_siblings(results),
        shp=_shp(shp),
        data=_cite(data.name),
        train_split=data.train_split,
        validation=f", watched on `{data.validation_split}`" if data.validation_split else "",
        augmentation=_augmentation(recipe.augmentation),
        schedule=_schedule(recipe),
        versions=", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        data_licence=_data_licence(data.name),
    )


def _latency(results):
    if results.get("latency_ms") is None:
        return "not measured"
    where = f"{results['latency_backend']} on {results['latency_hardware']}"
    ways = results.get("latencies_ms", {}).items()
    others = "".join(f"; {way}: {milliseconds:.2f} ms" for way, milliseconds in ways)
    return f"{results['latency_ms']:.2f} ms (median; {where}){others}"


def _start(section):
    # An architecture has no weights to start from, whatever `load_weights` says.
    if not section.load_weights or parse_architecture(section.preset):
        return f"trained from random weights of `{section.preset}`"
    return f"trained from the weights of `{section.preset}`"


def _structure(backbone):
    words = {"conv": "convolutional", "attention": "transformer"}
    runs = itertools.groupby(words.get(kind, kind) for kind in backbone.block_kinds)
    blocks = ", ".join(f"{len(list(run))} {word}" for word, run in runs)
    heads = f"heads: {backbone.num_heads}"
    if backbone.head_dim is not None:
        heads += f" of width {backbone.head_dim}"
    return f"blocks: {blocks}; {heads}; width of the tokens: {backbone.hidden_dim}"


def _macro(results):
    if "macro_accuracy" not in results:  # of presets written before it was measured
        return ""
    return f"| mean accuracy of the classes | {results['macro_accuracy']:.2%} |\n"


def _top5(results):
    if results["top5_accuracy"] == 1:  # of five classes or fewer it always is
        return ""
    return f"| top-5 accuracy | {results['top5_accuracy']:.2%} |\n"


def _calibration(results):
    if "ece" not in results:
        return ""
    gap = results["confidence"] - results["accuracy"]
    verdict = "about the accuracy" if abs(gap) < 0.02 else "above" if gap > 0 else "below"
    verdict += "" if abs(gap) < 0.02 else " the accuracy"
    return (
        f"| expected calibration error | {100 * results['ece']:.1f} points |\n"
        f"| mean confidence | {results['confidence']:.2%}, {verdict} |\n"
    )


def _classes(per_class, many):
    rows = [row for row in per_class if row["images"] not in (0, "0")]
    if not rows:
        return ""
    if len(rows) <= _LISTED_CLASSES:
        return _table_of_classes(rows, many)
    rows.sort(key=lambda row: float(row["accuracy"]))
    worst, best = (
        ", ".join(f"{row['name']} ({float(row['accuracy']):.0%})" for row in some)
        for some in (rows[:3], rows[:-4:-1])
    )
    return (
        f"\nBest classes: {best}. Worst classes: {worst}. `per_class.csv` has the accuracy of "
        "each, `calibration.csv` the accuracy at each confidence.\n"
    )


def _table_of_classes(rows, many):
    lines = ["", f"| class | {many} | accuracy | precision | most confused with |"]
    lines += ["|---|---|---|---|---|"]
    for row in rows:
        shares = [
            "" if row[key] == "" else f"{float(row[key]):.1%}" for key in ("accuracy", "precision")
        ]
        lines.append(
            f"| {row['name']} | {row['images']} | {' | '.join(shares)} | "
            f"{row['most_confused_with']} |"
        )
    return "\n".join([*lines, "", "`calibration.csv` has the accuracy at each confidence.", ""])


def _siblings(results):
    """Compares the preset with the shipped ones for the same data."""
    shipped = [
        info
        for info in list_presets(architectures=False)
        if info.dataset == results["dataset"] and info.accuracy and info.name != results["name"]
    ]
    if not shipped:
        return ""
    text = f"\n## Which preset to choose\n\n{_advice(shipped, results)}\n\n"
    own = (results["name"], 100 * results["accuracy"], results["parameters"])
    rows = [(*own, results.get("latency_ms"))]
    rows += [(info.name, info.accuracy, info.parameters, info.latency_ms) for info in shipped]
    cells = []
    for name, accuracy, parameters, latency in sorted(rows, key=lambda row: -row[1]):
        shown = f"**{name}**" if name == results["name"] else name
        time = "" if latency is None else f"{latency:.2f}"
        cells.append([shown, f"{accuracy:.2f}", f"{parameters:,}", time])
    return text + markdown_table(["preset", "accuracy (%)", "parameters", "latency (ms)"], cells)


def _advice(shipped, results):
    best = max(shipped, key=lambda info: info.accuracy)
    if best.accuracy < 100 * results["accuracy"]:
        return (
            "This is the most accurate of the presets for this data that come with lsmha-keras. "
            f"The next one is {best.name}."
        )
    return (
        f"{best.name} is the most accurate for this data: {best.accuracy:.2f} %. Choose this one "
        "to compare layouts of heads or schedules. A difference of half a point is within what the "
        "seed changes."
    )


def _shp(rows):
    if not rows:
        return ""
    lines = ["", "## What the heads recognise", ""]
    lines += ["Single-head performance, measured on the test images:", ""]
    names = ("readout accuracy (%)", "labels per head", "heads per label", "noise per head", "SNR")
    lines += [f"| block | | {' | '.join(names)} |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        accuracy = f"{100 * float(row['readout_accuracy']):.2f}" if row["readout_accuracy"] else ""
        labels = float(row["clusters_per_head"]) * float(row["labels_per_cluster"])
        cells = [accuracy, f"{labels:.1f}", f"{float(row['heads_per_label']):.2f}"]
        cells += [f"{float(row['noise_per_head']):.0f}", f"{float(row['snr']):.1f}"]
        lines.append(f"| {row['block']} | {row['variant']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cite(name):
    known = KNOWN_DATA.get(name)
    return f"{known.citation}, {known.link}" if known else f"`{name}`"


def _data_licence(name):
    known = KNOWN_DATA.get(name)
    return known.licence if known else "The licence of the data is its owner's."


def _augmentation(table):
    if not table:
        return "No augmentation."
    return "Augmentation: " + ", ".join(f"{key} {value}" for key, value in table.items()) + "."


def _schedule(recipe):
    schedule, optimizer = recipe.schedule, recipe.optimizer
    text = (
        f"{optimizer.name}, batch {recipe.data.batch_size}, learning rate "
        f"{optimizer.learning_rate:g}, weight decay {optimizer.weight_decay:g} (not on biases and "
        "1-D weights)"
    )
    if schedule.warmup_epochs:
        epochs = "epoch" if schedule.warmup_epochs == 1 else "epochs"
        text += f", {schedule.warmup_epochs:g} {epochs} of warm-up"
    if schedule.decay == "cosine":
        text += f", cosine to {schedule.final_learning_rate:g}"
    if schedule.cooldown_epochs:
        text += f", {schedule.cooldown_epochs} more epochs at that rate"
    if recipe.loss.label_smoothing:
        text += f", label smoothing {recipe.loss.label_smoothing:g}"
    if recipe.distillation.teacher:
        teacher = recipe.distillation.teacher
        names = [teacher] if isinstance(teacher, str) else teacher
        text += (
            f", distilled from {' and '.join(names)} (weight {recipe.distillation.weight:g}, "
            f"temperature {recipe.distillation.temperature:g})"
        )
    if recipe.ema.enabled:
        text += f", weights averaged with momentum {recipe.ema.momentum:g}"
    return text + "."
