import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
from PIL import Image

import lsmha_keras as lsmha
from lsmha_keras import cli, presets
from lsmha_keras.images import resize_image
from lsmha_keras.runtimes import keras_runtime
from tests.exporting.models import images_for, small_classifier
from tests.models.test_one_photo import photo

ROOT = pathlib.Path(lsmha.__file__).parent.parent
FRAMEWORKS = ("keras", "keras_hub", "tensorflow", "jax", "torch", "onnx")
SHIPPED = lsmha.list_presets(architectures=False)
RUNTIMES = ["onnxruntime", "openvino", "keras"]


@pytest.fixture
def runtime(request):
    if request.param != "keras":
        pytest.importorskip(request.param, reason="a runtime that not every installation has")
    return request.param


@pytest.fixture(scope="module")
def classifier():
    return lsmha.CCTImageClassifier.from_preset("lsmha-small")


@pytest.mark.parametrize("info", SHIPPED, ids=lambda info: info.name)
def test_shipped_files_give_what_predict_gives(info):
    pytest.importorskip("onnxruntime", reason="runs the files")
    golden = np.load(info.path / "golden.npz")
    rng = np.random.default_rng(7)
    # Bytes, or ids of words in the vocabulary.
    random = rng.integers(1, 256, golden["images"].shape, dtype=golden["images"].dtype)
    classify = lsmha.Predictor(info.name, runtime="onnxruntime", num_threads=1)
    assert np.abs(classify.logits(golden["images"]) - golden["logits"]).max() < 1e-3
    model = lsmha.load_classifier(info.name)
    expected = model.predict(random, verbose=0)
    for size in (1, 3, 8):
        assert np.abs(classify.logits(random[:size]) - expected[:size]).max() < 1e-3
    assert classify.class_names == model.class_names
    # As docs/export.md says; made from these weights, which loading checks, and listed.
    of_images = classify.kind == "images"
    assert classify._runtime.description.weights == "float32" or not of_images
    file = info.path / presets.ONNX
    assert file.stat().st_size < 8 * 2**20
    assert f"  {presets.ONNX}" in (info.path / presets.CHECKSUMS).read_text()


@pytest.mark.parametrize("runtime", RUNTIMES, indirect=True)
def test_photos_of_any_size_give_what_predict_gives(runtime, classifier, tmp_path):
    classify = lsmha.Predictor("lsmha-small", runtime=runtime, num_threads=1)
    assert classify.runtime == runtime
    photos = [photo(*size) for size in ((32, 32), (427, 640), (20, 26), (320, 32))]
    expected = np.concatenate([classifier.predict(image[None], verbose=0) for image in photos])
    paths = []
    for k, image in enumerate(photos):
        paths.append(tmp_path / f"{k}.png")
        Image.fromarray(image).save(paths[-1])
    given = {
        "paths": paths,
        "strings": [str(path) for path in paths],
        "open files": [io.BytesIO(path.read_bytes()) for path in paths],
        "PIL": [Image.fromarray(image) for image in photos],
        "arrays": photos,
        "a tuple of several kinds": (paths[0], Image.fromarray(photos[1]), *photos[2:]),
        "floats": [image.astype("float32") for image in photos],
        "one array": np.stack([resize_image(image, (32, 32)) for image in photos]),
    }
    for name, images in given.items():
        found = classify.logits(images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0, err_msg=name)
    for image, row in zip(photos, expected, strict=True):
        np.testing.assert_allclose(classify.logits(image), row[None], atol=1e-3, rtol=0)
    names = [[classifier.class_names[k] for k in row.argsort()[:-6:-1]] for row in expected]
    assert [[label for label, _ in answer] for answer in classify(photos)] == names
    assert classify.logits([]).shape == (0, 100) and classify([]) == []


def test_more_images_than_a_run_takes(classifier):
    pytest.importorskip("onnxruntime", reason="runs the files")
    images = images_for(classifier, 70)
    found = lsmha.Predictor("lsmha-small", runtime="onnxruntime").logits(images)
    np.testing.assert_allclose(found, classifier.predict(images, verbose=0), atol=1e-3, rtol=0)


def test_one_image_gives_pairs_and_several_give_lists(classifier):
    pytest.importorskip("onnxruntime", reason="runs the files")
    classify = lsmha.Predictor("lsmha-small", runtime="onnxruntime")
    picture = ROOT / "examples" / "sunflower.png"
    if not picture.exists():
        pytest.skip("needs a checkout")
    ((label, probability), *others) = classify(picture)
    logits = classifier.predict(np.asarray(Image.open(picture).convert("RGB")), verbose=0)
    expected = np.sort(classifier.probabilities(logits)[0])[::-1]
    assert label == "sunflower" and len(others) == 4
    np.testing.assert_allclose([probability, *(p for _, p in others)], expected[:5], atol=1e-4)
    assert classify([picture, picture], top=1) == [[(label, probability)]] * 2
    np.testing.assert_allclose(classify.probabilities(picture).sum(), 1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The export of a small model, made once: path, model."""
    pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
    pytest.importorskip("onnxruntime", reason="runs the files")
    made = {}

    def export(**arguments):
        key = json.dumps(arguments)
        if key not in made:
            model = small_classifier(**arguments)
            made[key] = lsmha.export(model, "onnx", tmp_path_factory.mktemp("e") / "made"), model
        return made[key]

    return export


def test_an_export_is_used_by_its_path(exported):
    path, model = exported()
    expected = model.predict(images_for(model), verbose=0)
    for given in (path, str(path), path / "model.onnx"):
        classify = lsmha.Predictor(given)
        assert classify.class_names is None and classify.num_classes == 7
        found = classify.logits(images_for(model))
        np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)
    assert [label for label, _ in classify(images_for(model)[0])] == [
        int(k) for k in expected[0].argsort()[:-6:-1]
    ]
    with pytest.raises(ValueError, match="Keras runs presets, not ONNX files"):
        lsmha.Predictor(path, runtime="keras")


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_outputs_that_are_probabilities_are_left_so(exported, activation):
    path, model = exported(activation=activation)
    expected = model.predict(images_for(model), verbose=0)
    found = lsmha.Predictor(path).probabilities(images_for(model))
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)


def test_grey_images_come_with_and_without_their_channel(exported, tmp_path):
    path, model = exported(image_shape=[16, 20, 1])
    classify = lsmha.Predictor(path)
    images = images_for(model)
    expected = model.predict(images, verbose=0)
    for given in (images, images[..., 0], list(images), list(images[..., 0])):
        np.testing.assert_allclose(classify.logits(given), expected, atol=1e-3, rtol=0)
    for given in (images[0], images[0, ..., 0]):
        np.testing.assert_allclose(classify.logits(given), expected[:1], atol=1e-3, rtol=0)
        assert len(classify(given, top=3)) == 3
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "grey.png")
    found = classify.logits(tmp_path / "grey.png")
    np.testing.assert_allclose(found, expected[:1], atol=1e-3, rtol=0)


def test_a_committee_runs_in_keras(tmp_path):
    members = [small_classifier(class_names=list("abcdefg"), seed=seed) for seed in range(2)]
    committee = lsmha.SoftCommittee(members, mode="vote")
    committee.save_to_preset(tmp_path)
    classify = lsmha.Predictor(tmp_path)
    assert classify.runtime == "keras"
    expected = committee.predict(images_for(members[0]), verbose=0)
    found = classify.probabilities(images_for(members[0]))
    np.testing.assert_allclose(found, committee.probabilities(expected), atol=1e-5)


def test_keras_compiles_a_size_once(tmp_path, monkeypatch):
    small_classifier(class_names=list("abcdefg")).save_to_preset(tmp_path)
    classify = lsmha.Predictor(tmp_path, runtime="keras")
    model = classify._runtime.classifier
    images = images_for(model, 4)
    expected = model.predict(images, verbose=0)  # on JAX this replaces the model's arrays
    calls = []
    whole = model.call
    monkeypatch.setattr(model, "call", lambda *args, **kw: calls.append(1) or whole(*args, **kw))
    for size in (1, 3, 4, 3, 1):  # padded to 1, 4, 4, 4, 1
        np.testing.assert_allclose(classify.logits(images[:size]), expected[:size], atol=1e-5)
    assert len(calls) == (5 if keras.backend.backend() == "torch" else 2)


def test_keras_leaves_preprocessing_of_a_users_to_it(monkeypatch):
    class Darker(lsmha.CCTImageClassifierPreprocessor):
        def call(self, x, y=None, sample_weight=None):
            return super().call(x // 2, y, sample_weight)

    model = small_classifier()
    config = model.preprocessor.get_config()
    model.preprocessor = Darker.from_config(config)
    images = images_for(model)
    monkeypatch.setattr(keras_runtime, "load_classifier", lambda preset: model)
    found = keras_runtime.KerasRuntime("mine").run(images)
    np.testing.assert_allclose(found, model.predict(images, verbose=0), atol=1e-5)


def run_alone(code, **environment):
    """Runs code in a new process in which no backend is requested."""
    kept = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.backend_free
def test_neither_keras_nor_a_framework_is_imported(tmp_path):
    pytest.importorskip("onnxruntime", reason="runs the files")
    Image.fromarray(photo(50, 60)).save(tmp_path / "photo.png")
    loaded = f"print([m for m in {FRAMEWORKS} if m in sys.modules])"
    code = f"import sys; from lsmha_keras import Predictor; {loaded}"
    assert run_alone(f"{code}; print('onnxruntime' in sys.modules)") == "[]\nFalse\n"
    photo_path = str(tmp_path / "photo.png")
    code = (
        "import sys; from lsmha_keras import Predictor\n"
        "classify = Predictor('lsmha-small', runtime='onnxruntime')\n"
        f"assert len(classify({photo_path!r})) == 5; {loaded}"
    )
    assert run_alone(code) == "[]\n"
    code = (
        "import sys; from lsmha_keras.cli import main\n"
        f"assert main(['predict', 'lsmha-small', {photo_path!r}, '--json']) == 0; {loaded}"
    )
    printed = run_alone(code)
    assert printed.endswith("]\n[]\n")
    (found,) = json.loads(printed.removesuffix("[]\n"))
    answer = lsmha.Predictor("lsmha-small", runtime="onnxruntime")(tmp_path / "photo.png")
    assert [entry["name"] for entry in found["classes"]] == [label for label, _ in answer]
    np.testing.assert_allclose(
        [entry["score"] for entry in found["classes"]], [p for _, p in answer], atol=1e-6
    )


@pytest.mark.parametrize("asked", ["backend", "variable", "runtime", "nothing"])
def test_the_command_uses_the_requested_runtime(asked, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="runs the files")
    used = []

    class Spy(lsmha.Predictor):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            used.append(self.runtime)

    monkeypatch.setattr("lsmha_keras.predictor.Predictor", Spy)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    Image.fromarray(photo(50, 60)).save(tmp_path / "photo.png")
    arguments = ["predict", "lsmha-small", str(tmp_path / "photo.png")]
    if asked == "backend":
        arguments += ["--backend", keras.backend.backend()]
    elif asked == "variable":
        monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    elif asked == "runtime":
        arguments += ["--runtime", "keras"]
    assert cli.main(arguments) == 0
    assert used == ["onnxruntime" if asked == "nothing" else "keras"]


@pytest.mark.parametrize("runtime", RUNTIMES, indirect=True)
def test_several_threads_get_their_own_answers(runtime):
    classify = lsmha.Predictor("lsmha-small", runtime=runtime, num_threads=1)
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype="uint8")
    expected = [classify.logits(image) for image in images]
    found, errors = {}, []

    def ask(index):
        try:
            found[index] = [classify.logits(images[index]) for _ in range(20)]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for index, answers in found.items():
        for answer in answers:
            np.testing.assert_allclose(answer, expected[index], atol=1e-5)


@pytest.mark.backend_free
def test_threads_are_bounded():
    pytest.importorskip("onnxruntime", reason="runs the files")
    code = """
import os, sys, lsmha_keras, numpy as np
classify = lsmha_keras.Predictor("lsmha-small", runtime="onnxruntime", num_threads=int(sys.argv[1]))
before = len(os.listdir("/proc/self/task"))
classify.logits(np.zeros((64, 32, 32, 3), "uint8"))
print(len(os.listdir("/proc/self/task")), before)
"""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("threads are counted in /proc")
    counts = {}
    for wanted in (1, 3):
        text = run_alone(code.replace("int(sys.argv[1])", str(wanted)))
        counts[wanted], before = map(int, text.split())
        assert counts[wanted] == before  # no thread is added by a run
    assert counts[3] == counts[1] + 2


def saved(tmp_path):
    """A preset of a small model, with an ONNX file."""
    pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
    pytest.importorskip("onnxruntime", reason="runs the files")
    model = small_classifier(class_names=list("abcdefg"))
    model.save_to_preset(str(tmp_path / "preset"))
    return tmp_path / "preset", model


def test_a_preset_gets_a_file_and_loses_it_with_its_weights(tmp_path, capsys):
    preset, model = saved(tmp_path)
    assert lsmha.Predictor(preset).runtime == "keras"
    with pytest.raises(ValueError, match="lsmha zoo onnx"):
        lsmha.Predictor(preset, runtime="onnxruntime")
    assert cli.main(["zoo", "onnx", str(preset)]) == 0
    assert str(preset / presets.ONNX) in capsys.readouterr().out
    presets.verify_checksums(preset)
    classify = lsmha.Predictor(preset, runtime="onnxruntime")
    expected = model.predict(images_for(model), verbose=0)
    np.testing.assert_allclose(classify.logits(images_for(model)), expected, atol=1e-3, rtol=0)
    same = lsmha.CCTImageClassifier.from_preset(preset)  # the file does not disturb Keras
    np.testing.assert_allclose(same.predict(images_for(model), verbose=0), expected, atol=1e-5)

    other = small_classifier(seed=1)
    other.save_to_preset(str(preset))
    assert not (preset / presets.ONNX).exists()
    presets.verify_checksums(preset)
    found = lsmha.Predictor(preset).logits(images_for(other))
    np.testing.assert_allclose(found, other.predict(images_for(other), verbose=0), atol=1e-4)


def test_a_file_of_other_weights_is_not_used(tmp_path):
    preset, _ = saved(tmp_path)
    assert cli.main(["zoo", "onnx", str(preset)]) == 0
    small_classifier(seed=1).save_to_preset(str(tmp_path / "other"))
    shutil.copy(preset / presets.ONNX, tmp_path / "other")
    with pytest.raises(ValueError, match="made from other files than those beside it"):
        lsmha.Predictor(tmp_path / "other")


def test_damaged_files_are_named(tmp_path, exported):
    preset, _ = saved(tmp_path)
    assert cli.main(["zoo", "onnx", str(preset)]) == 0
    file = preset / presets.ONNX
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"model\.onnx was changed or damaged"):
        lsmha.Predictor(preset)
    alone = tmp_path / "alone.onnx"
    for content in (b"", b"no graph", whole[: len(whole) // 2]):
        alone.write_bytes(content)
        for runtime in ("onnxruntime", "openvino"):
            pytest.importorskip(runtime, reason="reads the file")
            with pytest.raises(ValueError, match=r"alone\.onnx"):
                lsmha.Predictor(alone, runtime=runtime)
    # An export has checksums beside it, as a preset has.
    path, _ = exported()
    whole = (path / presets.ONNX).read_bytes()
    (path / presets.ONNX).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for model in (path, path / presets.ONNX):
        with pytest.raises(ValueError, match=r"model\.onnx was changed or damaged"):
            lsmha.Predictor(model)


def test_a_file_of_somebody_else_is_named(tmp_path, exported):
    import onnx

    path, _ = exported()
    graph = onnx.load(path / "model.onnx")
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "theirs.onnx")
    for runtime in ("onnxruntime", "openvino"):
        pytest.importorskip(runtime, reason="reads the file")
        with pytest.raises(ValueError, match=r"does not say.*theirs\.onnx"):
            lsmha.Predictor(tmp_path / "theirs.onnx", runtime=runtime)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "lsmha-smal"}, "nearest: lsmha-small"),
        ({"model": "cct_2_3x2"}, "without trained weights"),
        ({"model": "missing.onnx"}, "no such ONNX file. Received: missing.onnx"),
        ({"model": "lsmha-small", "runtime": "tensorrt"}, "runtime='tensorrt'"),
        ({"model": "lsmha-small", "num_threads": 0}, "num_threads=0"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        lsmha.Predictor(**arguments)


def test_a_missing_runtime_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        ImportError, match=r'openvino is needed.*pip install "lsmha-keras\[export\]'
    ):
        lsmha.Predictor("lsmha-small", runtime="openvino")


def test_bad_images_are_named(tmp_path):
    pytest.importorskip("onnxruntime", reason="runs the files")
    classify = lsmha.Predictor("lsmha-small", runtime="onnxruntime")
    (tmp_path / "text.png").write_text("no image")
    for given, message in [
        (tmp_path / "text.png", r"text\.png is not a sound image"),
        (tmp_path / "missing.png", r"missing\.png"),
        (np.zeros((4, 4)), r"shape \(4, 4\)"),
        (np.zeros((1, 4, 4, 4)), r"3 channels. Received: images of shape \(1, 4, 4, 4\)"),
        (np.full((4, 4, 3), 300), "values from 300 to 300"),
        (np.full((4, 4, 3), np.nan), "values from nan"),
        ([3], "Received: int"),
        (None, "Received: NoneType"),
    ]:
        with pytest.raises(ValueError, match=message):
            classify(given)
    with pytest.warns(UserWarning, match="0 .. 255"):
        classify(np.full((4, 4, 3), 0.5))
