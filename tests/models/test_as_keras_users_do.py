"""Models used as in Keras and PyTorch programs: loops, saving, shuffling, clones."""

import inspect
import json
import warnings

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.checks import random_images, to_numpy
from tests.models.test_cct_image_classifier import Images, small_classifier

on_torch = pytest.mark.skipif(keras.config.backend() != "torch", reason="needs the torch backend")
STILL = {"attention_dropout": 0.0, "stochastic_depth_rate": 0.0}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Seen(keras.callbacks.Callback):
    """Records which images reach a model, by the value of their first pixel."""

    def __init__(self, model):
        super().__init__()
        self.order, preprocess = [], model.preprocess_samples

        def watched(x, y=None, sample_weight=None):
            self.order += [int(image[0, 0, 0]) for image in np.asarray(x)]
            return preprocess(x, y, sample_weight)

        object.__setattr__(model, "preprocess_samples", watched)


def numbered(count):
    images = np.zeros((count, 16, 16, 3), "uint8")
    images[:, 0, 0, 0] = np.arange(count)
    return images, np.arange(count) % 5


@pytest.mark.parametrize("kind", ["array", "PyDataset"])
def test_shuffle_says_in_which_order_images_come(kind):
    keras.utils.set_random_seed(0)
    images, labels = numbered(48)
    data = (images, labels) if kind == "array" else (Images(images, labels),)
    batch_size = 8 if kind == "array" else None
    model, orders = small_classifier(), {}
    seen = Seen(model)
    for shuffle in (False, True, "batch"):
        model.fit(*data, batch_size=batch_size, shuffle=shuffle, verbose=0)
        orders[shuffle] = np.array(seen.order[-48:]).reshape(6, 8)
    in_order = np.arange(48).reshape(6, 8)
    assert (orders[False] == in_order).all()
    for shuffle in (True, "batch"):
        assert (np.sort(orders[shuffle].ravel()) == np.arange(48)).all()
        assert (orders[shuffle] != in_order).any()
    whole = ["batch"] if kind == "array" else [True, "batch"]
    for shuffle in whole:  # Batches change places, and images stay in their batch.
        assert {tuple(batch) for batch in orders[shuffle]} == set(map(tuple, in_order))
    if kind == "array":
        assert {tuple(batch) for batch in orders[True]} != set(map(tuple, in_order))


@on_torch
@pytest.mark.parametrize("kind", ["backbone", "classifier", "committee"])
def test_torch_knows_all_weights(kind, tmp_path):
    import torch

    members = [small_classifier(), small_classifier()]
    model = members[0]
    if kind == "backbone":
        model = model.backbone
    elif kind == "committee":
        model = lsmha.SoftCommittee(members)
    values = {id(variable.value) for variable in model.variables}
    assert {id(parameter) for parameter in model.parameters()} == values
    trainable = sum(parameter.requires_grad for parameter in model.parameters())
    assert trainable == len(model.trainable_variables)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    before = [to_numpy(weight) for weight in model.weights]
    for weight in model.weights:
        weight.assign(weight * 0)
    model.load_state_dict(torch.load(tmp_path / "state.pt"))
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), old)
    if kind == "classifier":
        model.save_to_preset(tmp_path)
        loaded = lsmha.CCTImageClassifier.from_preset(tmp_path)
        assert len(list(loaded.parameters())) == len(loaded.variables)
        loaded.backbone.enable_lora(2)
        assert {id(p) for p in loaded.parameters()} == {id(v.value) for v in loaded.variables}


@on_torch
def test_a_loop_in_torch_and_fit_take_the_same_steps():
    """Steps of plain gradient descent, the gradients by `torch.autograd.grad`, which keeps none."""
    import torch

    images, labels = random_images(16, 16, 16, 3), np.arange(16) % 5
    fitted = small_classifier(**STILL)
    looped, alone = (type(fitted).from_config(fitted.get_config()) for _ in range(2))
    for copy in (looped, alone):
        copy.set_weights(fitted.get_weights())
    fitted.compile(keras.optimizers.SGD(0.1), LOSS)
    fitted.fit(images, labels, batch_size=16, epochs=3, shuffle=False, verbose=0)

    x, y = looped.preprocessor(images), torch.as_tensor(labels)
    optimizer = torch.optim.SGD([p for p in looped.parameters() if p.requires_grad], 0.1)
    loss = torch.nn.CrossEntropyLoss()
    for _ in range(3):
        looped.zero_grad()
        loss(looped(x, training=True), y).backward()
        optimizer.step()

    weights = [variable.value for variable in alone.trainable_variables]
    for _ in range(3):
        gradients = torch.autograd.grad(loss(alone(x, training=True), y), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= 0.1 * gradient
    for other in (fitted, looped):
        for weight, expected in zip(other.trainable_weights, alone.trainable_weights, strict=True):
            np.testing.assert_allclose(to_numpy(weight), to_numpy(expected), atol=1e-5)


def test_training_continues_unchanged_after_saving(tmp_path):
    images, labels = random_images(32, 16, 16, 3), np.arange(32) % 5
    one = small_classifier(**STILL)
    two = type(one).from_config(one.get_config())
    two.set_weights(one.get_weights())
    for model in (one, two):
        model.compile(
            keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(1e-2, 12)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    options = {"batch_size": 8, "shuffle": False, "verbose": 0}
    one.fit(images, labels, epochs=2, **options)
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "m.keras")
    two.fit(images, labels, epochs=1, callbacks=[saving], **options)
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert isinstance(loaded.optimizer, keras.optimizers.AdamW)
    assert int(to_numpy(loaded.optimizer.iterations)) == 4
    assert loaded.loss.name == LOSS.name and loaded.preprocessor is not None
    figures = [m.evaluate(images, labels, verbose=0, return_dict=True) for m in (two, loaded)]
    assert figures[1] == pytest.approx(figures[0], abs=1e-5)
    loaded.fit(images, labels, epochs=2, initial_epoch=1, **options)
    for a, b in zip(one.trainable_weights, loaded.trainable_weights, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), atol=2e-5)


def test_compilation_travels_between_backends():
    """ "auto" is decided again where the model is loaded; explicit settings stay."""
    model = small_classifier()
    assert model.get_compile_config()["jit_compile"] == "auto"
    model.compile(jit_compile=False)
    assert model.get_compile_config()["jit_compile"] is False


@pytest.mark.parametrize("kind", ["array", "PyDataset", "tf.data"])
@pytest.mark.parametrize("verb", ["fit", "evaluate", "predict"])
def test_images_of_0_to_1_are_warned_of_once(kind, verb):
    images, labels = random_images(24, 16, 16, 3) / np.float32(255), np.arange(24) % 5
    images[images > 0.875] = 0.875
    data = {"array": (images, labels), "PyDataset": (Images(images, labels),)}.get(kind)
    if kind == "tf.data":
        tf = pytest.importorskip("tensorflow")
        data = (tf.data.Dataset.from_tensor_slices((images, labels)).batch(8),)
    data = data[:1] if verb == "predict" else data
    model = small_classifier()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(model, verb)(*data, verbose=0)
    found = [str(w.message) for w in caught if "in 0 .. 255" in str(w.message)]
    assert len(found) == 1 and "the largest here is 0.875: multiply" in found[0]


def test_values_are_checked_inside_tf_data():
    tf = pytest.importorskip("tensorflow")
    images = tf.data.Dataset.from_tensor_slices(np.full((4, 16, 16, 3), 300, "float32")).batch(4)
    with pytest.raises(ValueError, match="^Images .* values from 300.0 to 300.0$"):
        small_classifier().predict(images, verbose=0)


def test_one_image_and_images_without_channels():
    images = random_images(3, 16, 16, 3)
    model = small_classifier()
    logits = model.predict(images, verbose=0)
    np.testing.assert_allclose(model.predict(images[0], verbose=0), logits[:1], atol=1e-5)
    gray = lsmha.CCTImageClassifier.from_preset(
        "cct_2_3x2", num_classes=2, image_shape=(16, 16, 1), hidden_dim=8, mlp_dim=8
    )
    images = random_images(3, 16, 16, 1)
    logits = gray.predict(images, verbose=0)
    np.testing.assert_allclose(gray.predict(images[..., 0], verbose=0), logits, atol=1e-5)
    np.testing.assert_allclose(gray.predict(images[1], verbose=0), logits[1:2], atol=1e-5)


def test_numbers_of_numpy_are_numbers(tmp_path):
    sizes = {"hidden_dim": 8, "num_heads": 2, "mlp_dim": 8, "num_conv_blocks": 1}
    sizes = {name: np.int64(size) for name, size in sizes.items()}
    model = lsmha.CCTImageClassifier.from_preset(
        "cct_2_3x2", num_classes=np.int64(3), image_shape=tuple(np.array([16, 16, 3])), **sizes
    )
    model.save_to_preset(tmp_path)
    assert lsmha.CCTImageClassifier.from_preset(tmp_path).num_classes == 3


def test_numbers_of_numpy_are_saved_as_plain_ones():
    """All arguments that are numbers, and those that are lists of numbers."""
    arguments = {
        name: parameter.default
        for name, parameter in inspect.signature(lsmha.CCTBackbone).parameters.items()
        if isinstance(parameter.default, (int, float, tuple))
    }
    arguments |= {"num_layers": 2, "num_heads": [2, 8], "head_dim": [5, 7], "hidden_dim": 16}
    arguments |= {"mlp_dim": 16, "attention_dropout": 0.25, "stochastic_depth_rate": 0.5}
    arguments["layer_norm_epsilon"] = 2.0**-16
    made = lsmha.CCTBackbone(**{name: np.array(value) for name, value in arguments.items()})
    plain = lsmha.CCTBackbone(**arguments, name=made.name)
    assert json.loads(json.dumps(made.get_config())) == json.loads(json.dumps(plain.get_config()))
    assert len(arguments) > 15

    converter = lsmha.CCTImageConverter(
        np.array([8, 8]), scale=np.full(3, 0.25, "float32"), offset=np.float32(0.5)
    )
    config = json.loads(json.dumps(converter.get_config()))
    assert (config["image_size"], config["scale"], config["offset"]) == ([8, 8], [0.25] * 3, 0.5)
    images = random_images(2, 8, 8, 3)
    np.testing.assert_allclose(to_numpy(converter(images)), images * 0.25 + 0.5, atol=1e-4)

    classifier = lsmha.CCTImageClassifier(
        plain, np.int64(2), dropout=np.float32(0.25), class_names=np.array(["a", "b"])
    )
    config = json.loads(json.dumps(classifier.get_config()))
    assert [config[key] for key in ("num_classes", "dropout")] == [2, 0.25]
    assert config["class_names"] == ["a", "b"]


def test_elements_as_tfds_gives_them():
    images, labels = random_images(16, 16, 16, 3), np.arange(16) % 5
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels}).batch(8)
    model = small_classifier()
    expected = model.evaluate(images, labels, verbose=0)
    np.testing.assert_allclose(model.evaluate(data, verbose=0), expected, atol=1e-5)


def test_labels_are_checked_as_the_loss_takes_them():
    images, targets = random_images(8, 16, 16, 3), np.arange(8) * 100
    model = small_classifier(num_classes=1)
    model.compile("sgd", "mse", metrics=["mae"])
    predictions = model.predict(images, verbose=0)[:, 0]
    found = model.evaluate(images, targets, verbose=0, return_dict=True)
    assert found["mae"] == pytest.approx(np.abs(predictions - targets).mean(), rel=1e-4)
    model = small_classifier()
    with pytest.raises(ValueError, match="labels from 0 to 700"):
        model.fit(images, targets[:, None], verbose=0)
    with pytest.raises(ValueError, match="np.unique.*labels such as 'cat'"):
        model.fit(images, np.array(["cat"] * 8), verbose=0)


def test_no_images_give_no_logits():
    nothing = np.zeros((0, 16, 16, 3), "float32")
    model = small_classifier(num_conv_blocks=1, conv_block_design="separable")
    # TensorFlow 2.21's convolution of an empty batch returns the channels of its input.
    if keras.config.backend() != "tensorflow":
        assert tuple(small_classifier()(nothing).shape) == (0, 5)
        assert tuple(model(nothing).shape) == (0, 5)
    with pytest.raises(ValueError, match=r"at least 1. Received: shapes \[\(0, 16, 16, 3\)\]"):
        model.predict(nothing, verbose=0)
