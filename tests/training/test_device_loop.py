"""Steps on the device give what Keras's own give, and several loops share their programs."""

import importlib

import keras
import numpy as np
import pytest
from keras import ops

from lsmha_keras.data.open_dataset import open_dataset
from lsmha_keras.training.build_model import build_model, compile_model, make_policy
from lsmha_keras.training.device_loop import device_loop_class
from lsmha_keras.training.devices import recipe_runtime
from lsmha_keras.training.recipe import load_recipe
from lsmha_keras.training.recipe_data import Visit, program_key
from lsmha_keras.training.train import train
from tests.training.tiny import recipe_dict

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.skipif(BACKEND == "tensorflow", reason="tensorflow has no device loop")
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="about torch's graphs")

WITHOUT_DROPOUT = {"dropout_rate": 0.0, "attention_dropout": 0.0, "stochastic_depth_rate": 0.0}
WHOLE = 96  # images of the dataset: in one batch their order does not matter


def make_loop(dataset, rate=1e-2, overrides=None, **sections):
    recipe = recipe_dict(dataset, **{"data": {"batch_size": WHOLE}, **sections})
    if "augmentation" not in sections:
        del recipe["augmentation"]
    recipe["model"]["overrides"] |= {**WITHOUT_DROPOUT, **(overrides or {}), "num_layers": 2}
    recipe, source = load_recipe(recipe), open_dataset(dataset)
    with recipe_runtime(recipe.runtime):
        model = build_model(recipe, source)
        compile_model(model, recipe)
        policy = make_policy(recipe, source)
        layers = policy.layers if policy else []
        batch_size = recipe.data.batch_size
        return device_loop_class()(model, source, layers, batch_size, rate, seed=0), source


def weights(model):
    return [ops.convert_to_numpy(variable) for variable in model.variables]


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    loop, _ = make_loop(data, 1e-2, runtime={"seed": 8})
    path = tmp_path_factory.mktemp("teacher")
    loop.model.save_to_preset(str(path))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_steps_are_those_of_keras(data, teacher, optimizer):
    # The inverted bottlenecks have batch normalisation, whose statistics are state.
    sections = {
        "model": {"preset": "cct_4_3x2_ib_h16_c2"},
        # Adam divides by the gradient's size: without an epsilon well above the rounding of a
        # gradient, the sign of a tiny one decides.
        "optimizer": {
            "name": optimizer,
            "arguments": {"epsilon": 1e-3} if optimizer == "AdamW" else {},
        },
        "ema": {"enabled": True, "momentum": 0.5},
        "distillation": {"teacher": teacher} if optimizer == "SGD" else {},
    }
    rate = {"AdamW": 1e-2, "SGD": 0.3}[optimizer]
    loop, source = make_loop(data, rate, **sections)
    model = make_loop(data, rate, **sections)[0].model
    model.set_weights(loop.model.get_weights())
    model.optimizer.learning_rate = rate
    converter = model.preprocessor.image_converter
    images = ops.convert_to_numpy(converter(source.load(np.arange(WHOLE))))
    labels = np.eye(len(source.class_names), dtype="float32")[source.labels]
    before = weights(model)
    losses = []
    for step in range(3):
        found, _, bad = loop.run(step, 1, 0.0, 0.0)
        images_and_labels = (ops.convert_to_tensor(x) for x in (images, labels))
        losses.append((found, float(keras.Model.train_on_batch(model, *images_and_labels)[0])))
        assert bad is None
        model.reset_metrics()
    loop.sync()
    found, expected = np.transpose(losses)
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    after = weights(model)
    wrong = [np.abs(a - b) > 1e-3 for a, b in zip(weights(loop.model), after, strict=True)]
    assert np.mean(np.concatenate([x.ravel() for x in wrong])) < 1e-3
    changes = [np.abs(a - b).max() for a, b in zip(after, before, strict=True)]
    assert np.median(changes) > 1e-3


@pytest.mark.slow
def test_half_precision_computes_in_it_and_keeps_float32_weights(data):
    losses = {}
    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        loop, _ = make_loop(data, 1e-2, runtime={"precision": precision, "seed": 3})
        assert loop.model.compute_dtype == precision.removeprefix("mixed_")
        losses[precision] = [loop.run(step, 1, 0.0, 0.0)[0] for step in range(6)]
        loop.sync()
        assert {str(v.dtype) for v in loop.model.trainable_variables} == {"float32"}
    for precision in ("mixed_bfloat16", "mixed_float16"):
        assert losses[precision] != losses["float32"]
        np.testing.assert_allclose(losses[precision], losses["float32"], rtol=0.05)
    assert losses["float32"][-1] < losses["float32"][0]


def test_the_first_step_without_a_finite_loss_is_named(data):
    loop, _ = make_loop(data, 1e30, data={"batch_size": 16})
    loss, _, bad = loop.run(2, 4, 0.0, 0.0)
    assert not np.isfinite(loss) and 2 < bad < 6


def count_programs(monkeypatch):
    """Returns a list that gets an entry for each traced program."""
    traced = []
    if BACKEND == "jax":
        from lsmha_keras.training import jax_device_loop as module

        call = module._Step.__call__

        def counted(self, *arguments):
            traced.append(self)
            return call(self, *arguments)

        monkeypatch.setattr(module._Step, "__call__", counted)
    else:
        from lsmha_keras.training import torch_device_loop as module

        monkeypatch.setattr(module, "has_gpu", lambda: True)
        monkeypatch.setattr(module, "_compile_graph", lambda graph: traced.append(graph) or graph)
    return traced


def test_recipes_of_one_visit_share_data_and_program(data, tmp_path, monkeypatch):
    put = []
    loop_class = device_loop_class()
    put_array = loop_class._put
    monkeypatch.setattr(loop_class, "_put", lambda s, x: put.append(x.shape) or put_array(s, x))
    traced, visit = count_programs(monkeypatch), Visit()

    def run(name, visit, **sections):
        base = recipe_dict(data, data={"placement": "device"}, schedule={"epochs": 2})
        base["model"]["overrides"] |= WITHOUT_DROPOUT
        for key, values in sections.items():
            base[key] |= values
        return train({**base, "name": name}, tmp_path / name, verbose=0, visit=visit).history

    shared = [run(f"seed {seed}", visit, runtime={"seed": seed}) for seed in range(2)]
    assert len(traced) == 1 and put == [(WHOLE, 16, 16, 3), (WHOLE,)]
    alone = run("alone", None, runtime={"seed": 1})
    assert len(traced) == 2 and len(put) == 4
    assert shared[0] != shared[1]
    for row, expected in zip(shared[1], alone, strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)
    # Another batch needs another program, on the same data.
    run("batch", visit, data={"batch_size": 32})
    assert len(traced) == 3 and len(put) == 4


@pytest.mark.backend_free
def test_programs_are_shared_between_seeds_only(data):
    source = open_dataset(data)
    keys = {
        name: program_key(load_recipe(recipe_dict(data, **sections)), source)
        for name, sections in {
            "first": {},
            "seed": {"runtime": {"seed": 9}, "name": "other"},
            "rate": {"optimizer": {"learning_rate": 1e-3}},
            "layout": {"model": {"preset": "cct_2_3x2_h16"}},
            "policy": {"augmentation": {"mixup": 0.2}},
            "precision": {"runtime": {"precision": "mixed_bfloat16"}},
        }.items()
    }
    assert keys.pop("seed") == keys["first"]
    assert len(set(keys.values())) == len(keys)


@on_torch
@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_the_traced_program_is_keras_s(data, monkeypatch, backend):
    import torch

    from lsmha_keras.training import torch_device_loop as module

    sections = {"augmentation": {"pad_crop": 1, "mixup": 0.2}, "runtime": {"seed": 3}}
    sections["model"] = {"preset": "cct_4_3x2_ib_h16_c2"} if backend is None else {}
    plain, _ = make_loop(data, **sections)
    expected = [plain.run(step, 1, 0.0, 0.0)[:2] for step in range(3)]
    monkeypatch.setattr(module, "has_gpu", lambda: True)
    if backend is None:
        monkeypatch.setattr(module, "_compile_graph", lambda graph: graph)
    else:
        compile_ = torch.compile
        monkeypatch.setattr(torch, "compile", lambda g, **k: compile_(g, backend=backend, **k))
    loop, _ = make_loop(data, **sections)
    found = [loop.run(step, 1, 0.0, 0.0)[:2] for step in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert "scaled_dot_product" in loop.attention() and plain.attention() == "not traced"


@on_torch
def test_dropout_of_a_traced_program_differs_from_step_to_step(data, monkeypatch):
    from lsmha_keras.training import torch_device_loop as module

    monkeypatch.setattr(module, "has_gpu", lambda: True)
    monkeypatch.setattr(module, "_compile_graph", lambda graph: graph)
    for overrides in ({"stochastic_depth_rate": 0.5}, {"dropout_rate": 0.5}):
        loop, _ = make_loop(data, 1e-2, overrides)
        for epoch in range(12):  # of one step
            loop.run(epoch, 1, 0.0, 0.0)
        loop.schedule = 0.0  # nothing is learned any more
        losses = [loop.run(step, 1, 0.0, 0.0)[0] for step in (0, 1, 0)]
        assert losses[0] != pytest.approx(losses[1], rel=1e-4)
        assert losses[0] == pytest.approx(losses[2], rel=1e-5)  # a run can be taken up there


@on_torch
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_compiled_runs_all_the_same_and_says_so(data, monkeypatch):
    module = importlib.import_module("lsmha_keras.training.torch_device_loop")
    expected = make_loop(data)[0].run(0, 1, 0.0, 0.0)
    monkeypatch.setattr(module, "has_gpu", lambda: True)

    def refuse(graph):
        raise RuntimeError("no C compiler\nis here")

    monkeypatch.setattr(module, "_compile_graph", refuse)
    loop, _ = make_loop(data)
    with pytest.warns(UserWarning, match="not compiled.*RuntimeError: no C compiler$"):
        found = loop.run(0, 1, 0.0, 0.0)
    assert found == pytest.approx(expected)
    # Dropout of attention weights on a CPU draws from a seed that a graph would hold as a constant.
    loop, _ = make_loop(data, overrides={"attention_dropout": 0.5, "num_heads": 16})
    monkeypatch.setattr(module, "_compile_graph", lambda graph: graph)
    with pytest.warns(UserWarning, match="not compiled"):
        assert np.isfinite(loop.run(0, 1, 0.0, 0.0)[0])
