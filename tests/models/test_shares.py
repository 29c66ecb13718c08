"""Two devices give the same results as one; batches that cannot be divided are refused."""

import keras
import pytest

from tests.test_cli import run_python

CODE = """
import importlib.util
import keras, numpy as np
if keras.config.backend() == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import lsmha_keras as lsmha
from tests.checks import random_images
from tests.models.test_cct_image_classifier import small_classifier
from lsmha_keras.training.devices import device_scope

images, labels = random_images(21, 16, 16, 3), np.arange(21) % 5
options = {"batch_size": 8, "verbose": 0}
# Batch statistics would be those of each device's share.
still = {"num_conv_blocks": 0, "attention_dropout": 0.0, "stochastic_depth_rate": 0.0}
one = small_classifier(**still)
expected = one.predict(images, **options)
figures = lsmha.evaluate(one, (images, labels), batch_size=8)
even = one.evaluate(images[:20], labels[:20], **options)
with device_scope(2):
    two = small_classifier(**still)
    two.set_weights(one.get_weights())
    for count in (21, 1):
        found = two.predict(images[:count], **options)
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)
    found = lsmha.evaluate(two, (images, labels), batch_size=8)
    assert abs(found["loss"] - figures["loss"]) < 1e-5 and found["num_images"] == 21
    np.testing.assert_allclose(two.evaluate(images[:20], labels[:20], **options), even, atol=1e-5)
    batches = [(images[i : i + 8], labels[i : i + 8]) for i in (0, 8, 16)]
    kinds = [lambda: (images, labels), lambda: ((batch for batch in batches),)]
    if importlib.util.find_spec("tensorflow"):
        import tensorflow as tf

        kinds.append(lambda: (tf.data.Dataset.from_tensor_slices((images, labels)).batch(8),))
    for verb in ("fit", "evaluate"):
        for kind in kinds:
            data = kind()
            try:
                getattr(two, verb)(*data, verbose=0, **({"batch_size": 8} if data[1:] else {}))
            except ValueError as error:
                assert "must be multiples of 2" in str(error), error
                assert "Received: a batch of 5 images" in str(error), error
            else:
                raise AssertionError(verb)
    two.set_weights(one.get_weights())
for model in (one, two):  # In no scope: the model knows the strategy that it was made in.
    with device_scope(2 if model is two and keras.config.backend() == "jax" else 1):
        model.compile(keras.optimizers.SGD(0.1), model.loss)
        model.fit(images[:20], labels[:20], shuffle=False, **options)
        found = model.predict(images[:1], **options)
        expected = found if model is one else expected
        np.testing.assert_allclose(found, expected, atol=1e-5)
for old, new in zip(one.trainable_weights, two.trainable_weights, strict=True):
    np.testing.assert_allclose(np.asarray(new.value), np.asarray(old.value), atol=1e-5)
print("right")
"""


@pytest.mark.skipif(keras.config.backend() == "torch", reason="Keras takes one device on PyTorch")
def test_two_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    done = run_python("-c", CODE)
    assert done.stdout == "right\n", done.stderr
