"""Evaluation against a plain loop, overall and per class, for every kind of dataset."""

import keras
import numpy as np
import pytest

from lsmha_keras.data.datasets import ArrayDataset
from lsmha_keras.training.evaluate import NUM_BINS, class_report, evaluate

CLASSES = 7
RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (45, 4, 4, 3)).astype("uint8")
LABELS = RNG.integers(0, CLASSES, 45).astype("int32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Rescaling(1 / 64),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )


def by_hand(model):
    kernel, bias = (keras.ops.convert_to_numpy(w).astype("float64") for w in model.weights)
    loss = hits = top5 = 0
    for image, label in zip(IMAGES, LABELS, strict=True):
        logits = (image.astype("float64") / 64).reshape(-1) @ kernel + bias
        loss -= np.log(np.exp(logits[label]) / np.sum(np.exp(logits)))
        ranking = sorted(range(CLASSES), key=lambda k: -logits[k])
        hits += ranking[0] == label
        top5 += label in ranking[:5]
    return {
        "loss": pytest.approx(loss / 45, rel=1e-4),
        "accuracy": pytest.approx(hits / 45),
        "top5_accuracy": pytest.approx(top5 / 45),
        "num_images": 45,
    }


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = slice(10 * index, 10 * index + 10)
        return IMAGES[rows], LABELS[rows]


def tf_dataset(batch_size):
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))
    return dataset.batch(batch_size) if batch_size else dataset


DATASETS = {
    "arrays": lambda: (IMAGES, LABELS),
    "column of labels": lambda: (IMAGES, LABELS[:, None]),
    "one-hot": lambda: (IMAGES.astype("float32"), np.eye(CLASSES)[LABELS]),
    "ImageDataset": lambda: ArrayDataset(IMAGES, LABELS, class_names=list("abcdefg")),
    "PyDataset": Batches,
    "tf.data": lambda: tf_dataset(10),
    "unbatched tf.data": lambda: tf_dataset(None),
}


@pytest.mark.parametrize("kind", DATASETS)
@pytest.mark.parametrize("batch_size", [8, 256])
def test_figures(model, kind, batch_size):
    assert evaluate(model, DATASETS[kind](), batch_size=batch_size) == by_hand(model)


def test_npz_by_path(model, tmp_path):
    np.savez(
        tmp_path / "data.npz",
        x_train=IMAGES[:7],
        y_train=np.arange(7),
        x_test=IMAGES,
        y_test=LABELS,
    )
    assert evaluate(model, tmp_path / "data.npz") == by_hand(model)
    assert evaluate(model, "data.npz", split="train", data_dir=tmp_path)["num_images"] == 7


def test_ties_are_broken_as_argmax_does():
    model = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(8, "linear")]
    )
    model.layers[-1].set_weights([np.zeros((48, 8)), np.zeros(8)])
    figures = evaluate(model, (IMAGES[:8], np.arange(8)))
    assert figures["accuracy"] == 1 / 8
    assert figures["top5_accuracy"] == 5 / 8
    assert figures["loss"] == pytest.approx(np.log(8))


def small_classifier(activation=None):
    from lsmha_keras.models import CCTImageClassifier

    keras.utils.set_random_seed(1)
    return CCTImageClassifier.from_preset(
        "cct_2_3x2",
        num_classes=CLASSES,
        image_shape=(16, 16, 3),
        hidden_dim=16,
        mlp_dim=16,
        tokenizer_filters=8,
        activation=activation,
    )


def test_softmax_gives_the_same_as_logits():
    images = RNG.integers(0, 256, (20, 16, 16, 3)).astype("uint8")
    logits, softmax = small_classifier(), small_classifier("softmax")
    softmax.set_weights(logits.get_weights())
    assert evaluate(softmax, (images, LABELS[:20])) == pytest.approx(
        evaluate(logits, (images, LABELS[:20])), rel=1e-4
    )


def test_preset_directory(tmp_path):
    classifier = small_classifier()
    classifier.save_to_preset(str(tmp_path / "preset"))
    images = RNG.integers(0, 256, (20, 16, 16, 3)).astype("uint8")
    expected = evaluate(classifier, (images, LABELS[:20]))
    assert evaluate(tmp_path / "preset", (images, LABELS[:20])) == pytest.approx(expected)


def test_folder_of_images_of_many_sizes(tmp_path):
    image = pytest.importorskip("PIL.Image")
    classifier = small_classifier()
    classifier.save_to_preset(str(tmp_path / "preset"))
    pictures = []
    for label in range(CLASSES):
        (tmp_path / "photos" / f"class_{label}").mkdir(parents=True)
        picture = image.fromarray(RNG.integers(0, 256, (20 + label, 30, 3)).astype("uint8"))
        picture.save(tmp_path / "photos" / f"class_{label}" / "photo.png")
        side, left = 20 + label, (10 - label) // 2
        box = (left, 0, left + side, side)
        small = picture.resize((16, 16), image.Resampling.BILINEAR, box)
        pictures.append(np.asarray(small))
    expected = evaluate(classifier, (np.stack(pictures), np.arange(CLASSES)))
    for model in (classifier, tmp_path / "preset"):
        figures = evaluate(model, tmp_path / "photos", split="train")
        assert figures == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ((IMAGES, LABELS + 1), r"in 0 .. 6, .* Received: label 7 of sample \d+"),
        ((IMAGES, LABELS - 1), "Received: label -1 of sample"),
        ((IMAGES, LABELS + 0.5), "Labels must be integers or one-hot with 7 classes"),
        ((IMAGES, np.eye(9)[LABELS]), r"Received: labels of shape \(45, 9\)"),
        ((IMAGES, LABELS[:-1]), "one label per image"),
        ((IMAGES[:0], LABELS[:0]), "holds no images"),
        ((IMAGES[0], LABELS[:4]), r"Images must have shape \(batch, height, width, channels\)"),
        ((IMAGES.astype("float32") - 1, LABELS), "in 0 .. 255. Received: values from -1"),
        ((IMAGES * np.float32(2), LABELS), "in 0 .. 255. Received: values from 0 to 510"),
        ((IMAGES * np.float32(np.nan), LABELS), "in 0 .. 255. Received: values from nan"),
        (IMAGES, "pair of arrays"),
        (ArrayDataset(IMAGES, LABELS % 5), "has 7 classes.* with 5 classes"),
    ],
)
def test_bad_data(model, dataset, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, dataset)


def test_wrong_channels():
    images = np.zeros((2, 16, 16, 1), "uint8")
    with pytest.raises(ValueError, match=r"3 channels. Received: images of shape \(2, 16, 16, 1\)"):
        evaluate(small_classifier(), (images, [0, 1]))


def test_fractions_are_suspicious(model):
    with pytest.warns(UserWarning, match="multiply images in 0 .. 1 by 255"):
        evaluate(model, (IMAGES / np.float32(255), LABELS))


def test_other_class_names_are_suspicious():
    classifier = small_classifier()
    classifier.class_names = list("abcdefg")
    images = np.zeros((7, 16, 16, 3), "uint8")
    with pytest.warns(UserWarning, match="2 class names .* 'f' against 'g'"):
        evaluate(classifier, ArrayDataset(images, np.arange(7), class_names=list("abcdegf")))


def test_a_dataset_without_end_is_refused(model):
    with pytest.raises(ValueError, match="must be finite"):
        evaluate(model, tf_dataset(10).repeat())


def test_unknown_names():
    with pytest.raises(ValueError, match="cct_2_3x2"):
        evaluate("cct_2_3x2_h16_cifar11", (IMAGES, LABELS))
    with pytest.raises(ValueError, match="batch_size=0"):
        evaluate("cct_2_3x2", (IMAGES, LABELS), batch_size=0)


class _Looked(keras.Model):
    """A model that returns the logits stored in the first row of each image's pixels."""

    def call(self, images):
        return keras.ops.cast(images[:, 0, :3, 0], "float32") / 32.0


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 1, 3, 3), dtype="uint8")
    labels = rng.integers(0, 3, 200)
    inputs = keras.Input((1, 3, 3))
    return keras.Model(inputs, _Looked()(inputs)), images, labels


@pytest.mark.backend_free
def test_against_loops(case):
    model, images, labels = case
    report = class_report(model, (images, labels), batch_size=64)
    logits = images[:, 0, :, 0] / 32
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = probabilities.argmax(axis=1)
    for row in report.per_class:
        label = row["label"]
        own = [answer for answer, true in zip(answers, labels, strict=True) if true == label]
        given = [true for answer, true in zip(answers, labels, strict=True) if answer == label]
        assert row["name"] == str(label) and row["images"] == len(own)
        assert row["accuracy"] == pytest.approx(own.count(label) / len(own), abs=1e-6)
        assert row["precision"] == pytest.approx(given.count(label) / len(given), abs=1e-6)
        others = [answer for answer in own if answer != label]
        counts = {str(other): others.count(other) for other in set(others)}
        assert counts[row["most_confused_with"]] == max(counts.values())
    error = 0.0
    for i, row in enumerate(report.calibration):
        inside = [
            (max(p), int(p.argmax() == label))
            for p, label in zip(probabilities, labels, strict=True)
            if i / NUM_BINS < max(p) <= (i + 1) / NUM_BINS
        ]
        assert row["images"] == len(inside)
        if inside:
            confidence, right = np.mean(inside, axis=0)
            assert row["confidence"] == pytest.approx(confidence, abs=1e-5)
            assert row["accuracy"] == pytest.approx(right, abs=1e-6)
            error += len(inside) / len(labels) * abs(confidence - right)
    assert sum(row["images"] for row in report.calibration) == 200
    assert report.figures["ece"] == pytest.approx(error, abs=1e-5)
    assert report.figures["confidence"] == pytest.approx(probabilities.max(axis=1).mean(), abs=1e-5)


@pytest.mark.backend_free
def test_the_other_figures_are_those_of_evaluate(case):
    model, images, labels = case
    figures = class_report(model, (images, labels)).figures
    expected = evaluate(model, (images, labels))
    assert {key: figures[key] for key in expected} == pytest.approx(expected)


@pytest.mark.backend_free
def test_a_class_without_images_has_no_accuracy(case):
    model, images, _ = case
    report = class_report(model, (images[:20], np.zeros(20, int)))
    assert report.per_class[1]["images"] == 0 and report.per_class[1]["accuracy"] == ""
    assert report.per_class[1]["precision"] in (0.0, "")
