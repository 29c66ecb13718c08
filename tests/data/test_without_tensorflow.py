"""All steps from a dataset's name to `fit`, where TensorFlow cannot be imported."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.backend_free

SCRIPT = """
import importlib.machinery, importlib.util, sys
find_spec = importlib.machinery.PathFinder.find_spec
class Hiding:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.split(".")[0] == "tensorflow" else find_spec(name, path, target)
finders = sys.meta_path
finders[finders.index(importlib.machinery.PathFinder)] = Hiding
assert importlib.util.find_spec("tensorflow") is None
import keras, numpy as np
import lsmha_keras as lsmha
source = lsmha.open_dataset("digits", "train[:256]")
table = {"pad_crop": 4, "flip": True, "rand_augment": {"num_ops": 1}, "mixup": 0.8, "cutmix": 1.0}
policy = lsmha.AugmentationPolicy.from_config(table, source.image_shape, 10)
batches, steps = lsmha.epoch_batches(source, 64, policy, epochs=2)
assert isinstance(batches, keras.utils.PyDataset), batches
layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(10)]
model = keras.Sequential([keras.Input((32, 32, 3)), *layers])
model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
fitted = model.fit(batches, steps_per_epoch=steps, epochs=2, shuffle=False, verbose=0)
history = fitted.history["loss"]
assert len(history) == 2 and np.isfinite(history).all(), history
test = lsmha.load_dataset("digits", "test[:100]")
assert isinstance(test, keras.utils.PyDataset) and model.predict(test, verbose=0).shape == (100, 10)
print("fine on", keras.backend.backend())
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_fit_without_tensorflow(backend):
    pytest.importorskip(backend)
    pytest.importorskip("sklearn")
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == f"fine on {backend}", result.stderr
