import json
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras import cli
from tests.checks import PATIENCE, random_images, to_numpy

# (name, parameters, classes), the table of the reference implementation.
REFERENCE_PARAMETERS = [
    ("cct_2_3x2", 283_723, 10),
    ("cct_4_3x2", 482_123, 10),
    ("cct_6_3x1", 3_233_803, 10),
    ("cct_6_3x2", 3_326_923, 10),
    ("cct_7_3x1", 3_760_139, 10),
    ("cct_7_3x1", 3_783_269, 100),
    ("cct_7_3x2", 3_853_259, 10),
    ("cct_7_7x2", 4_573_735, 102),
    ("cct_14_7x2", 22_367_273, 1000),
]


def small_classifier(num_classes=5, **kwargs):
    return lsmha.CCTImageClassifier.from_preset(
        "cct_2_3x2_h4_c1",
        num_classes=num_classes,
        image_shape=(16, 16, 3),
        hidden_dim=16,
        mlp_dim=16,
        tokenizer_filters=8,
        **kwargs,
    )


@pytest.mark.backend_free
@pytest.mark.parametrize("name, parameters, num_classes", REFERENCE_PARAMETERS)
def test_parameter_counts(name, parameters, num_classes):
    model = lsmha.CCTImageClassifier.from_preset(name, num_classes=num_classes)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == parameters


@keras.saving.register_keras_serializable(package="tests")
class NamedClassifier(lsmha.CCTImageClassifier):
    """A user's subclass whose constructor takes other arguments."""

    backbone_cls = None  # for KerasHub not to find it in other tests

    def __init__(self, backbone, labels, scale=1.0, preprocessor=None, **kwargs):
        super().__init__(backbone, len(labels), preprocessor, class_names=labels, **kwargs)
        self.labels, self.scale = labels, scale

    def get_config(self):
        kept = {k: v for k, v in super().get_config().items() if k in ("backbone", "preprocessor")}
        return {**kept, "labels": self.labels, "scale": self.scale, "name": self.name}


def test_surgery_keeps_a_subclass_with_another_constructor():
    base = small_classifier(num_classes=2)
    model = NamedClassifier(base.backbone, ["a", "b"], 2.0, base.preprocessor, name="mine")
    images = random_images(2, 16, 16, 3)
    expected = model.predict(images, verbose=0)
    for same in (
        model.with_backbone(model.backbone),
        model.fuse(),
        lsmha.grow(model, num_layers=3),
        lsmha.convert_attention(model, "knocking"),
    ):
        assert type(same) is NamedClassifier and same.name == "mine"
        assert same.labels == ["a", "b"] and same.scale == 2.0
        assert same.preprocessor is model.preprocessor
        np.testing.assert_allclose(same.predict(images, verbose=0), expected, atol=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class SquareBackbone(lsmha.CCTBackbone):
    """A user's subclass whose constructor takes other arguments."""

    def __init__(self, side, heads, **kwargs):
        size = {"hidden_dim": 16, "mlp_dim": 16, "num_layers": 2, "num_conv_blocks": 1}
        super().__init__((side, side, 3), num_heads=heads, **size, **kwargs)
        self.side, self.heads = side, heads

    def get_config(self):
        return {"side": self.side, "heads": self.heads, "name": self.name}


def test_a_backbone_with_another_constructor_saves_and_loads(tmp_path):
    backbone = SquareBackbone(16, 4)
    images = keras.ops.convert_to_tensor(random_images(2, 16, 16, 3) / np.float32(255))
    backbone.save_to_preset(tmp_path)
    loaded = SquareBackbone.from_preset(tmp_path)
    assert loaded.image_shape == (16, 16, 3) and loaded.num_heads == 4
    with pytest.raises(ValueError, match="trained with heads=4 .* Received: heads=2"):
        SquareBackbone.from_preset(tmp_path, heads=2)
    np.testing.assert_allclose(to_numpy(loaded(images)), to_numpy(backbone(images)), atol=1e-6)
    model = lsmha.CCTImageClassifier(backbone, 3)
    expected = to_numpy(model(images))
    np.testing.assert_allclose(to_numpy(model.with_backbone(loaded)(images)), expected, atol=1e-6)


def test_fit_learns_sorted_arrays():
    """Arrays are shuffled; otherwise each batch of sorted labels would have one class."""
    keras.utils.set_random_seed(0)
    labels = np.repeat(np.arange(4), 32)
    images = (random_images(128, 16, 16, 3) // 4 + 48 * labels[:, None, None, None]).astype("uint8")
    model = small_classifier(num_classes=4)
    model.compile(
        optimizer=keras.optimizers.AdamW(5e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(images, labels, epochs=8, verbose=0, validation_data=(images, labels))
    assert history.history["val_accuracy"][-1] > 0.9


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="counts TensorFlow's traces")
@pytest.mark.parametrize("verb", ["fit", "evaluate"])
def test_a_step_is_traced_once(verb):
    import tensorflow as tf

    traced = []

    def label(y_true, y_pred):
        traced.append(tf.inside_function())
        return keras.ops.cast(y_true, "float32")

    model, labels = small_classifier(), np.arange(16) % 5
    model.compile(keras.optimizers.SGD(0.1), model.loss, metrics=[label])
    found = getattr(model, verb)(random_images(16, 16, 16, 3), labels, batch_size=8, verbose=0)
    assert traced.count(True) == 1
    # What was created beforehand has not counted anything.
    figure = found.history["label"][0] if verb == "fit" else found[1]
    assert figure == pytest.approx(labels.mean())


class Images(keras.utils.PyDataset):
    def __init__(self, images, labels, **kwargs):
        super().__init__(**kwargs)
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images) // 8

    def __getitem__(self, i):
        return self.images[8 * i : 8 * i + 8], self.labels[8 * i : 8 * i + 8]


def test_all_kinds_of_input_agree():
    images, labels = random_images(24, 20, 16, 3), np.arange(24) % 5
    model = small_classifier()
    expected = np.asarray(
        keras.ops.convert_to_numpy(model(model.preprocessor(images), training=False))
    )
    inputs = {"array": images, "list": list(images), "dataset": Images(images, labels)}
    try:
        import tensorflow as tf
    except ImportError:
        tf = None
    if tf is not None:
        inputs["tf.data"] = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    for kind, x in inputs.items():
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5, err_msg=kind)
    losses = [model.evaluate(images, labels, verbose=0)]
    datasets = [x for kind, x in inputs.items() if kind not in ("array", "list")]
    losses += [model.evaluate(x, verbose=0) for x in datasets]
    for loss in losses[1:]:
        np.testing.assert_allclose(loss, losses[0], atol=1e-5)


def test_fit_accepts_datasets_and_validation():
    images, labels = random_images(24, 16, 16, 3), np.arange(24) % 5
    model = small_classifier()
    data = Images(images, labels)
    history = model.fit(data, validation_data=Images(images, labels), verbose=0)
    assert "val_loss" in history.history
    history = model.fit(images, labels, validation_split=0.25, class_weight={0: 2.0}, verbose=0)
    assert "val_loss" in history.history


LOAD_ELSEWHERE = """
import sys, numpy as np
import lsmha_keras
directory = sys.argv[1]
images = np.load(directory + "/images.npy")
expected = np.load(directory + "/expected.npy")
model = keras.saving.load_model(directory + "/model.keras")
np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5)
import keras_hub
model = keras_hub.models.ImageClassifier.from_preset(directory + "/preset")
np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5)
assert type(model) is lsmha_keras.CCTImageClassifier
"""
# Keras comes last, so that nothing registers itself.
CUSTOM_OBJECTS = """
import lsmha_keras, keras, functools
keras.saving.load_model = functools.partial(
    keras.saving.load_model, custom_objects=lsmha_keras.custom_objects()
)
"""


# Keras's registry is the same on every backend.
@pytest.mark.backend_free
@pytest.mark.parametrize("first", ["import keras", "import keras_hub, keras", CUSTOM_OBJECTS])
def test_fresh_process_loads_after_a_bare_import(tmp_path, first):
    model = small_classifier()
    images = random_images(4, 16, 16, 3)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "expected.npy", model.predict(images, verbose=0))
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    script = f"{first}\n{LOAD_ELSEWHERE}"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=PATIENCE)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_a_custom_quantisation_survives_saving(tmp_path):
    """Weights only: quantising the activations, too, changes the logits."""
    images = random_images(8, 16, 16, 3)
    model, default = small_classifier(), small_classifier()
    rng = np.random.default_rng(0)
    for weight, same in zip(model.weights, default.weights, strict=True):
        if weight.trainable and len(weight.shape) > 1:
            weight.assign(rng.normal(size=weight.shape))
        same.assign(to_numpy(weight))  # a copy: JAX's predict gives its arrays away
    model.quantize(config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None))
    default.quantize("int8")
    expected = model.predict(images, verbose=0)
    assert np.abs(default.predict(images, verbose=0) - expected).max() > 1e-2
    model.save_to_preset(tmp_path)
    model.save(tmp_path / "model.keras")
    for loaded in (
        lsmha.CCTImageClassifier.from_preset(tmp_path),
        keras.saving.load_model(tmp_path / "model.keras"),
    ):
        np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-4)


def test_intermediates_give_logits():
    model = small_classifier()
    images = random_images(4, 16, 16, 3)
    values = model.intermediates(["block_1/head_outputs", "logits"])(model.preprocessor(images))
    assert tuple(values["block_1/head_outputs"].shape) == (4, 16, 4, 4)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(values["logits"]), model.predict(images, verbose=0), atol=1e-5
    )


def test_saved_presets_hold_no_optimizer(tmp_path):
    import h5py

    model = small_classifier()
    model.fit(random_images(8, 16, 16, 3), np.arange(8) % 5, verbose=0)
    model.save_to_preset(tmp_path)
    for name in ("model.weights.h5", "task.weights.h5"):
        with h5py.File(tmp_path / name) as file:
            assert "optimizer" not in file
    assert model.optimizer is not None
    keras_hub.models.ImageClassifier.from_preset(str(tmp_path))


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((4, 16, 16, 1), "uint8"), "with 3 channels"),
        (np.zeros((16, 3), "uint8"), "must have shape"),
        (np.full((4, 16, 16, 3), 300.0), "from 300.0 to 300.0"),
        (np.full((4, 16, 16, 3), -1.0), "from -1.0 to -1.0"),
        (np.full((4, 16, 16, 3), np.nan), "from nan to nan"),
        (np.full((4, 16, 16, 3), "cat"), "dtype <U3"),
        (np.zeros((0, 16, 16, 3), "uint8"), "at least 1"),
    ],
)
def test_bad_images(images, message):
    with pytest.raises(ValueError, match=message):
        small_classifier().predict(images, verbose=0)


def test_default_metric_fits_the_labels():
    images, labels = random_images(10, 16, 16, 3), np.arange(10) % 5
    model = small_classifier()
    expected = (model.predict(images, verbose=0).argmax(-1) == labels).mean()
    assert model.evaluate(images, labels, verbose=0)[1] == pytest.approx(expected)
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    one_hot = np.eye(5, dtype="float32")[labels]
    assert model.evaluate(images, one_hot, verbose=0)[1] == pytest.approx(expected)


def test_probabilities_are_taken_once(tmp_path, capsys):
    images = random_images(3, 16, 16, 3)
    model = small_classifier(class_names=list("abcde"))
    model.output_dense.kernel.assign(50 * model.output_dense.kernel)
    softmax = lsmha.CCTImageClassifier(
        model.backbone, 5, model.preprocessor, activation="softmax", class_names=list("abcde")
    )
    softmax.output_dense.set_weights(model.output_dense.get_weights())
    softmax.pooler.set_weights(model.pooler.get_weights())
    logits = model.predict(images, verbose=0).astype("float64")
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for classifier in (model, softmax):
        outputs = classifier.predict(images, verbose=0)
        np.testing.assert_allclose(classifier.probabilities(outputs), expected, atol=1e-6)
    vote = lsmha.SoftCommittee([model, softmax], mode="vote")
    shares = vote.probabilities(vote.predict(images, verbose=0))
    answers = np.eye(5)[expected.argmax(-1)]
    np.testing.assert_allclose(shares, (2 * answers + expected) / 3, atol=1e-5)
    soft = lsmha.SoftCommittee([model, softmax])
    np.testing.assert_allclose(
        soft.probabilities(soft.predict(images, verbose=0)), expected, atol=1e-5
    )
    # The command line shows the same.
    Image = pytest.importorskip("PIL.Image")
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    for name, classifier, row in (("softmax", softmax, expected[0]), ("vote", vote, shares[0])):
        classifier.save_to_preset(tmp_path / name)
        capsys.readouterr()
        cli.main(["predict", str(tmp_path / name), str(tmp_path / "a.png"), "--json"])
        (result,) = json.loads(capsys.readouterr().out)
        found = {entry["name"]: entry["score"] for entry in result["classes"]}
        assert found == pytest.approx(dict(zip("abcde", row, strict=True)), abs=1e-5)
    model.activation = "tanh"
    with pytest.raises(ValueError, match="Received: activation=tanh"):
        model.probabilities(logits)


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.array([0, 5]), "labels from 0 to 5"),
        (np.array([-1, 1]), "labels from -1 to 1"),
        (np.eye(2, 4, dtype="float32"), r"shape \(2, 4\)"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        small_classifier().fit(random_images(2, 16, 16, 3), labels, verbose=0)


def test_bad_arguments():
    backbone = small_classifier().backbone
    with pytest.raises(ValueError, match="num_classes=0"):
        lsmha.CCTImageClassifier(backbone, num_classes=0)
    with pytest.raises(ValueError, match="num_classes=3, 2 names"):
        lsmha.CCTImageClassifier(backbone, num_classes=3, class_names=["a", "b"])
    with pytest.raises(ValueError, match="same length"):
        small_classifier().fit(random_images(8, 16, 16, 3), np.arange(7), verbose=0)
    with pytest.raises(ValueError, match="validation_split"):
        small_classifier().fit(random_images(8, 16, 16, 3), np.arange(8) % 5, validation_split=2)
    with pytest.raises(ValueError, match="supplies `y`"):
        data = Images(random_images(8, 16, 16, 3), np.arange(8))
        small_classifier().fit(data, np.arange(8), verbose=0)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch runs models uncompiled")
def test_a_second_predict_runs_compiled_code_only(monkeypatch):
    model = lsmha.CCTImageClassifier.from_preset(
        "cct_2_3x2", image_shape=(8, 8, 3), hidden_dim=8, num_heads=2, num_classes=3
    )
    images = np.zeros((1, 8, 8, 3), "uint8")
    model.predict(images, verbose=0)
    calls, call = [], model.pooler.call
    monkeypatch.setattr(
        model.pooler, "call", lambda *args, **kw: calls.append(1) or call(*args, **kw)
    )
    model.predict(images, verbose=0)
    model.evaluate(images, np.zeros(1, "int32"), verbose=0)  # traces its own function, once
    assert len(calls) <= 2
    calls.clear()
    model.predict(images, verbose=0)
    model.evaluate(images, np.zeros(1, "int32"), verbose=0)
    assert not calls
