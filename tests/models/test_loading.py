"""Loading a preset draws no initial values, and never leaves a part unloaded."""

import shutil

import h5py
import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras import presets
from lsmha_keras.layers.weight_arguments import initial_values
from tests.models.test_cct_image_classifier import small_classifier

RANDOM = (keras.initializers.TruncatedNormal, keras.initializers.VarianceScaling)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """Directory and weights of a model in which no weight is all zeros."""
    model = small_classifier()
    rng = np.random.default_rng(0)
    model.set_weights([value + rng.uniform(0.1, 0.2, value.shape) for value in model.get_weights()])
    directory = tmp_path_factory.mktemp("loading") / "preset"
    model.save_to_preset(str(directory))
    return directory, model.get_weights()


def initializers(model):
    return {
        (layer.path, name): keras.initializers.serialize(value)["class_name"]
        for layer in model._flatten_layers()
        for name, value in vars(layer).items()
        if isinstance(value, keras.initializers.Initializer)
    }


def test_nothing_is_drawn_that_is_loaded(preset, monkeypatch):
    def refuse(self, shape, dtype=None):
        raise AssertionError(f"values of shape {shape} were drawn")

    directory, weights = preset
    with monkeypatch.context() as patch:
        for kind in RANDOM:
            patch.setattr(kind, "__call__", refuse)
        loaded = lsmha.CCTImageClassifier.from_preset(directory)
    for found, expected in zip(loaded.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, expected)
    built = initializers(small_classifier())
    assert initializers(loaded) == built and len(built) > 20
    # The same initializers, too: a copy of the layers draws.
    copy = keras.models.clone_model(keras.Model(loaded.input, loaded.output))
    kernels = [v.numpy() for v in copy.trainable_variables if v.name in ("kernel", "embedding")]
    assert len(kernels) > 8 and all(np.ptp(kernel) > 0 for kernel in kernels)


def test_weights_that_are_not_loaded_are_initialised(preset):
    directory, weights = preset
    new_head = lsmha.CCTImageClassifier.from_preset(directory, num_classes=3)
    assert np.ptp(new_head.output_dense.kernel.numpy()) > 0
    np.testing.assert_array_equal(new_head.backbone.get_weights()[0], weights[0])
    untrained = lsmha.CCTImageClassifier.from_preset(directory, load_weights=False)
    for kernel in (untrained.output_dense.kernel, untrained.backbone.tokenizer.convs[0].kernel):
        assert np.ptp(kernel.numpy()) > 0
    ones = keras.initializers.Ones()
    assert initial_values(ones) is ones  # also after a load that failed, below


def group_names(file, depth):
    """The groups of a weights file that hold values, cut to some depth."""
    found = []
    with h5py.File(file) as weights:
        weights.visititems(
            lambda name, entry: found.append((name, isinstance(entry, h5py.Dataset)))
        )
    return sorted({"/".join(name.split("/")[:depth]) for name, is_values in found if is_values})


# One array, the arrays of one layer, and all layers of the list of blocks.
@pytest.mark.parametrize("depth", [None, -2, 2])
@pytest.mark.parametrize("file", ["model.weights.h5", "task.weights.h5"])
@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_missing_weights_are_refused(file, depth, preset, tmp_path):
    directory, _ = preset
    names = group_names(directory / file, depth)
    # The first and the last of the file, and one between.
    for number, name in enumerate((names[0], names[len(names) // 2], names[-1])):
        damaged = tmp_path / str(number)
        shutil.copytree(directory, damaged)
        with h5py.File(damaged / file, "r+") as weights:
            del weights[name]
        presets.write_checksums(damaged)
        with pytest.raises(ValueError, match="not complete|could not be loaded"):
            lsmha.CCTImageClassifier.from_preset(damaged)
    test_weights_that_are_not_loaded_are_initialised(preset)
