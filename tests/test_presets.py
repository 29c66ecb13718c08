import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras import presets
from lsmha_keras.data.open_dataset import can_open_offline
from lsmha_keras.layers.position_embedding import resize_position_embedding
from lsmha_keras.training.recipe import load_recipe
from tests.checks import PATIENCE, check_preset, random_images
from tests.models.test_cct_image_classifier import small_classifier


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved preset: model, directory, images and their logits."""
    directory = tmp_path_factory.mktemp("preset")
    model = small_classifier(class_names=list("abcde"))
    model.save_to_preset(directory)
    images = random_images(4, 16, 16, 3)
    return model, directory, images, model.predict(images, verbose=0)


def copy(directory, target):
    for path in directory.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_architectures_read_their_names():
    assert presets.parse_architecture("cct_7_3x1_sine_h25x10_c3") == {
        "image_shape": (32, 32, 3),
        "num_layers": 7,
        "hidden_dim": 256,
        "num_heads": 25,
        "head_dim": 10,
        "mlp_dim": 512,
        "tokenizer_kernel_size": 3,
        "tokenizer_layers": 1,
        "num_conv_blocks": 3,
        "position_embedding": "sine",
    }
    assert presets.parse_architecture("cct_14_7x2")["image_shape"] == (224, 224, 3)
    for name in ("cct_5_3x1", "cct_7", "vit_7_3x1", "cct_7_3x1_cifar100", "cct_7_3x1_hx3"):
        assert presets.parse_architecture(name) is None


def test_list_has_architectures_that_build():
    names = [preset.name for preset in lsmha.list_presets()]
    assert {"cct_2_3x2_h16", "cct_7_3x1_h25x10", "cct_14_7x2"} <= set(names)
    assert all(str(preset) for preset in lsmha.list_presets())
    backbone = lsmha.CCTBackbone.from_preset("cct_2_3x2_h25x5")
    assert backbone.num_heads == 25 and backbone.head_dim == 5


@pytest.mark.parametrize(
    "info", lsmha.list_presets(architectures=False), ids=lambda info: info.name
)
def test_shipped_presets(info):
    check_preset(info)


def test_cards_have_metadata_that_the_hub_reads():
    huggingface_hub = pytest.importorskip("huggingface_hub")
    for info in lsmha.list_presets(architectures=False):
        data = huggingface_hub.ModelCard.load(info.path / presets.CARD).data
        assert (data.license, data.library_name) == ("apache-2.0", "keras-hub")
        of_images = presets.input_kind(info.path) == "images"
        hubs = {"cifar100": "uoft-cs/cifar100", "sst2": "stanfordnlp/sst2"}
        hubs |= {"trec": "CogComp/trec", "trec_fine": "CogComp/trec"}
        assert data.datasets == [hubs[info.dataset]] and data.metrics == ["accuracy"]
        task = "image-classification" if of_images else "text-classification"
        assert data.pipeline_tag == task and data.model_name == info.name
        values = {result.metric_type: result.metric_value for result in data.eval_results}
        assert 100 * values["accuracy"] == pytest.approx(info.accuracy)
        # Of two classes or six, the label is always among the first five.
        assert values.get("top_5_accuracy", 1.0) > values["accuracy"]
        assert ("top_5_accuracy" in values) == (info.dataset not in ("sst2", "trec"))


def test_a_preset_with_an_old_card_loads(saved, tmp_path):
    _, directory, images, expected = saved
    copy(directory, tmp_path)
    (tmp_path / "card.md").write_text("a card of version 0.1")
    text = hashlib.sha256(b"a card of version 0.1").hexdigest()
    with (tmp_path / presets.CHECKSUMS).open("a") as file:
        file.write(f"{text}  card.md\n")
    loaded = lsmha.CCTImageClassifier.from_preset(tmp_path)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-6)


def test_a_card_may_be_edited(saved, tmp_path):
    copy(saved[1], tmp_path)
    (tmp_path / presets.CARD).write_text("first")
    presets.write_checksums(tmp_path)
    (tmp_path / presets.CARD).write_text("edited on a hub")
    presets.verify_checksums(tmp_path)
    assert presets.CARD not in (tmp_path / presets.CHECKSUMS).read_text()


@pytest.mark.parametrize("alias", presets.ALIASES)
def test_aliases_stand_for_presets(alias):
    directory = presets.resolve_preset(alias)
    assert directory.name == presets.ALIASES[alias] == presets.preset_name(alias)
    (info,) = lsmha.list_presets(alias)
    assert info.path == directory and f"alias {alias}" in str(info)
    assert load_recipe(alias).name == directory.name
    # What a newcomer loads is the best one of its size.
    same = [i for i in lsmha.list_presets(architectures=False) if i.dataset == info.dataset]
    limit = {"lsmha-small": 5e5, "lsmha-base": 1e6}[alias]
    assert info.accuracy == max(i.accuracy for i in same if i.parameters < limit)


def test_names_are_filtered():
    names = [info.name for info in lsmha.list_presets("*h16*")]
    assert "cct_2_3x2_h16_cifar100" in names and "cct_7_3x1_h16" in names
    assert all("h16" in name for name in names)
    assert lsmha.list_presets("nothing*") == []
    trained = [
        (info.dataset, -info.accuracy) for info in lsmha.list_presets("*", architectures=False)
    ]
    assert trained == sorted(trained)
    with pytest.raises(ValueError, match="Received: pattern=False"):
        lsmha.list_presets(False)


def test_keras_hub_knows_the_names():
    import keras_hub

    listed = {info.name: info for info in lsmha.list_presets(architectures=False)}
    texts = {name for name in listed if presets.input_kind(name) == "texts"}
    assert set(lsmha.CCTImageClassifier.presets) >= {*listed, *presets.ALIASES} - texts
    assert set(lsmha.CCTTextClassifier.presets) == texts
    assert set(lsmha.CCTBackbone.presets) <= set(keras_hub.models.ImageClassifier.presets)
    entry = lsmha.CCTImageClassifier.presets["cct_2_3x2_h16_cifar100"]
    assert entry["metadata"]["params"] == 295_333
    golden = np.load(listed["cct_2_3x2_h16_cifar100"].path / "golden.npz")
    loaded = keras_hub.models.ImageClassifier.from_preset("cct_2_3x2_h16_cifar100")
    assert type(loaded) is lsmha.CCTImageClassifier
    logits = loaded.predict(golden["images"], verbose=0)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "info", lsmha.list_presets(architectures=False), ids=lambda info: info.name
)
def test_shipped_presets_reach_their_accuracy(info):
    if not can_open_offline(info.dataset):
        pytest.skip(f"needs {info.dataset} in LSMHA_DATA_DIR, which the environment names")
    results = json.loads((info.path / "results.json").read_text())
    figures = lsmha.evaluate(info.name, info.dataset, results["split"])
    assert figures["num_images"] == results["num_images"]
    assert 100 * figures["accuracy"] == pytest.approx(info.accuracy, abs=0.1)


def test_new_head_keeps_the_backbone(saved):
    model, directory, images, _ = saved
    loaded = lsmha.CCTImageClassifier.from_preset(directory, num_classes=3)
    assert loaded.predict(images, verbose=0).shape == (4, 3) and loaded.class_names is None
    for old, new in zip(model.backbone.weights, loaded.backbone.weights, strict=True):
        if "seed" not in old.path:
            np.testing.assert_array_equal(np.asarray(old.numpy()), np.asarray(new.numpy()))


def test_image_shape_resizes_the_position_embedding(saved):
    model, directory, _, _ = saved
    loaded = lsmha.CCTImageClassifier.from_preset(directory, image_shape=(24, 20, 3))
    layer = loaded.backbone.position_embedding_layer
    old = model.backbone.position_embedding_layer.embedding
    expected = resize_position_embedding(np.asarray(old.numpy()), (4, 4), layer.grid_shape)
    np.testing.assert_allclose(np.asarray(layer.embedding.numpy()), expected, atol=1e-6)
    assert layer.grid_shape == (6, 5)
    assert loaded.predict(random_images(2, 31, 33, 3), verbose=0).shape == (2, 5)


def test_load_weights_false_gives_other_weights(saved):
    _, directory, images, expected = saved
    loaded = lsmha.CCTImageClassifier.from_preset(directory, load_weights=False)
    assert np.abs(loaded.predict(images, verbose=0) - expected).max() > 1e-3


@pytest.mark.parametrize("name", ["cct_2_3x2_h16", "cct_2_3x2_h16_cifar100"])
def test_a_directory_takes_precedence_over_a_name(saved, tmp_path, monkeypatch, name):
    _, directory, images, expected = saved
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # Without a preset in it, the name still counts.
    assert presets.read_config(name)["num_heads"] == 16
    copy(directory, tmp_path / name)
    loaded = lsmha.CCTImageClassifier.from_preset(name)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-6)
    assert lsmha.CCTBackbone.from_preset(name).num_heads == 4


def test_checksums_are_sha256sum_format(saved):
    _, directory, _, _ = saved
    lines = (directory / "checksums.sha256").read_text().splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines)
    assert set(listed) == {p.name for p in directory.iterdir()} - {"checksums.sha256"}
    for name, checksum in listed.items():
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == checksum


@pytest.mark.parametrize("name", ["model.weights.h5", "task.weights.h5", "config.json"])
@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
def test_damaged_files_are_refused_by_name(saved, tmp_path, name, damage):
    copy(saved[1], tmp_path)
    file = tmp_path / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(content[:-7])
    else:
        file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.raises(ValueError, match=name):
        lsmha.CCTImageClassifier.from_preset(tmp_path)


def test_generic_loader_refuses_damaged_weights_too(saved, tmp_path):
    import keras_hub

    copy(saved[1], tmp_path)
    file = tmp_path / "model.weights.h5"
    file.write_bytes(file.read_bytes()[:-7] + b"1234567")
    with pytest.raises(ValueError, match=r"model\.weights\.h5"):
        keras_hub.models.ImageClassifier.from_preset(str(tmp_path))


def test_damaged_list_and_missing_config(saved, tmp_path):
    copy(saved[1], tmp_path)
    (tmp_path / "checksums.sha256").write_text("nonsense\n")
    with pytest.raises(ValueError, match="the line 'nonsense'"):
        lsmha.CCTImageClassifier.from_preset(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no `config\.json`"):
        lsmha.CCTImageClassifier.from_preset(tmp_path)


def test_unknown_names_get_suggestions():
    with pytest.raises(ValueError, match=r"nearest: cct_7_3x1.*Received: preset='cct_7_3x1_h12y'"):
        lsmha.CCTImageClassifier.from_preset("cct_7_3x1_h12y")
    with pytest.raises(ValueError, match="give `num_classes`"):
        lsmha.CCTImageClassifier.from_preset("cct_2_3x2")


def test_hub_handles_become_directories(saved, monkeypatch):
    _, directory, images, expected = saved
    huggingface_hub = pytest.importorskip("huggingface_hub")
    kagglehub = pytest.importorskip("kagglehub")
    asked = []
    fetch = lambda handle: asked.append(handle) or str(directory)  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr(kagglehub, "model_download", fetch)
    for handle in ("hf://someone/cct", "kaggle://someone/cct/keras/small"):
        loaded = lsmha.CCTImageClassifier.from_preset(handle)
        np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-6)
    assert asked == ["someone/cct", "someone/cct/keras/small"]


def test_offline_hub_fails_at_once(tmp_path):
    pytest.importorskip("huggingface_hub")
    script = "from lsmha_keras import presets; presets.resolve_preset('hf://someone/cct')"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin"}
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=str(presets.pathlib.Path(presets.__file__).parents[1]),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode and "could not be fetched" in result.stderr
    assert "Received: 'hf://someone/cct'" in result.stderr


def test_list_reads_results(saved, tmp_path, monkeypatch):
    preset = tmp_path / "presets" / "cct_small_data"
    preset.mkdir(parents=True)
    copy(saved[1], preset)
    results = {"parameters": 1234, "dataset": "data", "accuracy": 0.4321}
    (preset / "results.json").write_text(json.dumps(results))
    monkeypatch.setattr(presets, "zoo_dir", lambda: tmp_path)
    info = lsmha.list_presets()[0]
    assert str(info) == "cct_small_data (1,234 parameters, 43.21 % on data)"
    assert lsmha.CCTImageClassifier.from_preset("cct_small_data").num_classes == 5
