"""Training with the images on the device (a CPU here), and with a time limit."""

import os
import signal
import time
import types

import keras
import numpy as np
import pytest

from lsmha_keras.data.open_dataset import open_dataset
from lsmha_keras.training.checkpoint import load_state
from lsmha_keras.training.device_loop import device_loop_class
from lsmha_keras.training.devices import is_on_device
from lsmha_keras.training.evaluate import evaluate
from lsmha_keras.training.recipe import load_recipe
from lsmha_keras.training.train import train
from tests.training.tiny import read_history, recipe_dict, write_dataset

on_device = pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="tensorflow has no device loop"
)
on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="about jax's programs")

SECTIONS = {
    "data": {"placement": "device", "validation_split": "test[:20]", "test_split": "test"},
    "ema": {"enabled": True, "momentum": 0.7},
}


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("device") / "run"
    return train(recipe_dict(data, **SECTIONS), run, verbose=0)


@on_device
def test_it_learns_and_writes_the_preset(whole, data):
    assert whole.results["accuracy"] > 0.4  # a quarter by chance
    assert [row["epoch"] for row in whole.history] == [1, 2, 3, 4]
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]
    figures = evaluate(whole.preset_dir, data)
    assert figures == pytest.approx({key: whole.results[key] for key in figures}, rel=1e-4)
    assert read_history(whole.output_dir) == whole.history
    # The cosine ends at zero, and the averaged weights are those that were validated.
    assert whole.history[-1]["learning_rate"] == pytest.approx(0, abs=1e-6)
    with np.load(data) as arrays:
        figures = evaluate(whole.model, (arrays["x_test"][:20], arrays["y_test"][:20]))
    assert whole.history[-1]["val_loss"] == pytest.approx(figures["loss"], rel=1e-4)


@on_device
def test_after_a_signal_it_goes_on_at_the_step(whole, data, tmp_path, monkeypatch):
    run_steps, moment = device_loop_class().run, 8
    for name in ("_TIMED_SECONDS", "_CALL_SECONDS"):  # one step a call
        monkeypatch.setattr(f"lsmha_keras.training.fit_on_device.{name}", 0)

    def interrupted(self, step, count, *schedule):
        if step == moment and callable(signal.getsignal(signal.SIGTERM)):  # else it would kill us
            os.kill(os.getpid(), signal.SIGTERM)
        return run_steps(self, step, count, *schedule)

    recipe, run = recipe_dict(data, **SECTIONS), tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(device_loop_class(), "run", interrupted)
    with pytest.raises(KeyboardInterrupt) as error:
        train(recipe, run, verbose=0)
    assert error.value.args == (signal.SIGTERM,) and signal.getsignal(signal.SIGTERM) is before
    # The step that ran when the signal came is the last one.
    assert load_state(run / "checkpoints" / "last.npz")[0]["step"] == moment + 1
    monkeypatch.setattr(device_loop_class(), "run", run_steps)
    again = train(recipe, run, verbose=0)
    for row, other in zip(again.history, whole.history, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert again.results["loss"] == pytest.approx(whole.results["loss"], rel=1e-4)


class Clock:
    """A clock that advances with each step, so that plans do not depend on the machine."""

    def __init__(self, monkeypatch, compiling, step):
        self.now, self.steps = 1000.0, 0
        run_steps = device_loop_class().run

        def run(loop, first, count, *schedule):
            self.now += compiling * (self.steps == 0) + step * count
            self.steps += count
            return run_steps(loop, first, count, *schedule)

        monkeypatch.setattr(device_loop_class(), "run", run)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@on_device
def test_a_limit_shortens_the_schedule(data, tmp_path, monkeypatch):
    clock = Clock(monkeypatch, compiling=20, step=1.0)
    recipe = recipe_dict(
        data,
        schedule={"epochs": 300, "warmup_epochs": 30},
        **{key: SECTIONS[key] for key in ("ema",)},
    )
    result = train(recipe, tmp_path / "run", verbose=0, minutes=2)
    # 120 s less 21 for the first step; at the end 21 (compiling), 40 / 16 (40 test images in
    # batches of 16), 2 (saving) and 5 are kept: 68 steps, with the 1 before 69, in epochs of 6.
    assert len(result.history) == 11 and clock.steps == 66
    assert clock.now - 1000 <= 120 - (21 + 2.5 + 2 + 5)
    rates = [row["learning_rate"] for row in result.history]
    assert max(rates) == pytest.approx(2e-2, rel=0.05) and rates.index(max(rates)) <= 1
    assert rates[-1] == pytest.approx(0, abs=1e-6) and rates[1:] == sorted(rates[1:])[::-1]
    assert result.results["epochs"] == 11


@on_device
def test_a_plan_is_made_again_half_way(data, tmp_path, monkeypatch):
    clock = Clock(monkeypatch, compiling=0, step=1.0)
    recipe = recipe_dict(data, schedule={"epochs": 300})
    run_steps = device_loop_class().run

    def slower(loop, first, count, *schedule):
        clock.now += 0.5 * count * (first > 20)
        return run_steps(loop, first, count, *schedule)

    monkeypatch.setattr(device_loop_class(), "run", slower)
    result = train(recipe, tmp_path / "run", verbose=0, minutes=2)
    assert clock.now - 1000 <= 120 and result.results is not None
    assert result.history[-1]["learning_rate"] == pytest.approx(0, abs=1e-6)
    assert 12 <= len(result.history) <= 14  # 18 were planned


@on_device
def test_with_the_epochs_kept_it_stops_and_goes_on(whole, data, tmp_path, monkeypatch):
    Clock(monkeypatch, compiling=0, step=1.0)
    recipe, run = recipe_dict(data, **SECTIONS), tmp_path / "run"
    result = train(recipe, run, verbose=0, minutes=0.4, shorten=False)
    assert result.results is None and not (run / "preset").exists()
    assert "the time is over" in str(result)
    assert 0 < load_state(run / "checkpoints" / "last.npz")[0]["step"] < 24
    for _ in range(4):
        result = train(recipe, run, verbose=0, minutes=0.4, shorten=False)
        if result.results:
            break
    for row, other in zip(result.history, whole.history, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-6)


@on_device
def test_a_limit_that_is_too_short_is_refused_and_loses_nothing(data, tmp_path, monkeypatch):
    Clock(monkeypatch, compiling=30, step=1.0)
    run = tmp_path / "run"
    with pytest.raises(ValueError, match="too short for one epoch.*Received: a limit with"):
        train(recipe_dict(data, **SECTIONS), run, verbose=0, minutes=1)
    assert load_state(run / "checkpoints" / "last.npz")[0]["step"] > 0


@on_device
def test_a_run_from_the_host_is_refused(data, tmp_path):
    train(
        recipe_dict(data, schedule={"epochs": 1, "warmup_epochs": 0}), tmp_path / "run", verbose=0
    )
    (tmp_path / "run" / "preset").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="begun with its images on the host"):
        recipe = recipe_dict(data, schedule={"epochs": 1, "warmup_epochs": 0})
        train(recipe, tmp_path / "run", verbose=0, minutes=5)


@on_device
@pytest.mark.parametrize(
    ("sections", "arguments", "message"),
    [
        ({"data": {"placement": "host"}}, {"minutes": 1}, 'placement="host" with a limit'),
        ({"model": {"image_shape": [24, 24, 3]}}, {"minutes": 1}, "24x24 .* 16x16"),
        ({}, {"minutes": 0}, "minutes=0"),
        ({}, {"minutes": 1, "callbacks": [keras.callbacks.Callback()]}, "callbacks"),
        ({"data": {"placement": "divice"}}, {}, "nearest: device"),
    ],
)
def test_what_cannot_be_is_refused(data, tmp_path, sections, arguments, message):
    with pytest.raises(ValueError, match=message):
        train(recipe_dict(data, **sections), tmp_path / "run", verbose=0, **arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="has the device loop")
def test_another_backend_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="takes the jax or torch backend"):
        train(recipe_dict(data), tmp_path / "run", verbose=0, minutes=1)


def mock_gpu(monkeypatch, name, capability, memory):
    """Makes the backend report a GPU, although it cannot compute on one."""
    if keras.backend.backend() == "jax":
        import jax

        device = types.SimpleNamespace(
            device_kind=name,
            compute_capability=f"{capability[0]}.{capability[1]}",
            memory_stats=lambda: {"bytes_limit": memory},
        )
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(jax, "devices", lambda: [device])
    else:
        import torch

        for key, value in {
            "is_available": True,
            "get_device_name": name,
            "get_device_capability": capability,
            "mem_get_info": (memory // 2, memory),
        }.items():
            monkeypatch.setattr(torch.cuda, key, lambda value=value: value)


@on_device
@pytest.mark.parametrize("placement", ["auto", "device"])
def test_a_gpu_without_bfloat16_is_named(data, tmp_path, monkeypatch, placement):
    mock_gpu(monkeypatch, "Tesla V100", (7, 0), 2**34)
    recipe = recipe_dict(
        data, data={"placement": placement}, runtime={"precision": "mixed_bfloat16"}
    )
    with pytest.raises(ValueError) as error:
        train(recipe, tmp_path / "run", verbose=0)
    assert str(error.value) == (
        "Tesla V100 has no bfloat16; set runtime.precision to mixed_float16. "
        "Received: runtime.precision='mixed_bfloat16'"
    )
    assert not (tmp_path / "run").exists()
    source = open_dataset(data)
    recipe["runtime"]["precision"] = "mixed_float16"
    assert is_on_device(load_recipe(recipe), source, None)
    mock_gpu(monkeypatch, "A100", (8, 0), 2**34)
    recipe["runtime"]["precision"] = "mixed_bfloat16"
    assert is_on_device(load_recipe(recipe), source, None)


@on_device
def test_images_that_do_not_fit_say_their_size_and_stay_on_the_host(data, tmp_path, monkeypatch):
    # 96 images of 768 bytes; three tenths of the memory are for images.
    mock_gpu(monkeypatch, "small", (8, 0), 2**17)
    with pytest.raises(ValueError, match="they take 0.07 MiB, and there is room for 0.04 MiB"):
        train(recipe_dict(data, data={"placement": "device"}), tmp_path / "run", verbose=0)
    recipe, source, said = load_recipe(recipe_dict(data)), open_dataset(data), []
    assert not is_on_device(recipe, source, None, log=said.append)
    assert said == [
        "The images stay on the host: they take 0.07 MiB, and there is room for 0.04 MiB."
    ]
    mock_gpu(monkeypatch, "larger", (8, 0), 2**18)
    assert is_on_device(recipe, source, None, log=said.append) and len(said) == 1


@on_device
@pytest.mark.slow
def test_losses_are_those_of_the_ordinary_path_within_the_spread_of_seeds(tmp_path):
    data = write_dataset(tmp_path / "tiny.npz", train=192)
    losses = {}
    for placement in ("host", "device"):
        for seed in range(3):
            recipe = recipe_dict(data, data={"placement": placement}, runtime={"seed": seed})
            run = tmp_path / f"{placement}{seed}"
            history = train(recipe, run, verbose=0).history
            losses.setdefault(placement, []).append([row["loss"] for row in history])
    host, device = (np.array(losses[key]) for key in ("host", "device"))  # (seeds, epochs)
    error = np.sqrt((host.var(axis=0, ddof=1) + device.var(axis=0, ddof=1)) / 3)
    # Four standard errors of the difference: one run in a few hundred falls outside by chance.
    assert (np.abs(host.mean(axis=0) - device.mean(axis=0)) < 4 * error + 0.01).all()
    assert (device[:, -1] < device[:, 0] / 2).all()


@on_jax
@pytest.mark.slow
def test_the_step_of_cct_7_with_32_heads_asks_cudnn_for_attention(monkeypatch, tmp_path):
    """The program of several steps, lowered for CUDA on a machine without a GPU."""
    import jax
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    from lsmha_keras.training.build_model import build_model, compile_model, make_policy
    from lsmha_keras.training.devices import recipe_runtime

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.integers(0, 256, (8, 32, 32, 3), "uint8"), y=np.arange(8))
    recipe = load_recipe("cct_7_3x1_h32_cifar100_gpu")
    source = open_dataset(tmp_path / "x.npz")
    with recipe_runtime(recipe.runtime):
        model = build_model(recipe, source)
        compile_model(model, recipe)
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91500)
        monkeypatch.setattr(cudnn, "check_compute_capability", lambda version: version == "8.0")
        monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda version: False)
        loop = device_loop_class()(
            model, source, make_policy(recipe, source).layers, 4, 1e-3, seed=0
        )
        text = loop.program("cuda")
    # Once in each of the seven blocks, and no other score is written out.
    assert text.count("custom_call @__cudnn$fmhaSoftmax(") == 7
    assert text.count("custom_call @__cudnn$fmhaSoftmaxBackward(") == 7
    assert "x32x256x256x" not in text
