"""The teacher's part of the loss is what NumPy computes, and a student learns from it alone."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_softmax, softmax

import lsmha_keras

SIDE, CLASSES = 8, 3


def build(seed=0, classes=CLASSES, side=SIDE, preprocessor=None, **arguments):
    keras.utils.set_random_seed(seed)
    backbone = lsmha_keras.CCTBackbone(
        image_shape=(side, side, 3), hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8
    )
    preprocessor = preprocessor or preprocess(side)
    classifier = lsmha_keras.CCTImageClassifier(backbone, classes, preprocessor, **arguments)
    kernel = classifier.output_dense.kernel
    # A head of new weights has hardly an opinion.
    kernel.assign(np.random.default_rng(seed).normal(size=kernel.shape))
    return classifier


def preprocess(side=SIDE, scale=1 / 127.5, offset=-1.0):
    converter = lsmha_keras.CCTImageConverter(image_size=(side, side), scale=scale, offset=offset)
    return lsmha_keras.CCTImageClassifierPreprocessor(converter)


OTHER_WAY = preprocess(scale=(0.01, 0.02, 0.03), offset=0.5)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3)).astype("uint8")


def loss_of(student, images, labels):
    """The loss that `fit` minimises, without dropout."""
    student.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    x = student.preprocessor(images)
    targets = keras.utils.to_categorical(labels, CLASSES)
    return float(ops.convert_to_numpy(student.compute_loss(x, targets, student(x))))


def expected(student, probabilities_of, images, labels, weight, temperature):
    logits = student.predict(images, verbose=0).astype("float64")
    ours = log_softmax(logits / temperature, axis=-1)
    theirs = probabilities_of(temperature)
    divergence = np.sum(theirs * (np.log(theirs) - ours), axis=-1).mean() * temperature**2
    crossentropy = -log_softmax(logits, axis=-1)[np.arange(len(labels)), labels].mean()
    return (1 - weight) * crossentropy + weight * divergence


def teachers():
    member = build(2)
    yield "classifier", build(1)
    yield "softmax", build(1, activation="softmax")
    # Preprocesses otherwise than the student does: it must get its own images all the same.
    yield "preprocessing", build(1, preprocessor=OTHER_WAY)
    yield "committee", lsmha_keras.SoftCommittee([build(1), member])


@pytest.mark.parametrize("kind", ["classifier", "softmax", "preprocessing", "committee"])
def test_the_loss_is_numpys(kind, images):
    student, teacher = build(0), dict(teachers())[kind]
    labels, weight, temperature = np.arange(len(images)) % CLASSES, 0.3, 2.0

    def probabilities_of(temperature):
        outputs = teacher.predict(images, verbose=0).astype("float64")
        outputs = np.log(outputs) if kind == "softmax" else outputs
        return softmax(outputs / temperature, axis=-1)

    plain = loss_of(student, images, labels)
    assert student.distill_from(teacher, weight, temperature) is student
    wanted = expected(student, probabilities_of, images, labels, weight, temperature)
    assert abs(wanted - plain) > 1e-3
    np.testing.assert_allclose(loss_of(student, images, labels), wanted, rtol=1e-4)
    # Off again, and never part of what `evaluate` reports.
    targets = keras.utils.to_categorical(labels, CLASSES)
    evaluated = student.evaluate(images, targets, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(evaluated, plain, rtol=1e-4)
    student.distill_from(None)
    np.testing.assert_allclose(loss_of(student, images, labels), plain, rtol=1e-5)


def test_a_student_learns_from_the_teacher_alone(images):
    student, teacher = build(0), build(1)
    weights = [np.array(w) for w in teacher.get_weights()]
    names = [v.path for v in student.variables]
    wrong = np.zeros(len(images), "int32")

    def distance():
        gap = student.predict(images, verbose=0) - teacher.predict(images, verbose=0)
        return float(np.abs(gap - gap.mean(-1, keepdims=True)).mean())

    before = distance()
    student.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    student.fit(images, wrong, epochs=1, verbose=0)  # compiled without a teacher
    student.distill_from(teacher, weight=1.0)
    student.fit(images, wrong, epochs=40, verbose=0)
    assert distance() < before / 4
    for old, new in zip(weights, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert [v.path for v in student.variables] == names


def test_the_teacher_is_not_saved(images, tmp_path):
    student = build(0).distill_from(build(1))
    student.save_to_preset(str(tmp_path / "student"))
    again = lsmha_keras.CCTImageClassifier.from_preset(str(tmp_path / "student"))
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), student.predict(images, verbose=0)
    )


@pytest.mark.parametrize(
    ("teacher", "options", "match"),
    [
        (lambda: "lsmha-small", {}, "must be a `CCTImageClassifier` or a `SoftCommittee`"),
        (lambda: build(1, classes=4), {}, "agree on `num_classes`. Received: 4 for the teacher"),
        (lambda: build(1, side=16), {}, "agree on `image_shape`"),
        (lambda: build(1, class_names=list("xyz")), {}, "agree on `class_names`"),
        (lambda: build(1, activation="sigmoid"), {}, "activation='sigmoid'"),
        (
            lambda: lsmha_keras.SoftCommittee([build(1), build(2)], mode="vote"),
            {},
            "mode='vote'",
        ),
        (
            lambda: lsmha_keras.SoftCommittee(
                [build(1), build(2, preprocessor=preprocess(scale=1))]
            ),
            {},
            "Received: 2 kinds of preprocessing",
        ),
        (lambda: build(1), {"weight": 1.5}, "weight=1.5"),
        (lambda: build(1), {"temperature": 0}, "temperature=0"),
    ],
)
def test_bad_teachers(teacher, options, match):
    student = build(0, class_names=["a", "b", "c"])
    with pytest.raises(ValueError, match=match):
        student.distill_from(teacher(), **options)


def test_bad_students():
    with pytest.raises(ValueError, match="must predict logits"):
        build(0, activation="softmax").distill_from(build(1))
    student = build(0)
    with pytest.raises(ValueError, match="its own teacher"):
        student.distill_from(student)
