"""The optimiser of a recipe and its schedule."""

import math

import keras
import numpy as np
import pytest

from lsmha_keras.training.build_model import learning_rate_schedule, make_optimizer
from lsmha_keras.training.recipe import Recipe


def make_recipe(schedule=None, optimizer=None, **sections):
    return Recipe.from_dict(
        {
            "model": {"preset": "cct_2_3x2"},
            "data": {"name": "digits"},
            "schedule": {"epochs": 2, **(schedule or {})},
            "optimizer": optimizer or {},
            **sections,
        }
    )


def rates(recipe, steps_per_epoch, steps):
    schedule = learning_rate_schedule(recipe, steps_per_epoch)
    return [float(keras.ops.convert_to_numpy(schedule(step))) for step in range(steps)]


def test_warm_up_cosine_and_cool_down():
    recipe = make_recipe(
        {
            "epochs": 10,
            "warmup_epochs": 2,
            "warmup_learning_rate": 1e-6,
            "final_learning_rate": 1e-5,
            "cooldown_epochs": 3,
        },
        {"learning_rate": 6e-4},
    )
    expected = []
    for step in range(13 * 7):
        if step < 14:
            rate = 1e-6 + (6e-4 - 1e-6) * step / 14
        else:
            progress = min(1.0, (step - 14) / (70 - 14))
            rate = 1e-5 + (6e-4 - 1e-5) * 0.5 * (1 + math.cos(math.pi * progress))
        expected.append(rate)
    np.testing.assert_allclose(rates(recipe, 7, 13 * 7), expected, rtol=1e-4, atol=1e-9)


def test_constant_after_warm_up():
    recipe = make_recipe(
        {"decay": "constant", "warmup_epochs": 0.5, "warmup_learning_rate": 0.0},
        {"learning_rate": 0.1},
    )
    np.testing.assert_allclose(rates(recipe, 4, 8), [0, 0.05, *[0.1] * 6], rtol=1e-6, atol=1e-9)


def test_constant_without_warm_up_is_a_number():
    recipe = make_recipe({"decay": "constant"}, {"learning_rate": 0.1})
    assert learning_rate_schedule(recipe, 4) == 0.1


class WithPosition(keras.layers.Layer):
    def build(self, shape):
        self.position = self.add_weight(shape=(1, *shape[1:]), initializer="ones", name="position")

    def call(self, x):
        return x + self.position


def test_biases_and_vectors_are_not_decayed():
    model = keras.Sequential(
        [
            keras.Input((4, 6)),
            keras.layers.Dense(6, bias_initializer="ones", name="dense"),
            WithPosition(name="with_position"),
            keras.layers.LayerNormalization(name="norm"),
            keras.layers.EinsumDense(
                "btc,chd->bthd", (None, 2, 3), bias_axes="hd", bias_initializer="ones", name="heads"
            ),
        ]
    )
    recipe = make_recipe({"decay": "constant"}, {"learning_rate": 0.1, "weight_decay": 0.5})
    optimizer = make_optimizer(recipe, model, steps_per_epoch=3)
    before = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    # Without a gradient AdamW only decays: w <- w (1 - rate * decay).
    optimizer.apply(
        [keras.ops.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables
    )
    after = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    factors = {
        variable.path.partition("/")[2]: float(np.median(new / old))
        for variable, new, old in zip(model.trainable_variables, after, before, strict=True)
        if np.all(old != 0)
    }
    assert factors == {
        "dense/kernel": pytest.approx(0.95),
        "dense/bias": 1.0,
        "with_position/position": pytest.approx(0.95),
        "norm/gamma": 1.0,
        "heads/kernel": pytest.approx(0.95),
        "heads/bias": 1.0,  # two-dimensional, but a bias
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "AdamW", "arguments": {"beta_2": 0.99, "global_clipnorm": 1.0}},
        {"name": "sgd", "arguments": {"momentum": 0.9, "nesterov": True}},
        {"name": "Lion", "weight_decay": 0.1},
        {"name": "Muon"},
        {"name": "RMSprop"},
    ],
)
def test_any_keras_optimizer(settings):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    optimizer = make_optimizer(make_recipe(optimizer=settings), model, steps_per_epoch=4)
    assert type(optimizer).__name__.lower() == settings["name"].lower()
    for key, value in settings.get("arguments", {}).items():
        assert optimizer.get_config()[key] == value
    model.compile(optimizer, "mse")
    x, y = np.random.default_rng(0).normal(size=(2, 16, 3)).astype("float32")
    before = model.evaluate(x, y[:, :2], verbose=0)
    model.fit(x, y[:, :2], epochs=2, verbose=0)
    assert model.evaluate(x, y[:, :2], verbose=0) < before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "AdamV"}, r"nearest: Adam\w*\). Received: optimizer.name='AdamV'"),
        ({"name": "Optimizer"}, r"must be one of Keras's optimisers"),
        ({"arguments": {"beta_3": 1}}, r"nearest: beta_\d\). Received: optimizer.arguments.beta_3"),
        ({"arguments": {"learning_rate": 1}}, r"Set `optimizer.learning_rate` instead"),
        ({"arguments": {"use_ema": True}}, r"Set `ema.enabled` instead"),
        ({"arguments": {"clipnorm": 1.0, "clipvalue": 1.0}}, r"Received: optimizer.arguments="),
    ],
)
def test_bad_optimizer(settings, message):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=message):
        make_optimizer(make_recipe(optimizer=settings), model, steps_per_epoch=4)
