"""The benchmark of whole models: both sides are the same model, and both are measured."""

import numpy as np
import pytest

from lsmha_keras.benchmark import cct
from lsmha_keras.benchmark.peers import make_vit_pytorch_cct
from lsmha_keras.models import CCTBackbone, CCTImageClassifier
from tests.checks import PATIENCE
from tests.reference import vit_pytorch_cct


@pytest.fixture(autouse=True)
def needs_the_peer():
    vit_pytorch_cct()


@pytest.mark.parametrize("phase", ["inference", "training"])
def test_one_consistent_row_for_each_library(phase):
    rows = cct.measure("cct_2_3x2", phase, batch=2, heads=4, runs=2, limit=PATIENCE)
    assert [row["library"] for row in rows] == ["ours", "vit_pytorch.cct"]
    for row in rows:
        assert tuple(row) == cct.FIGURES
        ratio = row["median_ms"] / rows[0]["median_ms"]
        assert row["ratio_to_ours"] == pytest.approx(ratio, rel=0.01, abs=0.006)
        assert (row["runs"], row["note"]) == (2, "")


@pytest.mark.parametrize("convs", [1, 2])
def test_peer_is_the_same_model(convs):
    sizes = {"hidden_dim": 32, "mlp_dim": 48, "num_layers": 3, "num_heads": 8}
    backbone = CCTBackbone((16, 16, 3), tokenizer_layers=convs, **sizes)
    peer = make_vit_pytorch_cct(backbone, 10)
    assert (
        sum(w.numel() for w in peer.parameters()) == CCTImageClassifier(backbone, 10).count_params()
    )
    assert [block.self_attn.heads for block in peer.classifier.blocks] == [8] * 3
    rates = [block.drop_path.drop_prob for block in peer.classifier.blocks]
    np.testing.assert_allclose(rates, [0, 0.05, 0.1], atol=1e-7)
    assert {block.self_attn.attn_drop.p for block in peer.classifier.blocks} == {0.1}


def test_a_training_step_computes_all_the_peers_gradients(monkeypatch):
    backbone = CCTBackbone((8, 8, 3), hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8)
    peer = make_vit_pytorch_cct(backbone, 100)
    monkeypatch.setattr(cct, "make_vit_pytorch_cct", lambda *arguments: peer)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    cct.make_peer_step(backbone.get_config(), "training", images, np.arange(2))()
    weights = dict(peer.named_parameters())
    # Softmax over tokens does not see a shift: this one's gradient is zero but for rounding.
    assert weights.pop("classifier.attention_pool.bias").grad is not None
    assert all(weight.grad.abs().sum() > 0 for weight in weights.values())


def test_peer_that_does_not_fit_is_named(monkeypatch):
    monkeypatch.setattr("lsmha_keras.benchmark.memory._free_gib", lambda: 0.001)
    ours, peer = cct.measure("cct_2_3x2", "training", batch=1, heads=2, runs=1, limit=PATIENCE)
    assert ours["runs"] == 1
    assert (peer["median_ms"], peer["runs"]) == ("", 0)
    assert peer["note"].startswith("not run: it needs about")
