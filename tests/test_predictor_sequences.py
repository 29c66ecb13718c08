"""`Predictor`, `lsmha predict` and `lsmha evaluate` with models of texts and series."""

import json
import subprocess
import sys

import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras import cli
from lsmha_keras.exporting.onnx_format import write_preset_onnx
from tests.checks import random_tokens

SMALL = {"hidden_dim": 8, "num_layers": 1, "num_heads": 2, "mlp_dim": 8}
TEXTS = ["What is a cat ?", "Who is Ada Lovelace ?", "How far is it ?", "a cat is far"]
NAMES = ["ENTY", "HUM", "NUM"]
RUNTIMES = ["onnxruntime", "openvino", "keras"]


@pytest.fixture
def runtime(request):
    if request.param != "keras":
        pytest.importorskip(request.param, reason="a runtime that not every installation has")
    return request.param


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A preset of texts with its model.onnx: path, model."""
    pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
    path = tmp_path_factory.mktemp("texts") / "preset"
    model = lsmha.CCTTextClassifier.from_texts(
        TEXTS, 3, 9, class_names=NAMES, embedding_dim=6, head={"pooling": "lama"}, **SMALL
    )
    for variable in model.trainable_variables:
        variable.assign(variable + np.random.default_rng(0).normal(0, 0.2, variable.shape))
    model.save_to_preset(path)
    write_preset_onnx(path)
    return path, model


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A preset of series of up to 6 steps, with its model.onnx."""
    pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
    path = tmp_path_factory.mktemp("series") / "preset"
    backbone = lsmha.CCTSequenceBackbone(6, num_features=3, mask_value=-9.0, **SMALL)
    model = lsmha.CCTSequenceClassifier(backbone, 2)
    model.save_to_preset(path)
    write_preset_onnx(path)
    return path, model


@pytest.mark.parametrize("runtime", RUNTIMES, indirect=True)
def test_texts_give_what_predict_gives(runtime, texts):
    path, model = texts
    classify = lsmha.Predictor(path, runtime=runtime, num_threads=1)
    assert (classify.kind, classify.image_shape) == ("texts", (9,))
    expected = model.predict(TEXTS, verbose=0)
    ids = np.asarray(model.preprocessor(TEXTS))
    for given in (TEXTS, tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object), ids, list(ids)):
        np.testing.assert_allclose(classify.logits(given), expected, atol=1e-4, rtol=0)
    many = classify.logits(TEXTS * 10)  # more than a run takes
    np.testing.assert_allclose(many, np.tile(expected, (10, 1)), atol=1e-4, rtol=0)
    best = NAMES[expected[2].argmax()]
    ((label, probability), *others) = classify(TEXTS[2])
    assert label == best and len(others) == 2
    assert classify([TEXTS[2]], top=1) == [[(label, pytest.approx(probability, abs=1e-5))]]
    np.testing.assert_allclose(classify.logits(ids[2]), expected[2:3], atol=1e-4, rtol=0)
    assert classify([]) == []


@pytest.mark.parametrize("runtime", RUNTIMES, indirect=True)
def test_series_give_what_predict_gives(runtime, series):
    path, model = series
    classify = lsmha.Predictor(path, runtime=runtime, num_threads=1)
    values = random_tokens(3, 6, 3)
    values[:, 4:] = -9
    expected = model.predict(values, verbose=0)
    assert classify.kind == "series"
    for given in (values, list(values), values.astype("float64")):
        np.testing.assert_allclose(classify.logits(given), expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(classify.logits(values[0]), expected[:1], atol=1e-4, rtol=0)


BAD = {
    "empty text": ("texts", lambda p: p(["fine", " "]), "text 1, ' '"),
    "number": ("texts", lambda p: p([3.5]), "Ids must be ints"),
    "unknown id": ("texts", lambda p: p(np.full((1, 9), 99)), "from 99 to 99"),
    "other length": ("texts", lambda p: p(np.ones((2, 5), "int32")), r"shape \(2, 5\)"),
    "width": ("series", lambda p: p(np.ones((2, 6, 4))), r"\(batch, 6, 3\).*\(2, 6, 4\)"),
    "length": ("series", lambda p: p(np.ones((5, 3))), r"\(1, 5, 3\)"),
    "nan": ("series", lambda p: p(np.full((1, 6, 3), np.nan)), "finite"),
    "shapes": ("series", lambda p: p([np.ones((6, 3)), np.ones((5, 3))]), "one shape"),
    "text": ("series", lambda p: p(["far"]), "Series must be numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_inputs_are_named(name, request):
    pytest.importorskip("onnxruntime", reason="runs the files")
    kind, mistake, message = BAD[name]
    classify = lsmha.Predictor(request.getfixturevalue(kind)[0], runtime="onnxruntime")
    with pytest.raises(ValueError, match=message):
        mistake(classify)


def test_a_file_is_no_text(texts, tmp_path):
    with pytest.raises(ValueError, match="read files first.*questions.txt"):
        lsmha.Predictor(texts[0])(tmp_path / "questions.txt")


def test_neither_keras_nor_a_backend_is_imported(texts):
    pytest.importorskip("onnxruntime", reason="runs the files")
    code = (
        "import sys, lsmha_keras; "
        "p = lsmha_keras.Predictor(sys.argv[1], runtime='onnxruntime'); print(p('a cat')); "
        "assert not {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(texts[0])], check=True)


def test_predict_takes_texts_and_files_of_lines(texts, tmp_path, capsys):
    path, model = texts
    file = tmp_path / "questions.txt"
    file.write_text(f"\ufeff{TEXTS[0]}\n\n{TEXTS[1]}\n", encoding="utf-8")
    assert cli.main(["predict", str(path), TEXTS[2], str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["text"] for result in found] == [TEXTS[2], TEXTS[0], TEXTS[1]]
    assert [result.get("line") for result in found] == [None, 1, 3]
    expected = model.probabilities(model.predict([TEXTS[2], *TEXTS[:2]], verbose=0))
    for result, row in zip(found, expected, strict=True):
        scores = {entry["name"]: entry["score"] for entry in result["classes"]}
        assert scores == pytest.approx(dict(zip(NAMES, row, strict=True)), abs=1e-4)
    assert cli.main(["predict", str(path), TEXTS[2], "--top", "1"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == TEXTS[2] and second.endswith(NAMES[expected[0].argmax()])


def test_predict_reports_what_is_no_text_and_classifies_the_rest(texts, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("\n")
    given = [str(tmp_path / "missing.txt"), str(tmp_path / "empty.txt"), " ", "a cat"]
    assert cli.main(["predict", str(texts[0]), *given, "--json"]) == 1
    out, err = capsys.readouterr()
    assert [result["text"] for result in json.loads(out)] == ["a cat"]
    assert "missing.txt" in err and "holds no text" in err and "must have a word" in err
    assert cli.main(["predict", str(texts[0]), given[0]]) == 2


def test_predict_takes_no_other_file_for_a_text(texts, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"")
    long = f"cat {5000 * 'x'}"  # longer than a file's name may be
    assert cli.main(["predict", str(texts[0]), str(photo), long]) == 1
    out, err = capsys.readouterr()
    assert f"reads files named *.txt. Received: {photo}" in err and long in out


def test_predict_takes_files_of_series(series, tmp_path, capsys):
    path, model = series
    values = random_tokens(2, 6, 3)
    np.save(tmp_path / "two.npy", values)
    np.save(tmp_path / "one.npy", values[1])
    np.save(tmp_path / "flat.npy", values[0, 0])
    (tmp_path / "broken.npy").write_bytes(b"PNG")
    files = [str(tmp_path / name) for name in ("two.npy", "one.npy", "flat.npy", "broken.npy")]
    assert cli.main(["predict", str(path), *files, "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [(result["file"], result["series"]) for result in found] == [
        (files[0], 0),
        (files[0], 1),
        (files[1], 0),
    ]
    assert found[1]["classes"] == found[2]["classes"]
    assert "flat.npy" in err and "broken.npy" in err


def test_evaluate_says_what_was_counted(texts, tmp_path, capsys):
    rows = "\n".join(f"{NAMES[i % 3]},{text}" for i, text in enumerate(TEXTS))
    (tmp_path / "mine.csv").write_text(f"label,text\n{rows}\n")
    arguments = ["evaluate", str(texts[0]), "--dataset", str(tmp_path / "mine.csv")]
    assert cli.main([*arguments, "--split", "train"]) == 0
    assert "4 texts): accuracy" in capsys.readouterr().out


def test_export_writes_texts(texts, tmp_path, capsys):
    target = tmp_path / "made"
    assert cli.main(["export", str(texts[0]), "--format", "onnx", "--output", str(target)]) == 0
    classify = lsmha.Predictor(target)
    expected = texts[1].predict(TEXTS, verbose=0)
    np.testing.assert_allclose(classify.logits(TEXTS), expected, atol=1e-4, rtol=0)


def test_the_service_refuses_texts(texts):
    pytest.importorskip("fastapi", reason='serving needs `pip install "lsmha-keras[serve]"`')
    from lsmha_keras.serving.app import create_app

    with pytest.raises(ValueError, match="a model of texts"):
        create_app(lsmha.Predictor(texts[0]))


def test_kinds_are_known_before_anything_is_loaded(texts, series):
    kinds = {"cct_2_3x2_h16": "images", "text_cct_2_4x1": "texts", "series_cct_2_3x1_h8": "series"}
    kinds |= {"lsmha-small": "images", texts[0]: "texts", series[0]: "series"}
    for name, kind in kinds.items():
        assert lsmha.presets.input_kind(name) == kind
