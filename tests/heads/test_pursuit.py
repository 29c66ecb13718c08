"""Head pursuit: identities, planted heads; and interventions against masks."""

import csv

import numpy as np
import pytest
from keras import ops

import lsmha_keras as lsmha
from lsmha_keras.data.superclasses import SUPERCLASSES, superclass_labels
from lsmha_keras.errors import InputError
from lsmha_keras.heads.explain import prepared
from lsmha_keras.heads.interventions import ScaledHeads
from lsmha_keras.heads.pursuit import class_atoms, simultaneous_pursuit
from tests.heads.models import classifier
from tests.shp.models import pictures


@pytest.fixture(scope="module")
def model():
    return classifier()


# The pursuit


def random_problem(width=6, atoms=20, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(30, width)) + 1, rng.normal(size=(atoms, width))


@pytest.mark.backend_free
def test_residuals_are_orthogonal_and_a_full_pursuit_explains_everything():
    signals, atoms = random_problem()
    chosen, explained = simultaneous_pursuit(signals, atoms, 6)
    assert len(set(chosen)) == 6 and (np.diff(explained) >= 0).all()
    assert explained[-1] == pytest.approx(1, abs=1e-12)
    for step in range(1, 7):
        basis = np.linalg.qr(atoms[chosen[:step]].T)[0]
        residual = signals - signals @ basis @ basis.T
        share = 1 - np.sum(residual**2) / np.sum(signals**2)
        assert explained[step - 1] == pytest.approx(share, abs=1e-12)
        np.testing.assert_allclose(residual @ atoms[chosen[:step]].T, 0, atol=1e-11)


@pytest.mark.backend_free
def test_one_step_on_one_signal_takes_the_largest_projection():
    signals, atoms = random_problem()
    lens = np.abs(atoms @ signals[0]) / np.linalg.norm(atoms, axis=1)
    assert simultaneous_pursuit(signals[:1], atoms, 1)[0][0] == lens.argmax()


@pytest.mark.backend_free
def test_lengths_of_atoms_do_not_matter_and_planted_ones_are_found():
    _, atoms = random_problem(width=60)  # so wide that random atoms are nearly at right angles
    planted = np.abs(np.random.default_rng(1).normal(size=(30, 2))) * [3, 1] @ atoms[[4, 9]]
    scaled = atoms * np.geomspace(0.01, 100, len(atoms))[:, None]
    scaled[0] = 0
    chosen, explained = simultaneous_pursuit(planted, scaled, 2)
    assert set(chosen) == {4, 9} and explained[1] == pytest.approx(1)
    assert simultaneous_pursuit(0 * planted, scaled, 2)[1].tolist() == [0, 0]


# On a model


def test_atoms_are_what_norms_leave_of_the_classifier(model):
    """Written as derivatives of the logits of a stream that has nothing but norms."""
    last = model.backbone.blocks[3]
    rng = np.random.default_rng(0)
    for norm in (last.mlp_norm, model.backbone.layer_norm):
        norm.gamma.assign(rng.uniform(0.5, 2, 16))
    x = rng.normal(size=(1, 1, 16)).astype("float32")
    kernel = ops.convert_to_numpy(last.attention.projection.kernel).reshape(4, 4, 16)
    atoms = class_atoms(model, 3)

    def linear(stream):
        for norm in (last.mlp_norm, model.backbone.layer_norm):
            centred = stream - stream.mean()
            stream = centred * ops.convert_to_numpy(norm.gamma)
        return stream @ ops.convert_to_numpy(model.output_dense.kernel)

    for head in range(4):
        for place in range(4):
            moved = linear(x[0, 0] + kernel[head, place]) - linear(x[0, 0])
            np.testing.assert_allclose(atoms[head, :, place], moved, atol=1e-5)


def test_pursuit_of_one_image_begins_at_its_logit_lens(model, tmp_path):
    data = pictures(1)
    found = lsmha.head_pursuit(
        model, data, steps=4, concepts={"odd": ["name 1", 3]}, blocks=[3], verbose=0
    )
    inside = model.backbone.intermediates(["block_3/head_outputs", "output"])
    values = inside(prepared(model, data[0]))
    heads, output = (ops.convert_to_numpy(values[k]) for k in inside.names)
    pooling = ops.convert_to_numpy(model.pooler.token_weights(output))
    for head, atoms in enumerate(class_atoms(model, 3)):
        written = pooling[0] @ heads[0, :, head]
        lens = np.abs(atoms @ written) / np.linalg.norm(atoms, axis=1)
        assert found.classes[3][head, 0] == lens.argmax()
        share = lens**2 / np.sum(written**2)
        assert found.explained[3][head, 0] == pytest.approx(share.max(), rel=1e-3)
        basis = np.linalg.qr(atoms[[1, 3]].T)[0]
        expected = np.sum((basis.T @ written) ** 2) / np.sum(written**2)
        assert found.concept_scores[3][head, 0] == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(found.explained[3][:, -1], 1, atol=1e-6)  # four wide, four steps
    ((block, best),) = found.best_heads("odd")
    assert block == 3 and best == found.concept_scores[3][:, 0].argmax()
    found.save(tmp_path / "heads.csv")
    with open(tmp_path / "heads.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["head"] for row in rows] == list("0123")
    assert rows[0]["classes"].startswith(f"name {found.classes[3][0, 0]} name ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 5}, r"1 \.\. 4.*Received: steps=5"),
        ({"blocks": [0]}, r"\[1, 2, 3\].*blocks=\[0\]"),
        ({"concepts": ["flower"]}, r"nearest: flowers\).*Received: superclass='flower'"),
        ({"concepts": ["flowers"]}, "those of CIFAR-100. Received: classes without 'orchid'"),
        ({"concepts": {"x": ["name 9"]}}, "nearest: name"),
        ({"concepts": {"x": []}}, "Received: concept 'x' without any"),
    ],
)
def test_what_cannot_be_pursued_is_named(model, arguments, message):
    with pytest.raises(InputError, match=message):
        lsmha.head_pursuit(model, pictures(2), **{"verbose": 0, **arguments})


def test_an_unknown_concept_of_a_result_is_named(model):
    found = lsmha.head_pursuit(model, pictures(2), concepts={"odd": [1]}, blocks=[3], verbose=0)
    with pytest.raises(InputError, match=r"nearest: odd\).*Received: concept='od'"):
        found.best_heads("od")


@pytest.mark.backend_free
def test_superclasses_hold_each_class_of_the_presets_once():
    names = lsmha.Predictor("lsmha-small").class_names
    found = [superclass_labels(names, superclass) for superclass in SUPERCLASSES]
    assert len(found) == 20 and sorted(sum(found, [])) == list(range(100))
    assert [names[k] for k in superclass_labels(names, "vehicles_1")] == [
        "bicycle", "bus", "motorcycle", "pickup_truck", "train"
    ]  # fmt: skip


# Interventions


def scaled(model, images, scales):
    runner = ScaledHeads(model)
    tokens = model.backbone.intermediates([runner.entry])(images)[runner.entry]
    found = ops.convert_to_numpy(runner({"tokens": tokens, "scales": scales}))
    from_images = ops.convert_to_numpy(runner({"images": images, "scales": scales}))
    np.testing.assert_allclose(from_images, found, atol=1e-5)
    return found


def test_scales_of_one_and_zero_are_the_model_and_its_masks(model):
    images = prepared(model, pictures(3)[0])
    ones = np.ones((3, 12), "float32")
    plain = ops.convert_to_numpy(model(images))
    found = scaled(model, images, ones)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    ones[:, 4 + 1] = 0  # head 1 of block 2
    mask = np.array([1, 0, 1, 1], "float32")
    masked = model.intermediates(["logits"], {2: mask})(images)["logits"]
    found = scaled(model, images, ones)
    np.testing.assert_allclose(found, ops.convert_to_numpy(masked), atol=1e-5)
    assert np.abs(found - plain).max() > 1e-3


def test_interventions_are_counted_in_and_outside_of_the_classes(model):
    images, labels = pictures(20)
    heads = [(1, 0), (3, 2), (3, 3)]
    rows = lsmha.intervene_on_heads(
        model, (images, labels), heads, ["name 0", 2], draws=3, verbose=0
    )
    assert [row["heads"] for row in rows] == ["none", "chosen", "random", "random", "random"]
    assert rows[1]["places"] == "1/0 3/2 3/3"
    for row in rows[2:]:
        # The two others of block 3, and one of the three others of block 1.
        first, *last = row["places"].split()
        assert last == ["3/0", "3/1"] and first in ("1/1", "1/2", "1/3")
    inside = np.isin(labels, [0, 2])
    scales = np.ones((20, 12), "float32")
    scales[:, [0, 10, 11]] = -1
    for row, values in zip(rows, (np.ones_like(scales), scales), strict=False):
        right = scaled(model, prepared(model, images), values).argmax(axis=1) == labels
        assert row["accuracy"] == pytest.approx(right[inside].mean())
        assert row["other_accuracy"] == pytest.approx(right[~inside].mean())


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([(0, 1)], "block 1 has 4.*Received: block 0, head 1"),
        ([(2, 4)], "Received: block 2, head 4"),
        ([(2, 1), (2, 1)], "each once"),
        ([], "each once"),
        ([(1, 0), (1, 1), (1, 2)], "`draws=0` does without. Received: 3 of its 4 heads"),
    ],
)
def test_heads_that_cannot_be_scaled_are_named(model, heads, message):
    with pytest.raises(InputError, match=message):
        lsmha.intervene_on_heads(model, pictures(2), heads, [0])
