"""`lsmha shp`: what it writes, that it goes on where it was stopped, and what it refuses."""

import csv
import json
import shutil

import numpy as np
import pytest

import lsmha_keras
from lsmha_keras import cli
from lsmha_keras.shp import analysis
from lsmha_keras.shp.cache import AnalysisCache
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readouts import BlockReadouts
from lsmha_keras.shp.report import write as report
from lsmha_keras.shp.shp_result import SHPResult

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
pytest.importorskip("matplotlib", reason='figures need pip install "lsmha-keras[plots]"')

STAGES = {
    "trained_readouts",
    "trained_recomputed_results",
    "trained_frozen_results",
    "untrained_readouts",
    "untrained_recomputed_results",
    "permuted_recomputed_results",
    "classical_scores",
    "accuracy_arrays",
    "exemplars_recomputed_arrays",
    "seed_1_readouts",
    "trained_seed_1_recomputed_results",
}


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A small model of digits, not trained: the command does not care."""
    backbone = lsmha_keras.CCTBackbone(
        (32, 32, 3), hidden_dim=16, num_layers=2, num_heads=4, mlp_dim=16, tokenizer_layers=2
    )
    preprocessor = lsmha_keras.CCTImageClassifierPreprocessor(
        lsmha_keras.CCTImageConverter(image_size=(32, 32), scale=1 / 255)
    )
    model = lsmha_keras.CCTImageClassifier(backbone, 10, preprocessor)
    path = tmp_path_factory.mktemp("preset") / "tiny"
    model.save_to_preset(path)
    return str(path)


@pytest.fixture(scope="module")
def arguments(preset):
    splits = ["--split", "test[:100]", "--train-split", "train[:200]"]
    options = [*splits, "--readout-epochs", "2", "--batch-size", "64"]
    return ["shp", preset, "--dataset", "digits", *options]


@pytest.fixture(scope="module")
def done(arguments, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "shp"
    more = ["--pooling", "both", "--readout-seeds", "2"]
    assert cli.main([*arguments, "--output", str(out), *more]) == 0
    return out


@pytest.fixture
def no_figures(monkeypatch):
    """Leaves out what takes longest and is not looked at."""
    monkeypatch.setattr(report, "_draw", lambda *args: None)


def test_report_is_complete(done):
    names = {path.name for path in done.iterdir()}
    assert {"index.html", "shp.npz", "statistics.json", "readouts.npz", "along_blocks.png"} <= names
    rows = _read(done / "blocks.csv")
    variants = ["trained", "Gaussian null", "untrained trunk", "permuted labels", "frozen pooling"]
    assert [row["variant"] for row in rows] == [name for name in variants for _ in range(2)]
    assert {path.name for path in (done / "stages").iterdir()} == {*STAGES, "settings.json"}
    assert "accuracy_drop" in _read(done / "statistics.csv")[0]


def test_report_is_what_the_functions_return(done, preset):
    model = lsmha_keras.CCTImageClassifier.from_preset(preset)
    readouts = BlockReadouts.load(done / "readouts.npz")
    digits = lsmha_keras.open_dataset("digits", "test[:100]")
    results = single_head_performance(model, readouts, digits, verbose=0)
    with np.load(done / "shp.npz") as arrays:
        for block, result in results.items():
            means = arrays[f"trained/block_{block}"]
            np.testing.assert_allclose(means, result.class_means, atol=1e-5)


def test_given_again_nothing_is_measured_again(done, arguments, monkeypatch, capsys, no_figures):
    def refuse(*args, **kwargs):
        raise AssertionError("measured again")

    measuring = ("fit_readout", "single_head_performance", "permuted_labels", "head_scores")
    for name in (*measuring, "evaluate", "find_exemplars"):
        monkeypatch.setattr(analysis, name, refuse)
    again = [*arguments, "--output", str(done), "--pooling", "both", "--threshold", "0.5"]
    assert cli.main(again) == 0
    rows = _read(done / "blocks.csv")
    assert {row["threshold"] for row in rows} == {"0.5"}
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("block 1, trained"))
    assert f"{float(rows[1]['noise_per_head']):.1f}" in row.split()


def test_the_model_itself_other_seeds_and_images(done, preset):
    digits = lsmha_keras.open_dataset("digits", "test[:100]")
    own = lsmha_keras.evaluate(preset, digits)["accuracy"]
    assert json.loads((done / "statistics.json").read_text())["accuracy"] == pytest.approx(own)
    first, second = (
        BlockReadouts.load(done / "stages" / f"{name}_readouts" / "readouts.npz")
        for name in ("trained", "seed_1")
    )
    assert first.digest() != second.digest() and first.epochs == second.epochs
    rows = _read(done / "readout_seeds.csv")
    assert [row["variant"] for row in rows] == ["seed 0"] * 2 + ["seed 1"] * 2
    page = (done / "index.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" in page


def test_a_page_without_images_and_beside_another_model(done, arguments, tmp_path, no_figures):
    given = ["--readout", str(done / "readouts.npz"), "--no-controls", "--no-head-scores"]
    out = tmp_path / "out"
    more = ["--no-images", "--beside", str(done)]
    assert cli.main([*arguments, *given, *more, "--output", str(out)]) == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" not in page
    title = json.loads((done / "statistics.json").read_text())["title"]
    assert page.count(json.dumps(title)) == 2  # its own, as it is the same model, and the other's


def test_goes_on_after_a_kill(arguments, tmp_path, monkeypatch, no_figures):
    short = [*arguments, "--output", str(tmp_path), "--no-head-scores", "--blocks", "1"]

    def kill(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(analysis, "permuted_labels", kill)
        assert cli.main(short) == 130
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "stages").rglob("*.npz")}
    assert len(kept) == 4  # readouts and a block, of the trained and the untrained model
    assert cli.main(short) == 0
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert (tmp_path / "index.html").exists()


def test_readouts_are_taken_from_a_file(done, arguments, tmp_path, capsys, no_figures):
    given = ["--readout", str(done / "readouts.npz"), "--blocks", "1", "--no-controls"]
    out = tmp_path / "out"
    assert cli.main([*arguments, *given, "--no-head-scores", "--output", str(out)]) == 0
    assert "fitting readouts" not in capsys.readouterr().out
    with np.load(out / "shp.npz") as ours, np.load(done / "shp.npz") as theirs:
        assert [name for name in ours if "block" in name] == ["trained/block_1"]
        np.testing.assert_allclose(ours["trained/block_1"], theirs["trained/block_1"], atol=1e-5)


def test_other_readouts_at_the_same_path_are_another_analysis(
    done, arguments, tmp_path, capsys, no_figures
):
    readouts, path = BlockReadouts.load(done / "readouts.npz"), tmp_path / "readouts.npz"
    readouts.save(path)
    given = [*arguments, "--readout", str(path), "--no-controls", "--no-head-scores"]
    assert cli.main([*given, "--output", str(tmp_path / "out")]) == 0
    (tmp_path / "moved").mkdir()
    path.rename(tmp_path / "moved" / "readouts.npz")
    given[given.index(str(path))] = str(tmp_path / "moved" / "readouts.npz")
    assert cli.main([*given, "--output", str(tmp_path / "out")]) == 0  # the same, elsewhere
    weights = {block: [2 * array for array in row] for block, row in readouts.weights.items()}
    BlockReadouts(weights, epochs=2).save(tmp_path / "moved" / "readouts.npz")
    capsys.readouterr()
    assert cli.main([*given, "--output", str(tmp_path / "out")]) == 2
    assert "another analysis: readouts is" in capsys.readouterr().err


def test_other_images_of_the_same_name_are_another_analysis(done, preset, tmp_path):
    digits = [lsmha_keras.open_dataset("digits", split) for split in ("train[:200]", "test[:100]")]
    about = {"dataset": "digits", "split": "test[:100]", "train_split": "train[:200]"}
    (tmp_path / "settings.json").write_text((done / "stages" / "settings.json").read_text())
    (tmp_path / "trained_readouts").mkdir()
    BlockReadouts.load(done / "readouts.npz").save(tmp_path / "trained_readouts" / "readouts.npz")
    model = lsmha_keras.CCTImageClassifier.from_preset(preset)
    options = {"folder": tmp_path, "settings": about, "readout_epochs": 2}
    analysis.Analysis(model, *digits, **options)
    with pytest.raises(ValueError, match="another analysis: test_images is"):
        analysis.Analysis(model, digits[0], digits[1].select(np.arange(100)[::-1]), **options)


def test_the_control_is_fitted_as_long_as_the_readouts(
    done, arguments, preset, tmp_path, monkeypatch, capsys
):
    def refuse(*args, epochs, **kwargs):
        asked.append(epochs)
        raise KeyboardInterrupt

    asked = []
    monkeypatch.setattr(analysis, "fit_readout", refuse)
    plain = [x for x in arguments if x not in ("--readout-epochs", "2")]
    given = ["--readout", str(done / "readouts.npz")]
    assert cli.main([*plain, *given, "--output", str(tmp_path / "a")]) == 130
    assert asked == [2]
    assert cli.main([*plain, *given, "--readout-epochs", "3", "--output", str(tmp_path / "b")]) == 2
    assert "fitted for 2 epochs" in capsys.readouterr().err
    # Those saved with a preset are taken if they were fitted as long as asked.
    copy = shutil.copytree(preset, tmp_path / "preset")
    BlockReadouts.load(done / "readouts.npz").save(copy)
    plain[plain.index(preset)] = str(copy)
    for epochs, expected in (([], [2]), (["--readout-epochs", "3"], [3])):
        asked.clear()
        out = tmp_path / f"out{len(epochs)}"
        assert cli.main([*plain, *epochs, "--output", str(out)]) == 130
        assert asked == expected
        assert (out / "stages" / "trained_readouts").exists() == (not epochs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--split", "test[:50]"], "split is 'test[:100]' there and 'test[:50]' here"),
        (["--readout-epochs", "3"], "--fresh"),
        (["--dataset", "digitz"], "digits"),
        (["--readout", "missing.npz", "--fresh"], "missing.npz"),
        (["--beside", "nowhere"], "no report: `lsmha shp` writes"),
    ],
)
def test_mistakes_are_named(changes, message, done, arguments, tmp_path, capsys):
    out = tmp_path / "copy"
    (out / "stages").mkdir(parents=True)
    settings = (done / "stages" / "settings.json").read_text()
    (out / "stages" / "settings.json").write_text(settings)
    assert cli.main([*arguments, "--output", str(out), *changes]) == 2
    assert message in capsys.readouterr().err


def test_block_without_readout_is_named(done, arguments, tmp_path, capsys):
    given = ["--readout", str(done / "readouts.npz"), "--blocks", "5"]
    assert cli.main([*arguments, *given, "--output", str(tmp_path)]) == 2
    assert "readouts only for the blocks [0, 1]. Received: blocks=[5]" in capsys.readouterr().err


@pytest.mark.parametrize("threshold", ["0", "1", "high", "nan"])
def test_threshold_is_a_share(threshold, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["shp", "x", "--dataset", "digits", "--output", "y", "--threshold", threshold])
    assert exit.value.code == 2
    assert f"between 0 and 1. Received: {threshold}" in capsys.readouterr().err


def test_stages_are_whole_or_absent(tmp_path):
    cache = AnalysisCache(tmp_path, {"a": 1})
    result = SHPResult(3, np.eye(4)[None], np.ones(4), label_names=list("abcd"))

    def break_off():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.results("x", break_off)
    assert list(cache.results("x", lambda: {3: result})) == [3]
    loaded = AnalysisCache(tmp_path, {"a": 1}).results("x", break_off)[3]
    np.testing.assert_array_equal(loaded.class_means, result.class_means)
    scores = {3: {"s": np.arange(2.0)}}
    assert cache.scores("y", lambda: scores)[3]["s"].tolist() == [0, 1]
    assert json.loads((tmp_path / "settings.json").read_text()) == {"a": 1}
    with pytest.raises(ValueError, match="a is 1 there and 2 here"):
        AnalysisCache(tmp_path, {"a": 2})
    with pytest.raises(KeyboardInterrupt):
        AnalysisCache(tmp_path, {"a": 2}, fresh=True).results("x", break_off)


def _read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
