import numpy as np
import pytest

keras_tuner = pytest.importorskip("keras_tuner")

import lsmha_keras as lsmha  # noqa: E402

OVERRIDES = {"hidden_dim": 16, "mlp_dim": 16, "tokenizer_filters": 8}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (24, 8, 8, 3)).astype("uint8")
    return images, np.arange(24) % 3


class Eager(lsmha.CCTHyperModel):
    """Spares trials of one step their compilation; tests/models compiles and fits."""

    def build(self, hp):
        model = super().build(hp)
        model.jit_compile, model.run_eagerly = False, True
        return model


def hypermodel(space, kind=Eager, **arguments):
    return kind(space, num_classes=3, image_shape=(8, 8, 3), overrides=OVERRIDES, **arguments)


def run(tuner, data, **arguments):
    images, labels = data
    tuner.search(images, labels, validation_data=(images, labels), epochs=1, verbose=0, **arguments)
    return tuner


def test_built_as_the_values_say():
    space = {
        "num_heads": {"choices": [2, 8], "schedule": "free"},
        "num_layers": 3,
        "num_conv_blocks": 1,
        "inner_dim": 32,
        "attention": {
            "choices": ["multi_head", "grouped"],
            "options": {"grouped": {"num_kv_heads": 2}},
        },
        "learning_rate": [0.1, 0.2],
    }
    hp = keras_tuner.HyperParameters()
    hp.values.update({"num_heads_0": 2, "num_heads_1": 8, "attention": "grouped"})
    hp.values["learning_rate"] = 0.2
    model = hypermodel(space, lsmha.CCTHyperModel, weight_decay=0.3).build(hp)
    config = model.backbone.get_config()
    assert config["num_heads"] == [2, 8] and config["head_dim"] == [16, 4]
    assert (config["num_layers"], config["num_conv_blocks"]) == (3, 1)
    assert [block.attention.num_kv_heads for block in model.backbone.blocks[1:]] == [2, 2]
    assert float(model.optimizer.learning_rate) == pytest.approx(0.2)
    assert model.optimizer.weight_decay == 0.3


def test_grid_covers_the_space(data, tmp_path):
    tuner = keras_tuner.GridSearch(
        hypermodel({"num_heads": [2, 4], "num_conv_blocks": [0, 1]}),
        "val_accuracy",
        directory=tmp_path,
    )
    run(tuner, data)
    tried = {tuple(sorted(t.hyperparameters.values.items())) for t in tuner.oracle.trials.values()}
    assert tried == {
        (("num_conv_blocks", conv), ("num_heads", heads)) for conv in (0, 1) for heads in (2, 4)
    }
    assert all(trial.status == "COMPLETED" for trial in tuner.oracle.trials.values())


@pytest.mark.slow
@pytest.mark.backend_free
def test_hyperband_with_a_callback_and_the_best_model(data, tmp_path):
    tuner = keras_tuner.Hyperband(
        hypermodel({"num_heads": [2, 4], "learning_rate": {"min": 1e-3, "max": 1e-2}}),
        "val_accuracy",
        max_epochs=2,
        factor=2,
        directory=tmp_path,
    )
    shp = lsmha.SHPCallback(data, data, max_images=16, output_dir=tmp_path / "shp")
    run(tuner, data, callbacks=[shp])
    assert {path.name for path in (tmp_path / "shp").iterdir()} >= {
        "epoch_001_block_0.npz",
        "epoch_001_block_1.npz",
    }
    best = tuner.get_best_models()[0]
    expected = tuner.oracle.get_best_trials()[0].score
    images, labels = data
    accuracy = (best.predict(images, verbose=0).argmax(-1) == labels).mean()
    assert accuracy == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "space, message",
    [
        ({"num_heads": [2, 4], "augmentation_strength": [0.0, 1.0]}, "augmentation_strength"),
        ({"num_heads": [2, 3]}, "hidden_dim=16"),
        ({"num_heads": 2}, "more than one value"),
    ],
)
def test_bad_spaces(space, message):
    with pytest.raises(ValueError, match=message):
        hypermodel(space)
