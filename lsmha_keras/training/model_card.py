"""Writes the card of a trained preset."""

from lsmha_keras.presets import parse_architecture

# Text and link of what to cite, for the datasets known by name.
_DATA = {
    "cifar10": (
        "CIFAR-10: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "cifar100": (
        "CIFAR-100: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "digits": (
        "Optical Recognition of Handwritten Digits: Alpaydin and Kaynak, UCI Machine Learning "
        "Repository, 1998 (the copy in scikit-learn)",
        "https://doi.org/10.24432/C50P49",
    ),
    "fashion_mnist": (
        "Fashion-MNIST: Xiao, Rasul and Vollgraf, 2017",
        "https://arxiv.org/abs/1708.07747",
    ),
    "mnist": (
        "MNIST: LeCun, Cortes and Burges, 1998",
        "http://yann.lecun.com/exdb/mnist/",
    ),
}

_TEXT = """\
---
library_name: keras
license: apache-2.0
pipeline_tag: image-classification
tags: [lsmha-keras, keras, image-classification, vision-transformer]
---

# {name}

A compact convolutional transformer that tells {num_classes} classes apart in images of
{image_shape}, {start}
({structure}).

| | |
|---|---|
| accuracy ({split}, {num_images:,} images) | {accuracy:.2%} |
| top-5 accuracy | {top5_accuracy:.2%} |
| cross-entropy | {loss:.4f} |
| parameters | {parameters:,} |
| latency of one image | {latency} |
| training | {epochs} epochs in {precision}, {minutes:.1f} min, whatever else the machine did |
| hardware | {hardware} |
| backend | {backend} |
| date | {date} |
| licence | Apache-2.0 |

One run with seed {seed}; other seeds give somewhat other figures.

## Data
{data}. Trained on `{train_split}`{validation}, evaluated once on `{split}`.
{augmentation}

## Schedule
{schedule}

## Use
```python
import lsmha_keras

classifier = lsmha_keras.CCTImageClassifier.from_preset({name!r})  # or this directory
logits = classifier.predict(images)  # (batch, {height}, {width}, {channels}), values in 0 .. 255
```

## Reproduce
```
{command}
```
Versions: {versions}. `recipe.toml` holds every setting, `history.csv` every epoch, `golden.npz`
made-up images with the logits they must give.

## References
* Gross, Halevi, Koresh, Tzach, Kanter: Low-latency vision transformers via large-scale multi-head
  attention, Physica A 675 (2025), https://arxiv.org/abs/2506.23832
* Hassani et al.: Escaping the Big Data Paradigm with Compact Transformers, 2021,
  https://arxiv.org/abs/2104.05704
"""


def model_card(recipe, model, results):
    """Writes the card of a trained preset: what it is, and how it came about.

    Args:
        recipe: `Recipe` it was trained by.
        model: the trained `CCTImageClassifier`.
        results: dict, as in `results.json`.

    Returns:
        str, Markdown.

    Example:

    ```python
    text = model_card(result.recipe, result.model, result.results)
    ```
    """
    height, width, channels = model.backbone.image_shape
    data = recipe.data
    return _TEXT.format(
        **{key: value for key, value in results.items() if key != "versions"},
        structure=_structure(model.backbone),
        num_classes=model.num_classes,
        image_shape=f"{height}x{width}x{channels}",
        height=height,
        width=width,
        channels=channels,
        start=_start(recipe.model),
        latency=_latency(results),
        minutes=results["train_seconds"] / 60,
        data=_cite(data.name),
        train_split=data.train_split,
        validation=f", watched on `{data.validation_split}`" if data.validation_split else "",
        augmentation=_augmentation(recipe.augmentation),
        schedule=_schedule(recipe),
        versions=", ".join(f"{name} {version}" for name, version in results["versions"].items()),
    )


def _latency(results):
    if results.get("latency_ms") is None:
        return "not measured"
    where = f"{results['latency_backend']} on {results['latency_hardware']}"
    return f"{results['latency_ms']:.2f} ms (median; {where})"


def _start(section):
    # An architecture's name has no weights to start from.
    if not section.load_weights or parse_architecture(section.preset):
        return f"trained from random weights of `{section.preset}`"
    return f"trained on from the weights of `{section.preset}`"


def _structure(backbone):
    blocks = f"{backbone.num_layers - backbone.num_conv_blocks} transformer"
    if backbone.num_conv_blocks:
        blocks = f"{backbone.num_conv_blocks} convolutional, {blocks}"
    heads = f"heads: {backbone.num_heads}"
    if backbone.head_dim is not None:
        heads += f" of width {backbone.head_dim}"
    return f"blocks: {blocks}; {heads}; width of the tokens: {backbone.hidden_dim}"


def _cite(name):
    text, link = _DATA.get(name, (None, None))
    return f"{text}, {link}" if text else f"`{name}`"


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
        text += f", {schedule.warmup_epochs:g} epochs of warm-up"
    if schedule.decay == "cosine":
        text += f", cosine to {schedule.final_learning_rate:g}"
    if schedule.cooldown_epochs:
        text += f", {schedule.cooldown_epochs} more epochs at that rate"
    if recipe.loss.label_smoothing:
        text += f", label smoothing {recipe.loss.label_smoothing:g}"
    if recipe.ema.enabled:
        text += f", weights averaged with momentum {recipe.ema.momentum:g}"
    return text + "."
