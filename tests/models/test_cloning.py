"""`keras.models.clone_model` on models that preprocess their images."""

import inspect

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.checks import random_images, random_tokens, to_numpy
from tests.models.test_cct_image_classifier import small_classifier


def model_of(kind):
    if kind == "committee":
        return lsmha.SoftCommittee([small_classifier(), small_classifier(num_conv_blocks=0)])
    if kind == "unalike committee":
        second = small_classifier(
            preprocessor=lsmha.CCTImageClassifierPreprocessor(
                lsmha.CCTImageConverter((16, 16), scale=1 / 255)
            )
        )
        return lsmha.SoftCommittee([small_classifier(), second], mode="vote")
    model = small_classifier(class_names=list("abcde"), dropout=0.1, activation="softmax")
    return model.backbone if kind == "backbone" else model


@pytest.mark.parametrize("kind", ["classifier", "committee", "unalike committee", "backbone"])
def test_a_clone_predicts_as_the_original(kind):
    model = model_of(kind)
    clone = keras.models.clone_model(model)
    assert not {id(w) for w in clone.weights} & {id(w) for w in model.weights}
    clone.set_weights(model.get_weights())
    if kind == "backbone":
        images = random_tokens(3, 16, 16, 3)
        np.testing.assert_allclose(to_numpy(clone(images)), to_numpy(model(images)), atol=1e-5)
        return
    assert type(clone) is type(model) and clone.get_config() == model.get_config()
    images = random_images(3, 40, 30, 3)  # resized and normalised on their way
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(clone.predict(images, verbose=0), expected, atol=1e-5)
    assert clone.class_names == model.class_names


def test_a_clone_is_compiled_alike_and_trains_alone():
    model = small_classifier()
    model.compile(
        keras.optimizers.SGD(0.25), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    before = [to_numpy(weight) for weight in model.weights]
    clone = keras.models.clone_model(model)
    assert isinstance(clone.optimizer, keras.optimizers.SGD)
    assert float(to_numpy(clone.optimizer.learning_rate)) == 0.25
    clone.fit(random_images(8, 16, 16, 3), np.arange(8) % 5, verbose=0)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), old)


def test_clones_of_clones_and_of_uncompiled_models():
    model = small_classifier(compile=False)
    clone = keras.models.clone_model(keras.models.clone_model(model))
    assert not clone.compiled and clone.preprocessor.get_config() == model.preprocessor.get_config()


def test_changes_while_cloning_are_refused():
    """The arguments, or the preprocessing, would be lost."""
    model = small_classifier()
    way_out = r"keras.Model\(model.input, model.output\).*Received: CCTImageClassifier"

    def other_rate(layer):
        config = layer.get_config()
        return type(layer).from_config({**config, "rate": 0.5} if "rate" in config else config)

    doubled = 2 * keras.Input((16, 16, 3))
    for arguments in (
        {"clone_function": other_rate},
        {"clone_function": lambda layer: layer},
        {"call_function": lambda layer, *args, **kwargs: layer(*args, **kwargs)},
        {"input_tensors": doubled},
        {"recursive": True},
    ):
        with pytest.raises(ValueError, match=way_out):
            keras.models.clone_model(model, **arguments)
    plain = keras.models.clone_model(
        keras.Model(model.input, model.output), clone_function=other_rate
    )
    assert plain.get_layer("output_dropout").rate == 0.5
    images = random_tokens(2, 16, 16, 3)
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(to_numpy(plain(images)), to_numpy(model(images)), atol=1e-5)


def test_a_subclass_with_its_own_constructor_is_not_cloned_in_part():
    class Classifier(lsmha.CCTImageClassifier):
        def __init__(self, backbone, num_classes, preprocessor=None):
            super().__init__(backbone, num_classes, preprocessor=preprocessor)

    model = small_classifier()
    model = Classifier(model.backbone, 5, model.preprocessor)
    with pytest.raises(ValueError, match=r"type\(model\).from_config.*Received: Classifier"):
        keras.models.clone_model(model)


@pytest.mark.backend_free
def test_the_constructors_still_show_their_arguments():
    for cls, first in (
        (lsmha.CCTImageClassifier, "backbone"),
        (lsmha.SoftCommittee, "members"),
    ):
        assert list(inspect.signature(cls).parameters)[0] == first
