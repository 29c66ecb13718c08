"""A small text classifier, the same with longer padding, and texts for the tests of heads."""

import keras
import numpy as np

import lsmha_keras as lsmha
from lsmha_keras.data.sequences import SequenceDataset
from lsmha_keras.models import CCTTextClassifier, CCTTextClassifierPreprocessor

LABELS, LENGTH, LONGER = 4, 9, 16
NAMES = ["number", "person", "place", "thing"]
_WORDS = ("how many far", "who king poet", "where city river", "what colour stone")


def questions(count=32, seed=0):
    """Texts of one to nine words, most of which tell the label, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % LABELS
    pools = [f"{words} the of is a".split() for words in _WORDS]
    return [" ".join(rng.choice(pools[k], rng.integers(1, 10))) for k in labels], labels


def question_data(count=32, seed=0):
    """The same as a dataset."""
    return SequenceDataset(*questions(count, seed), NAMES)


def text_classifier(seed=0, **arguments):
    """Two blocks of 4 heads; kernels are large, so that heads differ from word to word."""
    keras.utils.set_random_seed(seed)
    options = {"hidden_dim": 16, "num_heads": 4, "mlp_dim": 16, "embedding_dim": 8}
    vocabulary = sorted({word for words in _WORDS for word in words.split()} | {"the", "of", "is"})
    preprocessor = CCTTextClassifierPreprocessor(vocabulary, LENGTH)
    head = {name: arguments.pop(name) for name in ("pooling",) if name in arguments}
    backbone = lsmha.CCTSequenceBackbone(
        LENGTH, preprocessor.vocabulary_size, **{**options, **arguments}
    )
    model = CCTTextClassifier(backbone, LABELS, preprocessor, class_names=NAMES, **head)
    rng = np.random.default_rng(seed)
    for weight in sorted(model.trainable_weights, key=lambda weight: weight.path):
        if weight.path.endswith(("kernel", "embeddings")):
            weight.assign(rng.normal(0, 0.4, weight.shape))
    return model


def with_longer_padding(model, length=LONGER):
    """The same model for longer texts, so that the same texts are padded further."""
    backbone = type(model.backbone).from_config(
        {**model.backbone.get_config(), "sequence_length": length}
    )
    for layer in model.backbone.layers:
        weights, copy = layer.get_weights(), backbone.get_layer(layer.name)
        if layer.name == "position_embedding":
            (longer,) = copy.get_weights()
            longer[:, : weights[0].shape[1]] = weights[0]
            weights = [longer]
        copy.set_weights(weights)
    other = model.with_backbone(backbone)
    preprocessor = CCTTextClassifierPreprocessor(model.preprocessor.vocabulary, length)
    object.__setattr__(other, "preprocessor", preprocessor)
    return other
