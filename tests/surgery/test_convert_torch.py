import sys

import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.checks import random_images, random_tokens
from tests.reference import vit_pytorch_cct

NORMALISATION = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.1)}


def convert(checkpoint, **arguments):
    return lsmha.convert_torch_checkpoint(checkpoint, **{**NORMALISATION, **arguments})


MODELS = {
    "cct_2_3x2": ({"kernel_size": 3, "n_conv_layers": 2, "img_size": 32}, 283_723),
    "cct_7_3x1": ({"kernel_size": 3, "n_conv_layers": 1, "img_size": 32}, 3_760_139),
    "cct_14_7x2": ({"kernel_size": 7, "n_conv_layers": 2, "img_size": 224}, None),
}


def peer(name, position_embedding="learnable", num_classes=10, **kwargs):
    """The peer model with random weights everywhere, biases and norms included."""
    import torch

    cct = vit_pytorch_cct()
    torch.manual_seed(0)
    arguments = {**MODELS[name][0], "positional_embedding": position_embedding, **kwargs}
    model = getattr(cct, "_".join(name.split("_")[:2]))(num_classes=num_classes, **arguments)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "positional" not in key:
                parameter.mul_(2)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("position_embedding", ["learnable", "sine"])
def test_logits_equal_the_reference(name, position_embedding):
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    vit_pytorch_cct()
    if name == "cct_14_7x2" and position_embedding == "sine":
        pytest.skip("one 224-pixel model is enough")
    model = peer(name, position_embedding)
    classifier = convert(model.state_dict())
    assert classifier.backbone.position_embedding == position_embedding
    side = MODELS[name][0]["img_size"]
    images = random_tokens(2, side, side, 3)
    with torch.no_grad():
        expected = model(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    classifier.preprocessor = None
    logits = classifier.predict(images, verbose=0)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    if MODELS[name][1] and position_embedding == "learnable":
        assert sum(int(np.prod(w.shape)) for w in classifier.trainable_weights) == MODELS[name][1]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_and_wrappers(tmp_path, suffix):
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    model = peer("cct_2_3x2")
    path = tmp_path / f"model{suffix}"
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    if suffix == ".pth":
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        pytest.importorskip("safetensors.torch").save_file(state, path)
    classifier = convert(path, class_names=list("abcdefghij"))
    kernel = classifier.output_dense.kernel
    np.testing.assert_array_equal(
        np.asarray(kernel.numpy()), model.state_dict()["classifier.fc.weight"].numpy().T
    )
    assert classifier.class_names[9] == "j"


def test_other_head_counts_and_non_square_images():
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    model = peer("cct_2_3x2", img_size=(48, 32))
    classifier = convert(model.state_dict(), num_heads=2, image_shape=(48, 32, 3))
    images = random_tokens(2, 48, 32, 3)
    with torch.no_grad():
        expected = model(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    classifier.preprocessor = None
    np.testing.assert_allclose(classifier.predict(images, verbose=0), expected, atol=1e-4)
    many = convert(model.state_dict(), num_heads=16, image_shape=(48, 32, 3))
    assert many.backbone.num_heads == 16
    with pytest.raises(ValueError, match="pass `image_shape`"):
        convert(model.state_dict())
    with pytest.raises(ValueError, match="num_heads=7"):
        convert(model.state_dict(), num_heads=7, image_shape=(48, 32, 3))


def test_bad_checkpoints(tmp_path):
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    state = dict(peer("cct_2_3x2").state_dict())
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        convert(tmp_path / "nowhere.pth")
    (tmp_path / "broken.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="broken.pth"):
        convert(tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="not a checkpoint of a compact"):
        convert({"fc.weight": torch.zeros(3)})
    key = "classifier.blocks.1.linear1.bias"
    with pytest.raises(ValueError, match=f"no '{key}'"):
        convert({k: v for k, v in state.items() if k != key})
    with pytest.raises(ValueError, match=r"unknown tensors.*classifier\.extra"):
        convert({**state, "classifier.extra": torch.zeros(3)})
    with pytest.raises(ValueError, match=f"'{key}' must have shape"):
        convert({**state, key: torch.zeros(3)})
    with pytest.raises(ValueError, match="class token"):
        convert({**state, "classifier.class_emb": torch.zeros(1, 1, 128)})


def test_a_damaged_file_of_safetensors_is_named(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="safetensors. Received: .*broken.safetensors"):
        convert(tmp_path / "broken.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r'needs safetensors.*"lsmha-keras\[torch\]"'):
        convert(tmp_path / "broken.safetensors")


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    flag = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return open, (str(flag), "w")

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="plain tensors"):
        convert(tmp_path / "evil.pth")
    assert not flag.exists()


def test_the_normalisation_is_not_guessed():
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    model = peer("cct_2_3x2")
    images = random_images(2, 32, 32, 3)
    scaled = (images / 255 - NORMALISATION["mean"]) / NORMALISATION["std"]
    with torch.no_grad():
        expected = model(torch.tensor(scaled.transpose(0, 3, 1, 2)).float()).numpy()
    logits = convert(model.state_dict()).predict(images, verbose=0)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    for wrong in ({"mean": None}, {"std": None}, {"mean": (0.5,)}, {"std": (0.2, 0.2, 0)}):
        with pytest.raises(ValueError, match="a checkpoint does not record.*Received: mean="):
            convert(model.state_dict(), **wrong)


def test_the_size_of_images_is_not_guessed():
    pytest.importorskip("torch", reason="parity needs PyTorch")
    state = peer("cct_2_3x2", position_embedding="none").state_dict()
    with pytest.raises(ValueError, match="does not tell its image size"):
        convert(state)
    assert convert(state, image_shape=(48, 32)).image_shape == (48, 32, 3)
