"""`lsmha convert` against the peer whose checkpoint it reads."""

import numpy as np

import lsmha_keras
from lsmha_keras import cli
from tests.reference import vit_pytorch_cct


def test_convert_gives_the_checkpoints_logits(tmp_path, capsys):
    cct = vit_pytorch_cct()
    import torch

    shape = {"img_size": 32, "n_conv_layers": 2, "kernel_size": 3, "num_classes": 10}
    peer = cct.cct_2(**shape, positional_embedding="learnable").eval()
    torch.save(peer.state_dict(), tmp_path / "peer.pth")
    output = tmp_path / "converted"
    command = ["convert", str(tmp_path / "peer.pth"), "--output", str(output)]
    assert cli.main(command) == 2
    assert "for CIFAR-100, 0.5071" in capsys.readouterr().err
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    (tmp_path / "names.txt").write_text("".join(f"class {i}\n" for i in range(10)))
    command += ["--mean", *map(str, mean), "--std", *map(str, std), "--image-size", "32"]
    assert cli.main([*command, "--class-names", str(tmp_path / "names.txt")]) == 0
    assert "283,723 parameters, 10 classes" in capsys.readouterr().out

    classifier = lsmha_keras.CCTImageClassifier.from_preset(output)
    images = np.random.default_rng(0).integers(0, 256, size=(2, 32, 32, 3), dtype="uint8")
    assert classifier.class_names == [f"class {i}" for i in range(10)]
    normalised = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype("float32")
    with torch.no_grad():
        expected = peer(torch.from_numpy(normalised)).numpy()
    np.testing.assert_allclose(classifier.predict(images, verbose=0), expected, atol=1e-4)
