"""Whole models: consistent rows, peers of the same size, and what is refused."""

import statistics
import sys
import types

import keras
import numpy as np
import pytest

import lsmha_keras
from lsmha_keras.benchmark import benchmark_model as module
from lsmha_keras.benchmark.benchmark_model import find_device, list_devices
from lsmha_keras.benchmark.candidates import make_candidates
from lsmha_keras.benchmark.peers import make_timm_model
from tests.checks import PATIENCE
from tests.reference import vit_pytorch_cct

SIZES = {"hidden_dim": 32, "mlp_dim": 48, "num_layers": 2, "num_heads": 4}


@pytest.fixture(scope="module")
def model():
    backbone = lsmha_keras.CCTBackbone((16, 16, 3), **SIZES)
    return lsmha_keras.CCTImageClassifier(backbone, 10, name="small")


def test_rows_are_consistent(model):
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)], name="small")
    rows = lsmha_keras.benchmark_model(
        model, [1, 3], 10, [other, "keras_hub.vit"], device="cpu", memory=False, limit=PATIENCE
    )
    names = ["small", "small (2)", "keras_hub.vit"]
    assert [(row.batch, row.model) for row in rows] == [(b, n) for b in (1, 3) for n in names]
    for i, row in enumerate(rows):
        assert row.images_per_s == pytest.approx(1000 * row.batch / row.p50_ms, rel=0.01)
        ratio = row.p50_ms / rows[i // 3 * 3].p50_ms
        assert row.ratio_to_first == pytest.approx(ratio, rel=0.01, abs=0.001)
        assert (row.runs, row.p99_ms, row.peak_mib, row.note) == (10, None, None, "")
    assert (rows[1].parameters, rows[1].multiply_adds) == (18, 15)


def test_models_of_one_name_are_told_apart():
    models = [
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(width)], name=name)
        for name, width in (("a", 1), ("a", 2), ("a", 3), ("a (2)", 4))
    ]
    candidates = make_candidates(models, "cpu:0")
    assert [c.name for c in candidates] == ["a", "a (2)", "a (3)", "a (2) (2)"]
    assert [c.model.output_shape[1] for c in candidates] == [1, 2, 3, 4]


def test_percentiles():
    seconds = np.random.default_rng(0).permutation(np.arange(1, 102) / 1000)  # 1 to 101 ms
    figures = module._summarise(list(seconds), 4, [0.0255])
    assert figures == {
        "p50_ms": 51.0,
        "p90_ms": 91.0,
        "p99_ms": 100.0,
        "fastest_ms": 1.0,
        "images_per_s": round(4 / statistics.median(seconds), 1),
        "ratio_to_first": 2.0,
    }
    assert "p99_ms" not in module._summarise(list(seconds)[:99], 4, [1])
    assert module._summarise([], 4, [1]) == {}


def test_compile_time_is_what_the_first_call_takes_more(monkeypatch):
    class Candidate:
        name, own_process = "it", False

        def count(self):
            return 1, None, "not counted"

    times = ({"it": 2.5}, {"it": [0.5, 0.25, 0.5]}, {})
    monkeypatch.setattr(module, "_time", lambda *arguments: times)
    [row] = module._measure([Candidate()], 1, "gpu:0", None, True, 60)
    assert row.compile_s == 2.0
    assert (row.parameters, row.multiply_adds, row.peak_mib) == (1, None, None)
    assert row.note == "not counted; memory is measured on CPUs only"


def test_keras_hubs_vit_is_of_like_size(model):
    ours, peer = make_candidates([model, "keras_hub.vit"], "cpu:0")
    vit = peer.model.backbone
    assert vit.output_shape == model.backbone.output_shape
    assert {name: getattr(vit, name) for name in SIZES} == SIZES
    assert peer.model.count_params() == pytest.approx(model.count_params(), rel=0.1)


def test_vit_pytorchs_cct_has_our_numbers(model):
    vit_pytorch_cct()
    ours, peer = make_candidates([model, "vit_pytorch.cct"], "cpu:0")
    # PyTorch counts its own operations.
    assert peer.count() == ours.count()
    assert peer.own_process


@pytest.mark.slow
def test_a_peer_in_its_own_process_and_memory(model):
    vit_pytorch_cct()
    rows = lsmha_keras.benchmark_model(
        model, [4], 2, "vit_pytorch.cct", memory=True, limit=PATIENCE
    )
    assert [row.runs for row in rows] == [2, 2]
    assert rows[1].compile_s is None
    if sys.platform == "linux" and list_devices()[0] == "cpu:0":
        # 4 images of 64 tokens: 4 heads' scores and more than 16 tensors of width 32.
        assert all(0.2 < row.peak_mib < 500 for row in rows)


def test_folded_blocks_are_named():
    backbone = lsmha_keras.CCTBackbone((8, 8, 3), num_conv_blocks=1, **SIZES)
    model = lsmha_keras.CCTImageClassifier(backbone, 10, name="hybrid")
    plain, fused = make_candidates([model], "cpu:0") + make_candidates([model], "cpu:0", fuse=True)
    assert (plain.name, fused.name) == ("hybrid", "hybrid (fused)")
    # Of both convolutions gain, offset, mean and variance of 32 channels become a bias.
    assert plain.count()[0] - fused.count()[0] == 2 * 3 * 32
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    copied = fused.copy().model
    np.testing.assert_allclose(
        *(keras.ops.convert_to_numpy(m(x)) for m in (model, copied)), atol=1e-5
    )
    with pytest.raises(ValueError, match=r"no conv blocks.*num_conv_blocks=1"):
        make_candidates([model, "vit_pytorch.cct"], "cpu:0")


def test_devices():
    assert find_device("cpu") == "cpu:0"
    assert find_device() == list_devices()[0]
    with pytest.raises(ValueError, match=r"backend has: .*cpu:0\. Received: device='gpu:99'"):
        lsmha_keras.benchmark_model("cct_2_3x2", device="gpu:99")


def test_refused_peers(model):
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)], name="other")
    with pytest.raises(ValueError, match="sizes of the first model"):
        make_candidates([other, "keras_hub.vit"], "cpu:0")
    with pytest.raises(ValueError, match="cct_2_3x2"):
        make_candidates(["cct_2_3x3_cifar"], "cpu:0")


def test_timm_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"timm:resnet18 needs timm: pip install timm\."):
        make_timm_model("resnet18", (32, 32, 3), 10)


def test_timm_gets_the_image_size_if_it_takes_one(monkeypatch):
    made = []

    def create_model(name, **options):
        made.append(options)
        if name == "resnet18" and "img_size" in options:
            raise TypeError("unexpected keyword argument 'img_size'")
        return name

    timm = types.SimpleNamespace(
        create_model=create_model,
        is_model=lambda name: name in ("vit", "resnet18"),
        list_models=lambda pattern: ["resnet18"],
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    size = {"num_classes": 10, "in_chans": 3}
    assert make_timm_model("vit", (16, 32, 3), 10) == "vit"
    assert make_timm_model("resnet18", (16, 32, 3), 10) == "resnet18"
    assert made == [{"img_size": (16, 32), **size}] * 2 + [size]
    with pytest.raises(ValueError, match="Received: timm:resnet; near: resnet18"):
        make_timm_model("resnet", (32, 32, 3), 10)
