"""Sequences: backbone and classifiers of ids, texts and series."""

import importlib.util

import keras
import numpy as np
import pytest

import lsmha_keras
from lsmha_keras.models import (
    CCTClassifier,
    CCTImageClassifier,
    CCTSequenceBackbone,
    CCTSequenceClassifier,
    CCTTextClassifier,
    CCTTextClassifierPreprocessor,
    load_classifier,
)
from tests.checks import (
    check_all_weights_train,
    random_tokens,
    to_numpy,
)

SMALL = {"hidden_dim": 12, "num_layers": 2, "num_heads": 3, "mlp_dim": 16}
IDS = {**SMALL, "vocabulary_size": 30, "embedding_dim": 10}
# Kinds of attention and blocks with weights for each place, or windows over all of them.
WITHOUT_MASKS = ("hilo", "super", "normlin")
TEXTS = ["What is a cat ?", "Who is Ada Lovelace ?", "How far is it ?", "a cat is far"]


def random_ids(lengths, time, vocabulary_size=30):
    ids = np.random.default_rng(0).integers(1, vocabulary_size, (len(lengths), time))
    return np.where(np.arange(time) < np.array(lengths)[:, None], ids, 0).astype("int32")


def copy_of(model, **changes):
    """A model of another length with the same weights, but for positions beyond its length."""
    other = type(model).from_config({**model.get_config(), **changes})
    for layer in model.layers:
        copy = other.get_layer(layer.name)
        weights = layer.get_weights()
        if layer.name == "position_embedding":
            longer = copy.get_weights()  # none of sines
            for old, new in zip(weights, longer, strict=True):
                new[:, : old.shape[1]] = old
            weights = longer
        copy.set_weights(weights)
    return other


# Per block 4 C^2 + C for attention, 4 C for two normalisations, 2 C M + M + C for the perceptron.
COUNTS = {
    # 128 wide, perceptrons of 128, kernels of 4 over 300 embedding channels, 33 tokens.
    "cct_2": (
        {"num_layers": 2},
        1000 * 300 + 4 * 300 * 128 + 33 * 128 + 2 * 99_200 + 2 * 128,
    ),
    "cct_4": (
        {"num_layers": 4, "tokenizer_kernel_size": 2},
        1000 * 300 + 2 * 300 * 128 + 33 * 128 + 4 * 99_200 + 2 * 128,
    ),
    "cct_6": (
        {"num_layers": 6, "num_heads": 4, "hidden_dim": 256, "mlp_dim": 512},
        1000 * 300 + 4 * 300 * 256 + 33 * 256 + 6 * 526_336 + 2 * 256,
    ),
    # Text CVT has no convolution: embeddings are tokens, 64 of them.
    "cvt_2": (
        {"num_layers": 2, "tokenizer_layers": 0, "embedding_dim": 128},
        1000 * 128 + 64 * 128 + 2 * 99_200 + 2 * 128,
    ),
    "cvt_6": (
        {
            "num_layers": 6,
            "tokenizer_layers": 0,
            "embedding_dim": 256,
            "hidden_dim": 256,
            "mlp_dim": 512,
            "num_heads": 4,
            "position_embedding": "sine",
        },
        1000 * 256 + 6 * 526_336 + 2 * 256,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_those_of_the_references_text_models(name):
    arguments, expected = COUNTS[name]
    backbone = CCTSequenceBackbone(64, vocabulary_size=1000, **arguments)
    assert backbone.count_params() == expected


@pytest.mark.parametrize("kernel_size", [2, 4])
@pytest.mark.parametrize("attention", [k.name for k in lsmha_keras.list_attention()])
def test_longer_padding_gives_the_same(attention, kernel_size):
    arguments = {**IDS, "attention": attention, "tokenizer_kernel_size": kernel_size}
    if attention in WITHOUT_MASKS:
        with pytest.raises(ValueError, match="mask"):
            CCTSequenceBackbone(9, **arguments)
        return
    if attention == "clustered":
        arguments["attention_options"] = {"map_of_head": [0, 0, 1]}
    classifier = CCTSequenceClassifier(CCTSequenceBackbone(9, **arguments), 4)
    longer = classifier.with_backbone(copy_of(classifier.backbone, sequence_length=16))
    ids = random_ids([1, 2, 3, 4, 8, 9], 9)
    expected = classifier.predict(ids, verbose=0)
    found = longer.predict(np.pad(ids, ((0, 0), (0, 7))), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # The last word counts.
    ids[-1, -1] = ids[-1, -1] % 29 + 1
    assert np.abs(classifier.predict(ids, verbose=0)[-1] - expected[-1]).max() > 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"num_conv_blocks": 1, "conv_block_design": "reparameterized"},
        {"mlp_conv": True, "context_broadcast": True},
        {"tokenizer_layers": 0, "embedding_dim": 12, "position_embedding": "sine"},
        {"tokenizer_layers": 2},
        {"tokenizer_design": "gru", "tokenizer_layers": 2},
        {"position_embedding_join": "layer"},
        {"head_tokens": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("pooling", ["sequence", "lama"])
def test_longer_padding_gives_the_same_with_every_option(options, pooling):
    backbone = CCTSequenceBackbone(9, **{**IDS, **options})
    classifier = CCTSequenceClassifier(backbone, 4, pooling=pooling, pooling_heads=2)
    longer = classifier.with_backbone(copy_of(backbone, sequence_length=16))
    assert longer.pooling == pooling
    ids = random_ids([1, 2, 5, 9], 9)
    expected = classifier.predict(ids, verbose=0)
    found = longer.predict(np.pad(ids, ((0, 0), (0, 7))), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_padding_of_a_series_changes_nothing():
    backbone = CCTSequenceBackbone(9, num_features=2, mask_value=-1.0, **SMALL)
    classifier = CCTSequenceClassifier(backbone, 4)
    longer = classifier.with_backbone(copy_of(backbone, sequence_length=12))
    series = random_tokens(2, 9, 2)
    series[1, 5:] = -1
    found = longer.predict(np.pad(series, ((0, 0), (0, 3), (0, 0)), constant_values=-1), verbose=0)
    np.testing.assert_allclose(found, classifier.predict(series, verbose=0), atol=1e-5)


@pytest.mark.parametrize("attention", ["super", "normlin"])
def test_series_without_padding_take_every_attention(attention):
    options = {"num_heads": 4, "attention": attention}
    backbone = CCTSequenceBackbone(
        8, num_features=2, tokenizer_kernel_size=3, **{**SMALL, **options}
    )
    assert np.isfinite(to_numpy(backbone(random_tokens(2, 8, 2)))).all()


def test_the_fused_backbone_and_values_from_inside():
    backbone = CCTSequenceBackbone(9, num_conv_blocks=1, **{**IDS, "num_heads": [3]})
    ids = random_ids([9, 4], 9)
    np.testing.assert_allclose(to_numpy(backbone.fuse()(ids)), to_numpy(backbone(ids)), atol=1e-5)
    values = backbone.intermediates(["block_1/head_outputs", "output"])(ids)
    assert values["block_1/head_outputs"].shape == (2, 6, 3, 4)
    np.testing.assert_allclose(to_numpy(values["output"]), to_numpy(backbone(ids)), atol=1e-5)


@pytest.mark.parametrize("pooling", ["sequence", "lama"])
def test_every_weight_trains(pooling):
    backbone = CCTSequenceBackbone(6, num_features=3, num_conv_blocks=1, **SMALL)
    classifier = CCTSequenceClassifier(backbone, 4, pooling=pooling)
    check_all_weights_train(classifier, random_tokens(8, 6, 3), np.arange(8) % 4)


def small_text_classifier(**arguments):
    return CCTTextClassifier.from_texts(
        TEXTS, 4, 8, class_names=list("abcd"), embedding_dim=10, **{**SMALL, **arguments}
    )


def test_a_text_classifier_learns_saves_and_loads(tmp_path):
    keras.utils.set_random_seed(0)
    model = small_text_classifier(attention_dropout=0.0, stochastic_depth_rate=0.0)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(TEXTS, np.arange(4), epochs=30, verbose=0)
    assert model.evaluate(TEXTS, np.arange(4), verbose=0, return_dict=True)["accuracy"] == 1
    logits = model.predict(TEXTS, verbose=0)
    np.testing.assert_allclose(model.predict(TEXTS[2], verbose=0), logits[2:3], atol=1e-5)
    model.save_to_preset(tmp_path / "preset")
    model.save(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for loaded in (
        CCTTextClassifier.from_preset(tmp_path / "preset"),
        CCTClassifier.from_preset(tmp_path / "preset"),
        load_classifier(tmp_path / "preset"),
        keras.saving.load_model(tmp_path / "model.keras"),
        clone,
    ):
        assert type(loaded) is CCTTextClassifier and loaded.class_names == list("abcd")
        np.testing.assert_allclose(loaded.predict(TEXTS, verbose=0), logits, atol=1e-5)
    other = CCTTextClassifier.from_preset(tmp_path / "preset", num_classes=2)
    assert other.predict(TEXTS, verbose=0).shape == (4, 2) and other.class_names is None
    with pytest.raises(ValueError, match="fit no other"):
        CCTTextClassifier.from_preset(tmp_path / "preset", num_heads=6)
    with pytest.raises(ValueError, match="hold a `CCTImageClassifier`; `lsmha_keras.load_class"):
        CCTImageClassifier.from_preset(tmp_path / "preset")


def test_kinds_of_texts_give_the_same():
    model = small_text_classifier()
    expected = model.predict(TEXTS, verbose=0)
    ids = model.preprocessor(TEXTS)
    kinds = [np.array(TEXTS), np.array(TEXTS, dtype=object), ids, _Batches()]
    if importlib.util.find_spec("tensorflow") and keras.config.backend() == "tensorflow":
        import tensorflow as tf

        kinds.append(tf.data.Dataset.from_tensor_slices(TEXTS).batch(3))
    for kind in kinds:
        np.testing.assert_allclose(model.predict(kind, verbose=0), expected, atol=1e-5)
    assert np.isfinite(model.fit(_Batches(labelled=True), verbose=0).history["loss"]).all()


class _Batches(keras.utils.PyDataset):
    def __init__(self, labelled=False):
        super().__init__()
        self.labelled = labelled

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = slice(2 * index, 2 * index + 2)
        texts = np.array(TEXTS, dtype=object)[rows]
        return (texts, np.arange(4)[rows]) if self.labelled else texts


def test_words_and_ids():
    preprocessor = CCTTextClassifierPreprocessor.from_texts(TEXTS, 4)
    # "is" occurs 4 times, "?" 3 times, then by alphabet "a", "cat" and "far", twice each.
    assert preprocessor.vocabulary[:5] == ["is", "?", "a", "cat", "far"]
    np.testing.assert_array_equal(preprocessor(["Cat, IS it"]), [[5, 1, 2, 9]])
    np.testing.assert_array_equal(preprocessor("a far"), [[4, 6, 0, 0]])
    words = CCTTextClassifierPreprocessor.from_texts(["don't re-do it, 1990's"], 9).vocabulary
    assert set(words) == {"don't", "re", "-", "do", "it", ",", "1990's"}
    fewer = CCTTextClassifierPreprocessor.from_texts(TEXTS, 4, max_words=2, min_count=2)
    assert fewer.vocabulary == ["is", "?"] and fewer.vocabulary_size == 4


def test_warnings_come_once(recwarn):
    preprocessor = CCTTextClassifierPreprocessor(["word"], 2)
    with pytest.warns(UserWarning, match="cut after 2 words.*a text of 3 words"):
        np.testing.assert_array_equal(preprocessor(["word word word"]), [[2, 2]])
    with pytest.warns(UserWarning, match="none of the words"):
        preprocessor(["Ada"])
    recwarn.clear()
    preprocessor(["a b c"])
    assert not recwarn.list


BAD = {
    "empty text": (lambda m: m.predict(["fine", ""], verbose=0), "text 1, ''"),
    "number": (lambda m: m.predict(np.array(["a", 3.5], dtype=object), verbose=0), "3.5"),
    "nothing": (lambda m: m.predict([None, "a"], verbose=0), "str. Received: None"),
    "only nothing": (lambda m: m.predict([None], verbose=0), r"x\[0\]=None"),
    "unknown id": (lambda m: m.predict(np.full((1, 8), 99), verbose=0), "from 99 to 99"),
    "other length": (lambda m: m.predict(np.ones((1, 5), "int32"), verbose=0), "shape"),
    "float ids": (lambda m: m.predict(np.ones((1, 8)), verbose=0), "float64"),
    "label": (lambda m: m.fit(TEXTS, np.array([0, 1, 2, 9]), verbose=0), "from 0 to 9"),
    "vocabulary": (
        lambda m: CCTTextClassifierPreprocessor.from_texts(TEXTS, 4, min_count=9),
        "min_count=9",
    ),
    "twice": (lambda m: CCTTextClassifierPreprocessor(["a", "a"], 4), "'a' twice"),
    "no words": (lambda m: CCTTextClassifierPreprocessor([], 4), "Received: 0 words"),
    "name of data": (lambda m: m.fit("trec", verbose=0), "trec"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_texts_are_named(name):
    mistake, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        mistake(small_text_classifier())


def test_bad_series_are_named():
    model = CCTSequenceClassifier(CCTSequenceBackbone(6, num_features=3, **SMALL), 2)
    series = random_tokens(3, 6, 3)
    with pytest.raises(ValueError, match="shape"):
        model.predict(random_tokens(3, 6, 4), verbose=0)
    series[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        model.fit(series, np.zeros(3), verbose=0)
    with pytest.raises(ValueError, match="Texts need"):
        model.predict(TEXTS, verbose=0)


def test_data_of_another_kind_are_named():
    """Also where a shape fits by chance: two series of six steps are no picture of two rows."""
    text = small_text_classifier()
    series = CCTSequenceClassifier(CCTSequenceBackbone(6, num_features=3, **SMALL), 2)
    backbone = lsmha_keras.CCTBackbone((8, 8, 3), hidden_dim=8, num_layers=1, mlp_dim=8)
    image = CCTImageClassifier(backbone, 2)
    labels = np.array([0, 1])
    texts, values = np.array(TEXTS[:2], object), random_tokens(2, 6, 3)
    images = np.zeros((2, 8, 8, 3), "uint8")
    for model, samples, message in (
        (image, values, r"takes images. Received: series.*\(2, 6, 3\)"),
        (image, texts, "takes images. Received: texts"),
        (series, texts, "takes series. Received: texts"),
        (series, images, "takes series. Received: images"),
        (text, values, "takes texts. Received: series"),
        (text, images, "takes texts. Received: images"),
    ):
        with pytest.raises(ValueError, match=message):
            lsmha_keras.evaluate(model, (samples, labels))


@pytest.mark.parametrize(
    "arguments",
    [
        {"vocabulary_size": 5, "num_features": 2},
        {"vocabulary_size": 1},
        {"vocabulary_size": 5, "mask_value": 0.0},
        {"vocabulary_size": 5, "blocks": ["spectral", "attention"]},
        {"vocabulary_size": 5, "token_keep": 0.5},
        {"num_features": 2, "tokenizer_layers": 0},
        {"num_features": 2, "tokenizer_design": "lstm"},
        {"num_features": 2, "num_conv_blocks": 3},
        {"vocabulary_size": 5, "image_shape": (8, 8, 3)},
    ],
    ids=str,
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match="Received"):
        CCTSequenceBackbone(8, **arguments)


def test_surgery_works_on_sequences():
    """Removed heads are masked ones; added blocks and other kinds of attention change nothing."""
    model = small_text_classifier(num_heads=[3, 4])
    ids = model.preprocessor(TEXTS)
    pruned = lsmha_keras.prune_heads(model, remove={0: [1], 1: [0, 3]})
    masked = model.intermediates(["logits"], head_masks={0: [1, 0, 1], 1: [0, 1, 1, 0]})
    expected = to_numpy(masked(ids)["logits"])
    np.testing.assert_allclose(pruned.predict(TEXTS, verbose=0), expected, atol=1e-5)
    logits = model.predict(TEXTS, verbose=0)
    for same in (
        lsmha_keras.grow(model, num_layers=3, mlp_dim=20),
        lsmha_keras.convert_attention(model, "knocking"),
    ):
        assert type(same) is CCTTextClassifier and same.preprocessor is model.preprocessor
        np.testing.assert_allclose(same.predict(TEXTS, verbose=0), logits, atol=1e-4)
    hybrid = lsmha_keras.replace_blocks(model, 1)
    assert hybrid.backbone.block_kinds == ["conv", "attention"]
    assert np.isfinite(hybrid.predict(TEXTS, verbose=0)).all()


def test_multiply_adds_of_a_text():
    """7 tokens of 8 words; embeddings are looked up."""
    from lsmha_keras.benchmark.multiply_adds import count_multiply_adds

    backbone = CCTSequenceBackbone(8, **{**IDS, "tokenizer_kernel_size": 4})
    model = CCTSequenceClassifier(backbone, 4, pooling="lama", pooling_heads=2)
    tokens = 9 // 2 + 1
    conv = 9 * 4 * 10 * 12  # before the pooling there are 9
    block = tokens * (4 * 12 * 12 + 2 * tokens * 12 + 2 * 12 * 16)
    lama = (2 * tokens + 1) * 12 * 2
    assert count_multiply_adds(model) == conv + 2 * block + lama + 2 * 12 * 4


def test_a_gru_is_saved_and_counted(tmp_path):
    model = small_text_classifier(tokenizer_design="gru")
    model.save_to_preset(tmp_path / "preset")
    loaded = CCTTextClassifier.from_preset(tmp_path / "preset")
    expected = model.predict(TEXTS, verbose=0)
    np.testing.assert_allclose(loaded.predict(TEXTS, verbose=0), expected, atol=1e-6)
    from lsmha_keras.benchmark.multiply_adds import count_multiply_adds

    backbone = CCTSequenceBackbone(8, **IDS, tokenizer_design="gru")
    gru = 8 * 2 * 3 * 6 * (10 + 6)  # tokens, directions, gates, units, inputs and states
    block = 8 * (4 * 12 * 12 + 2 * 8 * 12 + 2 * 12 * 16)
    assert count_multiply_adds(backbone) == gru + 2 * block


def test_architectures_have_names(tmp_path):
    parsed = lsmha_keras.presets.parse_architecture("text_cct_6_2x1_sine_h16_moh_c2")
    assert parsed == {
        "sequence_length": 64,
        "num_layers": 6,
        "hidden_dim": 256,
        "num_heads": 16,
        "mlp_dim": 512,
        "tokenizer_kernel_size": 2,
        "tokenizer_layers": 1,
        "position_embedding": "sine",
        "attention": "moh",
        "num_conv_blocks": 2,
    }
    assert lsmha_keras.presets.parse_architecture("text_cct_2_4x1_ib") is None
    series = CCTSequenceClassifier.from_preset(
        "series_cct_2_3x1_h16", num_classes=3, sequence_length=8, num_features=2
    )
    assert series.image_shape == (8, 2) and series.backbone.num_heads == 16
    preprocessor = CCTTextClassifierPreprocessor.from_texts(TEXTS, 8)
    text = CCTTextClassifier.from_preset(
        "text_cct_2_4x1", num_classes=3, preprocessor=preprocessor, embedding_dim=10
    )
    assert text.predict(TEXTS, verbose=0).shape == (4, 3)
    with pytest.raises(ValueError, match="of sequences.*'text_cct_2_4x1'"):
        CCTImageClassifier.from_preset("text_cct_2_4x1", num_classes=2)
    with pytest.raises(ValueError, match="of images.*'cct_2_3x2'"):
        CCTTextClassifier.from_preset("cct_2_3x2", num_classes=2)
    backbone = lsmha_keras.CCTBackbone(
        (8, 8, 3), hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8
    )
    CCTImageClassifier(backbone, 2).save_to_preset(tmp_path / "image")
    with pytest.raises(ValueError, match="not hold a `CCTTextClassifier`"):
        CCTTextClassifier.from_preset(tmp_path / "image")
