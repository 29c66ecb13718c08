"""KerasHub's own tests of backbones, tasks, quantisation and presets, run on our models."""

import keras
import numpy as np
import pytest
from keras import ops

import lsmha_keras as lsmha
from tests.checks import random_images, random_tokens, to_numpy
from tests.models.test_cct_image_classifier import small_classifier

# What KerasHub's module of tests imports; the wheel of KerasHub 0.32 has the module itself.
for _package in ("absl.testing", "tensorflow", "grain"):
    pytest.importorskip(_package, reason=f"KerasHub's tests need {_package}")
harness = pytest.importorskip(
    "keras_hub.src.tests.test_case", reason="this version of KerasHub comes without its tests"
)
BACKBONE = {
    "image_shape": (16, 12, 3),
    "hidden_dim": 24,
    "num_layers": 3,
    "num_heads": 4,
    "mlp_dim": 32,
    "tokenizer_filters": 8,
    "num_conv_blocks": 1,
}
# XLA has no float16 convolutions on CPUs.
HALF_PRECISION = keras.config.backend() != "jax"


@pytest.fixture
def case():
    case = harness.TestCase()
    case.setUp()
    yield case
    case.tearDown()
    case.doCleanups()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_heads": [2, 3], "head_dim": [None, 7], "conv_block_design": "inverted_bottleneck"},
        {"position_embedding": "sine", "tokenizer_layers": 2, "tokenizer_design": "separable"},
        {"fused_conv_blocks": True, "num_conv_blocks": 2},
    ],
)
def test_backbone(case, arguments):
    arguments = {**BACKBONE, **arguments}
    tokens = 12 if arguments.get("tokenizer_layers") == 2 else 48
    case.run_backbone_test(
        lsmha.CCTBackbone,
        arguments,
        ops.convert_to_tensor(random_tokens(2, 16, 12, 3)),
        expected_output_shape=(2, tokens, 24),
        run_mixed_precision_check=HALF_PRECISION,
        run_quantization_check=True,  # by `run_quantization_test`
    )


@pytest.mark.slow
def test_task(case):
    arguments = {
        "backbone": lsmha.CCTBackbone(**BACKBONE),
        "num_classes": 5,
        "preprocessor": lsmha.CCTImageClassifierPreprocessor(
            lsmha.CCTImageConverter.for_images(BACKBONE["image_shape"])
        ),
        "class_names": list("abcde"),
        "dropout": 0.1,
    }
    data = (random_images(4, 16, 12, 3), np.arange(4))
    case.run_task_test(lsmha.CCTImageClassifier, arguments, data, (4, 5))


@pytest.mark.parametrize("part", ["backbone", "classifier"])
def test_preset(case, part, tmp_path):
    model = small_classifier()
    model.save_to_preset(tmp_path)
    model = model.backbone if part == "backbone" else model
    images = random_tokens(2, 16, 16, 3)
    case.run_preset_test(type(model), tmp_path, images, expected_output=to_numpy(model(images)))


def test_preset_of_a_preprocessor(case, tmp_path):
    model = small_classifier()
    model.save_to_preset(tmp_path)
    images = random_images(2, 16, 16, 3)
    expected = to_numpy(model.preprocessor(images))
    for cls in (lsmha.CCTImageClassifierPreprocessor, lsmha.CCTImageConverter):
        case.run_preset_test(cls, str(tmp_path), images, expected_output=expected)


def test_preprocessor(case):
    case.run_preprocessing_layer_test(
        lsmha.CCTImageClassifierPreprocessor,
        {"image_converter": lsmha.CCTImageConverter.for_images((8, 8, 3))},
        random_images(2, 16, 16, 3),
    )
