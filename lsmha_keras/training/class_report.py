"""Measures a classifier class by class, and whether its confidences can be trusted."""

import dataclasses

import numpy as np

from lsmha_keras.training.checkpoint import write_history
from lsmha_keras.training.evaluate import checked_chunks, mean_figures, predict_logits, score_sums

NUM_BINS = 15


@dataclasses.dataclass(frozen=True)
class ClassReport:
    """Figures of a classifier on labelled images.

    Attributes:
        figures: dict as `lsmha_keras.evaluate` returns it, with `ece`, the expected calibration
            error in 0 .. 1, and `confidence`, the mean of the largest probability.
        per_class: list of a dict per class: `label`, `name`, `images`, `accuracy` (share of the
            images of the class that are recognised), `precision` (share of the images given
            this class that belong to it), `most_confused_with` (the wrong class that its images
            are given most often).
        calibration: list of a dict per bin of confidence: `lowest` and `highest` confidence,
            `images`, mean `confidence`, `accuracy`. Empty bins have neither of the last two.
    """

    figures: dict
    per_class: list
    calibration: list

    def write(self, directory):
        """Writes `per_class.csv` and `calibration.csv` into a directory."""
        write_history(directory / "per_class.csv", self.per_class)
        write_history(directory / "calibration.csv", self.calibration)


def class_report(model, dataset, batch_size=256):
    """Measures a classifier like `evaluate`, and class by class, in one pass.

    The expected calibration error is the mean over images of the distance between accuracy and
    mean confidence of the image's bin; there are 15 bins of equal width.

    Args:
        model: a classifier that gives logits or a softmax.
        dataset: as for `lsmha_keras.evaluate`, but not a name.
        batch_size: int, images that go through the model at a time.

    Returns:
        A `ClassReport`.

    Raises:
        ValueError: as `lsmha_keras.evaluate`.

    Example:

    ```python
    images, labels = np.zeros((4, 32, 32, 3), "uint8"), [0, 1, 2, 3]
    report = class_report(result.model, (images, labels))
    print(report.figures["ece"], report.per_class[0]["accuracy"])
    ```

    References:
        - [Guo et al., 2017](https://arxiv.org/abs/1706.04599), section 2
    """
    sums, labels, predicted, confidences = np.zeros(4), [], [], []
    for images, own in checked_chunks(model, dataset, batch_size):
        logits = predict_logits(model, images, batch_size).astype("float64")
        sums += score_sums(logits, own)
        labels.append(own)
        predicted.append(logits.argmax(axis=1))
        shifted = logits - logits.max(axis=1, keepdims=True)
        confidences.append(1 / np.exp(shifted).sum(axis=1))  # of the largest logit
    labels, predicted, confidences = map(np.concatenate, (labels, predicted, confidences))
    bins = _calibration(confidences, labels == predicted)
    gaps = [
        abs(row["accuracy"] - row["confidence"]) * row["images"] for row in bins if row["images"]
    ]
    figures = mean_figures(sums)
    figures |= {"ece": float(sum(gaps) / len(labels)), "confidence": float(confidences.mean())}
    num_classes = model.output_shape[-1]
    names = getattr(model, "class_names", None) or [str(label) for label in range(num_classes)]
    return ClassReport(_rounded(figures, 6), _per_class(labels, predicted, names), bins)


def _per_class(labels, predicted, names):
    counts = np.zeros((len(names), len(names)), "int64")
    np.add.at(counts, (labels, predicted), 1)  # row: label, column: answer
    rows = []
    for label, name in enumerate(names):
        right, wrong = counts[label, label], counts[label].copy()
        wrong[label] = 0
        rows.append(
            {
                "label": label,
                "name": name,
                "images": int(counts[label].sum()),
                "accuracy": _share(right, counts[label].sum()),
                "precision": _share(right, counts[:, label].sum()),
                "most_confused_with": names[wrong.argmax()] if wrong.any() else "",
            }
        )
    return rows


def _calibration(confidences, right):
    # A confidence on an edge belongs to the lower bin.
    number = np.clip(np.ceil(confidences * NUM_BINS).astype("int64") - 1, 0, NUM_BINS - 1)
    rows = []
    for i in range(NUM_BINS):
        inside = number == i
        images = int(inside.sum())
        rows.append(
            {
                "lowest": round(i / NUM_BINS, 4),
                "highest": round((i + 1) / NUM_BINS, 4),
                "images": images,
                "confidence": _share(confidences[inside].sum(), images),
                "accuracy": _share(right[inside].sum(), images),
            }
        )
    return rows


def _share(part, whole):
    return round(float(part / whole), 6) if whole else ""


def _rounded(figures, digits):
    own = ("ece", "confidence")  # the others are what `evaluate` returns
    return {key: round(value, digits) if key in own else value for key, value in figures.items()}
