"""`lsmha prune`: what it writes and prints, and what it refuses before it writes anything."""

import csv
import pathlib

import keras
import numpy as np
import pytest

import lsmha_keras
from lsmha_keras import cli
from lsmha_keras.data.open_dataset import open_dataset
from lsmha_keras.heads.pruning import FineTuning, PruningReport, split_for_scores
from lsmha_keras.training.evaluate import evaluate

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
pytest.importorskip("matplotlib", reason='figures need pip install "lsmha-keras[plots]"')


def save(path, **changes):
    keras.utils.set_random_seed(0)
    arguments = {"hidden_dim": 16, "num_layers": 2, "num_heads": 4, "mlp_dim": 16, **changes}
    backbone = lsmha_keras.CCTBackbone((32, 32, 3), tokenizer_layers=3, **arguments)
    preprocessor = lsmha_keras.CCTImageClassifierPreprocessor(
        lsmha_keras.CCTImageConverter(image_size=(32, 32), scale=1 / 255)
    )
    lsmha_keras.CCTImageClassifier(backbone, 10, preprocessor).save_to_preset(path)
    return str(path)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A small model of digits, not trained: the command does not care."""
    return save(tmp_path_factory.mktemp("preset") / "tiny")


@pytest.fixture(scope="module")
def arguments(preset):
    splits = ["--split", "test[:60]", "--train-split", "train[:130]", "--images", "40"]
    return ["prune", preset, "--dataset", "digits", *splits, "--by", "mask_gradient"]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_curve(arguments, preset, tmp_path, capsys, monkeypatch):
    out = tmp_path / "curve"
    monkeypatch.setattr(PruningReport.measure_latency, "__defaults__", (2,))
    options = ["--fraction", "0.5", "--steps", "2", "--finetune", "1", "--curve"]
    assert cli.main([*arguments, *options, "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "step 2 of 2: 4 heads" in printed and printed.splitlines()[-1] == str(out / "preset")
    names = {path.name for path in out.iterdir()}
    assert names == {"preset", "curve.csv", "heads.csv", "curve.png", "curve.svg"}
    rows = read(out / "curve.csv")
    assert [(row["fraction"], row["heads"]) for row in rows] == [
        ("0.0", "8"),
        ("0.25", "6"),
        ("0.5", "4"),
    ]
    # Two heads less a step, of four kernels of 16 x 4.
    parameters = [int(row["parameters"]) for row in rows]
    assert np.diff(parameters).tolist() == [-2 * 4 * 64] * 2
    assert all(float(row["latency_ms"]) > 0 for row in rows)
    assert [row["tuned"] for row in rows] == ["False", "True", "True"]
    # What is saved is the last row's model, and has the heads that are listed.
    model = lsmha_keras.CCTImageClassifier.from_preset(out / "preset")
    figures = evaluate(model, open_dataset("digits", "test[:60]"))
    assert figures["accuracy"] == pytest.approx(float(rows[-1]["accuracy"]))
    heads = read(out / "heads.csv")
    found = [[int(row["block"]) for row in heads].count(block) for block in (0, 1)]
    assert [block.num_heads for block in model.backbone.blocks] == found
    assert [int(row["head"]) for row in heads] == [i for count in found for i in range(count)]


def test_the_ends_alone_without_fine_tuning(arguments, preset, tmp_path, capsys):
    out = tmp_path / "half"
    command = [*arguments, "--fraction", "0.5", "--output", str(out), "--quiet"]
    assert cli.main(command) == 0
    assert {path.name for path in out.iterdir()} == {"preset", "curve.csv", "heads.csv"}
    rows = read(out / "curve.csv")
    assert [row["heads"] for row in rows] == ["8", "4"] and not rows[1]["latency_ms"]
    # The heads that are left are those of the model before, unchanged.
    kept = {0: [], 1: []}
    for row in read(out / "heads.csv"):
        kept[int(row["block"])].append(int(row["head_before"]))
    model = lsmha_keras.CCTImageClassifier.from_preset(preset)
    expected = lsmha_keras.prune_heads(model, keep=kept)
    loaded = lsmha_keras.CCTImageClassifier.from_preset(out / "preset")
    for one, other in zip(loaded.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    capsys.readouterr()
    assert cli.main(command) == 2  # what is there is not written over
    assert "--overwrite" in capsys.readouterr().err


def test_an_interrupted_pruning_goes_on_to_the_same_end(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(PruningReport.measure_latency, "__defaults__", (2,))
    options = ["--fraction", "0.5", "--steps", "2", "--finetune", "1", "--curve", "--output"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert cli.main([*arguments, *options, str(whole)]) == 0
    tune = FineTuning.__call__

    def interrupted(self, model):
        if sum(block.num_heads for block in model.backbone.blocks) == 4:
            raise KeyboardInterrupt
        tune(self, model)

    monkeypatch.setattr(FineTuning, "__call__", interrupted)
    capsys.readouterr()
    assert cli.main([*arguments, *options, str(out)]) == 130
    assert "Give the same command again" in capsys.readouterr().err
    done = lsmha_keras.CCTImageClassifier.from_preset(out / "preset")
    assert sum(block.num_heads for block in done.backbone.blocks) == 6
    monkeypatch.setattr(FineTuning, "__call__", tune)
    # Not with other arguments, which would be the end of something else.
    assert cli.main([*arguments, *options, str(out), "--seed", "1"]) == 2
    assert "Received: seed=1, 0 before" in capsys.readouterr().err
    assert cli.main([*arguments, *options, str(out)]) == 0
    assert "going on after step 1 of 2" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    assert (out / "heads.csv").read_text() == (whole / "heads.csv").read_text()
    timed = ("latency_ms", "latency_ratio")
    for one, other in zip(read(out / "curve.csv"), read(whole / "curve.csv"), strict=True):
        assert all(float(row[name]) > 0 for row in (one, other) for name in timed)
        assert {**one, **dict.fromkeys(timed)} == {**other, **dict.fromkeys(timed)}
    found, expected = (
        lsmha_keras.CCTImageClassifier.from_preset(path / "preset") for path in (out, whole)
    )
    for one, other in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fraction", "0.9"], "at most 0.750 of the 8 heads"),
        (["--fraction", "0.5", "--by", "shp_cover"], "nearest: shp_coverage"),
        (["--fraction", "0.5", "--finetune", "1", "--learning-rate", "0"], "learning_rate=0"),
        (["--fraction", "0.5", "--finetune", "1", "--teach", "2"], "teach=2.0"),
        (["--fraction", "0.5", "--train-split", "training"], "split='training'"),
    ],
)
def test_mistakes_leave_nothing_behind(arguments, tmp_path, capsys, options, message):
    out = tmp_path / "out"
    assert cli.main([*arguments, *options, "--output", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("fraction", ["1", "-0.1", "half", "nan"])
def test_fractions_outside(arguments, tmp_path, capsys, fraction):
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--fraction", fraction, "--output", str(tmp_path / "out")])
    assert f"Received: {fraction}" in capsys.readouterr().err


def test_models_without_heads_to_spare(tmp_path, capsys):
    command = ["--dataset", "digits", "--split", "test[:60]", "--fraction", "0.5", "--output"]
    for name, message, changes in [
        ("conv", "no heads", {"num_conv_blocks": 2}),
        ("mixed", "cannot be removed from `TalkingHeads`", {"attention": "talking"}),
    ]:
        preset = save(tmp_path / name, **changes)
        assert cli.main(["prune", preset, *command, str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not pathlib.Path(tmp_path / "out").exists()


def test_fine_tuning_lowers_the_loss_and_takes_the_presets_augmentation(preset, tmp_path):
    source = open_dataset("digits", "train[:128]")
    model = lsmha_keras.CCTImageClassifier.from_preset(preset)
    tune = FineTuning(model, preset, source, epochs=4, learning_rate=2e-2, verbose=0)
    assert tune.policy is None  # no recipe is saved with it
    pruned = lsmha_keras.prune_heads(model, remove={0: [1]})
    tune.teach = 0
    tune(pruned)
    before, after = (evaluate(m, source)["loss"] for m in (model, pruned))
    assert after < before - 0.01
    shipped = "cct_2_3x2_h16_c1_digits"
    recipe = pathlib.Path(lsmha_keras.__file__).parent.parent / "zoo/recipes" / f"{shipped}.toml"
    copy = lsmha_keras.CCTImageClassifier.from_preset(preset)
    copy.save_to_preset(tmp_path / "with_recipe")
    (tmp_path / "with_recipe" / "recipe.toml").write_text(recipe.read_text())
    found = FineTuning(model, tmp_path / "with_recipe", source, epochs=1, verbose=0)
    assert found.policy is not None
    softmax = type(model).from_config({**model.get_config(), "activation": "softmax"})
    with pytest.raises(ValueError, match="must predict logits.*softmax"):
        FineTuning(softmax, preset, source, epochs=1)


def test_images_for_scores_and_for_readouts_differ():
    source = open_dataset("digits", "train[:100]")
    source.labels = np.arange(100)  # to tell images apart
    scored, others = split_for_scores(source, 10)
    assert len(scored) == 10 and len(others) == 40
    assert not set(scored.labels) & set(others.labels)
    scored, others = split_for_scores(source, 1000)
    assert len(scored) == 50 and len(others) == 50
