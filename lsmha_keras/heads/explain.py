"""Explains a label: which parts of the image, which words or which time steps it depends on."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import numpy as np

from lsmha_keras.errors import InputError, nearest
from lsmha_keras.heads.attention_trace import trace_attention
from lsmha_keras.heads.explanation import Explanation
from lsmha_keras.heads.relevance import (
    attention_flow,
    attention_rollout,
    gradient_relevance,
    head_maps,
)
from lsmha_keras.heads.sequence_explanation import SequenceExplanation
from lsmha_keras.image_file import read_any
from lsmha_keras.images import resize_image
from lsmha_keras.models.block_walk import prepared
from lsmha_keras.sample_checks import check_image_values, warn_of_fractions
from lsmha_keras.words import UNKNOWN_ID

Method = Literal["rollout", "flow", "relevance", "maps", "occlusion"]
METHODS: tuple[str, ...] = get_args(Method)
# Sides of the image that is shown: more would not show more of a map of a few tokens.
_SHOWN = 512
# Occluded images of a run.
_BATCH = 64


def explain(
    model: Any, image: Any, method: Method = "relevance", label: int | str | None = None
) -> Explanation:
    """Shows which parts of an image, words of a text or steps of a series a label depends on.

    * `"relevance"`: attention weighted by the derivatives of the label's logit. The only one of the
      first four that depends on the label.
    * `"rollout"`: the attention of all blocks multiplied, skip connections included.
    * `"flow"`: how much could flow through these maps to each token; up to 64 tokens.
    * `"maps"`: what each head looks at; the picture is of the last block.
    * `"occlusion"`: by how much the label's logit (the label's output, if the model ends with an
      activation) falls when a token's cell is painted in the image's mean colour, a word is
      replaced by one that the model does not know, or a time step by the mean of the series. It
      needs no attention, and is the check of the others.

    The first four end with the weights of the sequence pooling, and begin with the tokens before
    the first transformer block: convolutional blocks have no maps. Of texts and series the weight
    of a token is spread over the words that it is made of, and padding has none.

    Args:
        model: a `CCTImageClassifier`, `CCTTextClassifier` or `CCTSequenceClassifier`.
        image: path, open binary file, `PIL.Image.Image` or array `(height, width, channels)` with
            values from 0 to 255, of any size; the text itself; or a series `(time, features)`.
        method: str, see above. Defaults to `"relevance"`.
        label: int or name of a class, or `None` for the most likely one.

    Returns:
        An `Explanation`, of texts and series a `SequenceExplanation`, which has `words`.

    Raises:
        ImportError: if SciPy is missing, which `"flow"` needs.
        ValueError: if the method or the label is unknown, the image cannot be read, a text has no
            word or a series another shape, the model has no attention, too many tokens for
            `"flow"`, or a kind of attention that the method cannot follow.

    Example:

    ```python
    explanation = lsmha_keras.explain(model, "photo.jpg", label="sunflower")
    print(explanation.name, explanation.probabilities[explanation.label])
    explanation.save("sunflower.png")
    ```

    References:
        - [Abnar and Zuidema, 2020](https://arxiv.org/abs/2005.00928), rollout and flow
        - [Chefer et al., 2021](https://arxiv.org/abs/2103.15679), relevance
    """
    return explain_all(model, image, [method], label)[method]


def explain_all(model, image, methods=METHODS, label=None):
    """Explains an image by several methods; as `explain`.

    Args:
        model: a `CCTImageClassifier`.
        image: as for `explain`.
        methods: list of str.
        label: as for `explain`.

    Returns:
        A dict from method to `Explanation`, in the order of `methods`.

    Raises:
        ImportError, ValueError: as `explain`.

    Example:

    ```python
    both = explain_all(model, "photo.jpg", ["rollout", "occlusion"])
    ```
    """
    for method in methods:
        if method not in METHODS:
            raise InputError(
                f"`method` must be one of {METHODS}{nearest(method, METHODS)}. "
                f"Received: method={method!r}"
            )
    check_classifier(model)
    label = find_label(model, label)
    if is_sequence := len(model.image_shape) < 3:
        batch, shown, words = _read_sequence(model, image)
    else:
        pixels = _read(image, model.image_shape)
        shown = _shown(pixels, model.image_shape)
        batch = np.rint(resize_image(pixels, model.image_shape[:2]))[None]
    outputs = model.predict(batch, verbose=0)
    label = int(outputs[0].argmax()) if label is None else label
    about = {"label": label, "probabilities": model.probabilities(outputs)[0]}
    about["class_names"] = model.class_names
    relevance = token_relevance(model, batch, [label], methods)
    if is_sequence:
        size = len(words)
        about |= {"image": shown, "grid_shape": (size, 1), "words": words}
        found = {
            method: SequenceExplanation(method, tokens=tokens[0, :size], **about)
            for method, tokens in relevance.items()
        }
    else:
        about |= {"image": shown, "grid_shape": grid_shape(model)}
        found = {
            method: Explanation(method, tokens=tokens[0], **about)
            for method, tokens in relevance.items()
        }
    if "maps" in found:
        inputs = prepared(model, batch)
        trace = trace_attention(model, inputs)
        by_block = {
            i: model.backbone.over_inputs(head_maps(maps[0], trace.pooling[0])[None], inputs)[0]
            for i, maps in trace.maps.items()
        }
        if is_sequence:
            by_block = {i: maps[:, :size] for i, maps in by_block.items()}
        found["maps"] = dataclasses.replace(found["maps"], head_maps=by_block)
    return found


def check_classifier(model):
    """Refuses what is no `CCTImageClassifier`.

    Raises:
        ValueError: if it is none.
    """
    if not (hasattr(model, "backbone") and hasattr(model, "pooler")):
        raise InputError(
            "The model must be a `CCTImageClassifier`; of a committee, take one of its members. "
            f"Received: {type(model).__name__}"
        )


def find_label(model, label):
    """Finds a class by its index or name.

    Args:
        model: `CCTImageClassifier`.
        label: int, str or `None`.

    Returns:
        int, or `None`.

    Raises:
        ValueError: if there is no such class; names the nearest.
    """
    if label is None:
        return None
    if isinstance(label, str):
        names = model.class_names or []
        if label in names:
            return names.index(label)
        raise InputError(
            f"The model knows no class of this name{nearest(label, names)}. "
            f"Received: label={label!r}"
        )
    if not isinstance(label, (int, np.integer)) or not 0 <= label < model.num_classes:
        raise InputError(
            f"`label` must be the name of a class or an int from 0 to {model.num_classes - 1}. "
            f"Received: label={label!r}"
        )
    return int(label)


def grid_shape(model):
    """Returns `(grid_height, grid_width)` of a classifier's tokens."""
    return tuple(model.backbone.position_embedding_layer.grid_shape)


def token_relevance(model, images, labels, methods):
    """Finds the relevance of each token, for a batch.

    Args:
        model: `CCTImageClassifier`.
        images: raw images `(batch, *image_shape)`; ids or series likewise.
        labels: `(batch,)` ints.
        methods: list of str, as for `explain`.

    Returns:
        A dict from method to a float64 array `(batch, tokens)`, of sequences `(batch, time)`; see
        `Explanation.tokens`.

    Raises:
        ImportError, ValueError: as `explain`.

    Example:

    ```python
    token_relevance(model, images, labels, ["rollout"])["rollout"].shape  # (batch, tokens)
    ```
    """
    trace, inputs = None, prepared(model, images)
    if set(methods) != {"occlusion"}:
        derived = labels if "relevance" in methods else None
        trace = trace_attention(model, inputs, derived)
    found = {}
    for method in methods:
        if method == "occlusion":
            rows = [_occlusion(model, *pair) for pair in zip(images, labels, strict=True)]
            found[method] = np.stack(rows)
        else:
            rows = np.stack([_one(trace, row, method) for row in range(len(images))])
            found[method] = model.backbone.over_inputs(rows, inputs)
    return found


def _one(trace, row, method):
    """The relevance of the tokens of one image, from its attention."""
    maps = [weights[row] for weights in trace.maps.values()]
    pooling = trace.pooling[row]
    if method == "rollout":
        return pooling @ attention_rollout(maps)
    if method == "flow":
        return attention_flow(maps, pooling)
    if method == "maps":
        return head_maps(maps[-1], pooling).mean(axis=0)
    gradients = [derivatives[row] for derivatives in trace.gradients.values()]
    raising = np.maximum(pooling * trace.pooling_gradients[row], 0)
    return raising @ gradient_relevance(maps, gradients)


def painted(images, tokens, grid):
    """Paints the cells of tokens in the mean colour of the image.

    Args:
        images: array `(height, width, channels)`, or `(batch, height, width, channels)`.
        tokens: boolean array `(tokens,)` or `(batch, tokens)`, the cells to paint.
        grid: `(grid_height, grid_width)` of the tokens.

    Returns:
        float32 array `(batch, height, width, channels)`.

    Example:

    ```python
    blank = painted(image, np.ones(64, bool), (8, 8))
    ```
    """
    images, tokens = np.asarray(images, "float32"), np.atleast_2d(tokens)
    height, width = images.shape[-3:-1]
    cells = np.reshape(tokens, (len(tokens), *grid))
    cells = cells[:, np.arange(height) * grid[0] // height]
    cells = cells[:, :, np.arange(width) * grid[1] // width, None]
    return np.where(cells, images.mean(axis=(-3, -2), keepdims=True), images)


def count_parts(model, samples):
    """Counts what can be hidden of each sample: the cells of an image, or words, or time steps.

    Args:
        model: as for `explain`.
        samples: raw images `(batch, *image_shape)`; ids or series likewise.

    Returns:
        An int array `(batch,)`. Padding at the end of a text or series does not count.
    """
    if len(model.image_shape) == 3:
        return np.full(len(samples), np.prod(grid_shape(model)))
    return np.asarray(model.backbone.count_inputs(samples))


def hide(model, samples, parts):
    """Hides parts: cells take the image's mean colour, words are unknown, steps the series' mean.

    Args:
        model: as for `explain`.
        samples: as for `count_parts`.
        parts: boolean array `(batch, tokens)`, of sequences `(batch, time)`: what to hide.

    Returns:
        An array of the shape of `samples`.
    """
    if len(model.image_shape) == 3:
        return painted(samples, parts, grid_shape(model))
    if model.backbone.vocabulary_size is not None:
        return np.where(parts, UNKNOWN_ID, samples)
    there = np.arange(samples.shape[1]) < count_parts(model, samples)[:, None]
    means = np.mean(samples, axis=1, keepdims=True, where=there[..., None])
    return np.where(parts[..., None], means, samples)


def _occlusion(model, sample, label):
    """By how much the label's output falls as each part is hidden; 0 for padding."""
    count = count_parts(model, sample[None])[0]
    size = count if sample.ndim == 3 else len(sample)
    parts = np.eye(count + 1, size, k=-1, dtype=bool)  # nothing, and each part alone
    hidden = hide(model, np.repeat(sample[None], count + 1, axis=0), parts)
    outputs = model.predict(hidden, batch_size=_BATCH, verbose=0)[:, label].astype("float64")
    return np.pad(outputs[0] - outputs[1:], (0, size - count))


def _read_sequence(model, sequence):
    """Returns a batch of one, `(1, time, ...)`, what is shown of it, and its words or steps."""
    is_text = isinstance(sequence, (str, bytes))
    batch = np.array([sequence], dtype=object) if is_text else np.asarray(sequence)[None]
    batch = prepared(model, batch)
    if is_text:
        words = model.preprocessor.words(sequence)
        return batch, np.zeros((len(words), 0)), words
    size = model.backbone.count_inputs(batch)[0]
    shown = batch[0, :size] if batch.ndim == 3 else np.zeros((size, 0))
    return batch, shown, [str(step) for step in range(size)]


def _read(image, image_shape):
    """Returns `(height, width, channels)` pixels of any size."""
    if not hasattr(image, "shape"):
        pixels = read_any(image)
        return pixels if image_shape[2] == 3 else pixels.mean(axis=-1, keepdims=True).round()
    pixels = np.asarray(image)
    if image_shape[2] == 1 and pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] != image_shape[2] or not pixels.size:
        raise InputError(
            f"An image must have shape (height, width, {image_shape[2]}). "
            f"Received: shape {pixels.shape}"
        )
    check_image_values(pixels)
    warn_of_fractions(pixels, stacklevel=4)
    return pixels


def _shown(pixels, image_shape):
    """The part that the model sees, in a multiple of its size, as `(height, width, 3)` uint8."""
    height, width, channels = image_shape
    times = min(pixels.shape[0] // height, pixels.shape[1] // width, _SHOWN // max(height, width))
    times = max(times, 1)
    shown = np.rint(resize_image(pixels, (times * height, times * width))).astype("uint8")
    # Other channels than colours: the first one stands for all.
    return shown if channels == 3 else np.repeat(shown[..., :1], 3, axis=-1)
