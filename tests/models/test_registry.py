"""Every public backbone and classifier passes the checks of its kind."""

import inspect

import numpy as np
import pytest

from lsmha_keras import models
from lsmha_keras.models.cct_base_backbone import CCTBaseBackbone
from tests.checks import check_model, check_task, random_images, random_tokens

pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")

SMALL = {"hidden_dim": 24, "mlp_dim": 32, "tokenizer_filters": 8}
WORDS = "what who is a the cat dog far near ?".split()
IDS = np.array([[5, 3, 9, 2, 7, 4, 8, 6, 1], [4, 2, 6, 3, 0, 0, 0, 0, 0]], "int32")
SERIES = random_tokens(2, 9, 2)
SERIES[1, 5:] = -1.0


def of_images():
    backbone = models.CCTBackbone(
        (16, 12, 3), num_layers=3, num_conv_blocks=1, num_heads=4, head_dim=[5, 7], **SMALL
    )
    return backbone, random_tokens(2, 16, 12, 3)


def of_ids():
    backbone = models.CCTSequenceBackbone(
        9, vocabulary_size=12, embedding_dim=10, num_conv_blocks=1, num_heads=[3], **SMALL
    )
    return backbone, IDS


def of_series():
    backbone = models.CCTSequenceBackbone(
        9, num_features=2, mask_value=-1.0, num_layers=2, num_heads=[2, 4], head_dim=5, **SMALL
    )
    return backbone, SERIES


BACKBONES = [of_images, of_ids, of_series]


def image_classifier():
    model = models.CCTImageClassifier.from_preset(
        *("cct_2_3x2_h4_c1", 5, (16, 16, 3)), class_names=list("abcde"), dropout=0.1, **SMALL
    )
    return model, random_images(32, 16, 16, 3)


def text_classifier():
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, draw.integers(1, 9))) for _ in range(32)]
    head = {"pooling": "lama", "pooling_heads": 2, "dropout": 0.1}
    sizes = {"embedding_dim": 10, "num_heads": 4, "num_conv_blocks": 1, **SMALL}
    model = models.CCTTextClassifier.from_texts(
        texts, 5, 8, class_names=list("abcde"), head=head, **sizes
    )
    return model, texts


def series_classifier():
    model = models.CCTSequenceClassifier(of_series()[0], 5, class_names=list("abcde"))
    return model, random_tokens(32, 9, 2)


CLASSIFIERS = [image_classifier, text_classifier, series_classifier]


def public(base):
    classes = [value for name, value in vars(models).items() if name in models.__all__]
    classes = [value for value in classes if inspect.isclass(value) and issubclass(value, base)]
    return {value for value in classes if value is not base}


def test_no_model_is_left_out():
    assert {type(make()[0]) for make in BACKBONES} == public(CCTBaseBackbone)
    assert {type(make()[0]) for make in CLASSIFIERS} == public(models.CCTClassifier)


@pytest.mark.parametrize("make", BACKBONES, ids=lambda make: make.__name__)
def test_model_checks(make, tmp_path):
    check_model(*make(), tmp_path)


@pytest.mark.parametrize("make", CLASSIFIERS, ids=lambda make: make.__name__)
def test_task_checks(make, tmp_path):
    model, inputs = make()
    check_task(model, inputs, np.arange(32) % 5, tmp_path)
