"""Two devices give the answers of one, also for batches that cannot be divided."""

import keras
import pytest

from tests.test_cli import run_python

CODE = """
import keras, numpy as np
import lsmha_keras as lsmha
from tests.checks import random_images
from tests.models.test_cct_image_classifier import small_classifier
from lsmha_keras.training.devices import device_scope

images, labels = random_images(21, 16, 16, 3), np.arange(21) % 5
options = {"batch_size": 8, "verbose": 0}
one = small_classifier()
expected = one.predict(images, **options)
figures = lsmha.evaluate(one, (images, labels), batch_size=8)
even = one.evaluate(images[:20], labels[:20], **options)
with device_scope(2):
    two = small_classifier()
    two.set_weights(one.get_weights())
    for count in (21, 1):
        found = two.predict(images[:count], **options)
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)
    found = lsmha.evaluate(two, (images, labels), batch_size=8)
    assert abs(found["loss"] - figures["loss"]) < 1e-5 and found["num_images"] == 21
    np.testing.assert_allclose(two.evaluate(images[:20], labels[:20], **options), even, atol=1e-5)
    batches = [(images[i : i + 8], labels[i : i + 8]) for i in (0, 8, 16)]
    for verb in ("fit", "evaluate"):
        for data in ((images, labels), ((batch for batch in batches),)):
            try:
                getattr(two, verb)(*data, verbose=0, **({"batch_size": 8} if data[1:] else {}))
            except ValueError as error:
                assert "must be multiples of 2" in str(error), error
                assert "Received: a batch of 5 images" in str(error), error
            else:
                raise AssertionError(verb)
    two.fit(images[:20], labels[:20], **options)
    assert np.isfinite(two.predict(images, **options)).all()
print("right")
"""


@pytest.mark.skipif(keras.config.backend() != "jax", reason="Keras divides batches on JAX only")
def test_two_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    done = run_python("-c", CODE)
    assert done.stdout == "right\n", done.stderr
