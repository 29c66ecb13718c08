"""A small classifier whose attention and answers differ from token to token."""

import numpy as np

from tests.shp.models import LABELS, small_classifier

NAMES = [f"name {k}" for k in range(LABELS)]


def classifier(**arguments):
    """The small classifier of SHP's tests with larger kernels, the same on every backend."""
    model = small_classifier(class_names=NAMES, **arguments)
    rng = np.random.default_rng(0)
    for weight in sorted(model.trainable_weights, key=lambda weight: weight.path):
        if weight.path.endswith("kernel"):
            weight.assign(rng.normal(0, 0.4, weight.shape))
    return model
