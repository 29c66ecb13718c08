"""Mistakes raise an `LsmhaError` that is also the built-in error of before."""

import ast
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras import errors
from lsmha_keras.text_files import read_json, read_text

NONE = "nonesuch"
MODEL = {"hidden_dim": 8, "num_layers": 1, "mlp_dim": 8, "image_shape": (8, 8, 3)}


def model(num_heads=2):
    return lsmha.CCTImageClassifier(lsmha.CCTBackbone(num_heads=num_heads, **MODEL), num_classes=3)


# Layers of no heads.
KINDS = (
    "ClusteredHeads",
    "GroupedQueryAttention",
    "HeadEmbeddingAttention",
    "HiLoAttention",
    "InteractiveHeads",
    "KnockingHeads",
    "MixtureOfAttentionHeads",
    "MixtureOfAttentiveExperts",
    "MixtureOfHeads",
    "SlicedAttention",
    "SparseHeads",
    "SubspaceAttention",
    "TalkingHeads",
    "WindowedHeads",
)

# A mistake for each name that takes arguments.
MISTAKES = {
    "LargeScaleMultiHeadAttention": lambda: lsmha.LargeScaleMultiHeadAttention(0),
    **{name: lambda name=name: getattr(lsmha, name)(0) for name in KINDS},
    "NormLin": lambda: lsmha.NormLin(0, grid_shape=(2, 2)),
    "register_attention": lambda: lsmha.register_attention("My Heads", None),
    "convert_attention": lambda: lsmha.convert_attention(model(), NONE),
    "ConvTokenizer": lambda: lsmha.ConvTokenizer(0),
    "PositionEmbedding": lambda: lsmha.PositionEmbedding((0, 1)),
    "TransformerBlock": lambda: lsmha.TransformerBlock(2, mlp_dim=0),
    "ConvBlock": lambda: lsmha.ConvBlock((2, 2), design="round"),
    "GLMixBlock": lambda: lsmha.GLMixBlock(2, 8, (2, 2)),
    "SpectralBlock": lambda: lsmha.SpectralBlock((2, 2), mlp_dim=0),
    "LAMAPooling": lambda: lsmha.LAMAPooling(2, context=NONE),
    "GRUTokenizer": lambda: lsmha.GRUTokenizer(7),
    "SequenceTokenizer": lambda: lsmha.SequenceTokenizer(8, num_layers=-1),
    "StochasticDepth": lambda: lsmha.StochasticDepth(2.0),
    "CCTBackbone": lambda: lsmha.CCTBackbone(num_heads=3, **MODEL),
    "CCTImageConverter": lambda: lsmha.CCTImageConverter(interpolation="nearest"),
    "CCTImageClassifier": lambda: lsmha.CCTImageClassifier.from_preset(NONE),
    "CCTSequenceBackbone": lambda: lsmha.CCTSequenceBackbone(8),
    "CCTSequenceClassifier": lambda: lsmha.CCTSequenceClassifier(None, 2, pooling=NONE),
    "CCTTextClassifier": lambda: lsmha.CCTTextClassifier.from_texts([""], 2, 8),
    "CCTTextClassifierPreprocessor": lambda: lsmha.CCTTextClassifierPreprocessor([], 8),
    "SoftCommittee": lambda: lsmha.SoftCommittee([]),
    "load_classifier": lambda: lsmha.load_classifier(NONE),
    "Predictor": lambda: lsmha.Predictor(NONE),
    "export": lambda: lsmha.export("cct_2_3x2", "onxx", "exported"),
    "load_dataset": lambda: lsmha.load_dataset("digits", batch_size=0),
    "open_dataset": lambda: lsmha.open_dataset("/no/such/folder"),
    "epoch_batches": lambda: lsmha.epoch_batches(None, batch_size=0),
    "AugmentationPolicy": lambda: lsmha.AugmentationPolicy([1]),
    "CutMix": lambda: lsmha.CutMix(0),
    "HorizontalFlip": lambda: lsmha.HorizontalFlip(2),
    "MixUp": lambda: lsmha.MixUp(-1),
    "OneOf": lambda: lsmha.OneOf([]),
    "PadCrop": lambda: lsmha.PadCrop(-1),
    "RandAugmentPerImage": lambda: lsmha.RandAugmentPerImage(operations=["Sharpen"]),
    "RandomErasing": lambda: lsmha.RandomErasing(2),
    "ResizedCrop": lambda: lsmha.ResizedCrop((1, 2)),
    "Recipe": lambda: lsmha.Recipe.from_dict({"modell": {}}),
    "train": lambda: lsmha.train(NONE),
    "AnnealTokenKeep": lambda: lsmha.AnnealTokenKeep(0),
    "TrainInTurns": lambda: lsmha.TrainInTurns(0),
    "MaskImportantHeads": lambda: lsmha.MaskImportantHeads("digits", max_images=0),
    "evaluate": lambda: lsmha.evaluate(NONE, "digits"),
    "fit_readout": lambda: lsmha.fit_readout(model(), "digits", epochs=0),
    "single_head_performance": lambda: lsmha.single_head_performance(
        model(), SimpleNamespace(blocks=[0]), "digits", pooling="mean"
    ),
    "find_clusters": lambda: lsmha.find_clusters(np.zeros((2, 3), bool)),
    "head_scores": lambda: lsmha.head_scores(model(), "digits", [NONE]),
    "HeadScoreTable": lambda: lsmha.HeadScoreTable({0: {"random": [1]}, 1: {"offset": [1]}}),
    "prune_heads": lambda: lsmha.prune_heads(model(), remove={0: [0, 1]}),
    "prune_steps": lambda: list(lsmha.prune_steps(model(), 2.0, "random")),
    "merge_committee": lambda: lsmha.merge_committee([model(2), model(4)]),
    "HeadSchedule": lambda: lsmha.HeadSchedule(None, {1: 2.0}),
    "share_heads": lambda: lsmha.share_heads(model(), 3, similarity={0: np.eye(2)}),
    "head_similarity": lambda: lsmha.head_similarity(NONE, "digits"),
    "explain": lambda: lsmha.explain(model(), np.zeros((8, 8, 3)), NONE),
    "explanation_curves": lambda: lsmha.explanation_curves(model(), "digits", [NONE]),
    "head_pursuit": lambda: lsmha.head_pursuit(model(), "digits", concepts={NONE: [99]}),
    "intervene_on_heads": lambda: lsmha.intervene_on_heads(model(), "digits", [(9, 0)], [0]),
    "BlockReadouts": lambda: lsmha.BlockReadouts({}),
    "SHPResult": lambda: lsmha.SHPResult(0, np.zeros((1, 2, 3)), np.ones(2)),
    "SHPCallback": lambda: lsmha.SHPCallback("digits", "digits", every=0),
    "measure_committee": lambda: lsmha.measure_committee(
        lsmha.SoftCommittee([model(), model()]), (np.zeros((1, 8, 8, 3)), np.array([3])), verbose=0
    ),
    "benchmark_model": lambda: lsmha.benchmark_model(NONE),
    "SearchSpace": lambda: lsmha.SearchSpace.from_dict({"width": 3}),
    "Study": lambda: lsmha.Study.from_dict({"spaces": {}}),
    "search": lambda: lsmha.search(NONE),
    "replace_blocks": lambda: lsmha.replace_blocks(model(), 5),
    "grow": lambda: lsmha.grow(model(), mlp_dim=4),
    "convert_torch_checkpoint": lambda: lsmha.convert_torch_checkpoint({"weight": [1.0]}),
}
NO_MISTAKES = {
    "LsmhaError",
    "SequencePooling",  # takes what Keras's layers take
    "CCTImageClassifierPreprocessor",  # likewise
    "list_attention",  # takes nothing
    "list_presets",  # of no preset is an empty list
    "CCTHyperModel",  # takes a SearchSpace
    "Explanation",  # made by `explain`
    "HeadPursuit",  # made by `head_pursuit`
}
NEEDS_KERAS_TUNER = {"SearchSpace", "Study", "search"}


def test_every_public_name_is_tried():
    assert MISTAKES.keys() | NO_MISTAKES == lsmha._PUBLIC.keys()


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_ours_and_value_errors(name):
    if name in NEEDS_KERAS_TUNER:
        pytest.importorskip("keras_tuner")
    with pytest.raises(lsmha.LsmhaError, match="Received: ") as raised:
        MISTAKES[name]()
    assert isinstance(raised.value, ValueError)


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("error", "built_in"),
    [
        (errors.InputError, ValueError),
        (errors.InputTypeError, TypeError),
        (errors.ImageSizeError, ValueError),
        (errors.PackageError, ImportError),
        (errors.MissingFileError, FileNotFoundError),
        (errors.StorageError, OSError),
        (errors.DirectoryInUseError, BlockingIOError),
        (errors.UnreachableError, ConnectionError),
        (errors.RunError, RuntimeError),
    ],
)
def test_every_error_is_also_the_built_in_one(error, built_in):
    with pytest.raises(built_in, match="^What is wrong$") as raised:
        raise error("What is wrong")
    assert isinstance(raised.value, errors.LsmhaError)


BUILT_IN = {"ValueError", "ImportError", "RuntimeError", "OSError", "FileNotFoundError"}


@pytest.mark.backend_free
def test_no_module_raises_a_built_in_error():
    """The command line would take it for a bug."""
    found = []
    for path in pathlib.Path(lsmha.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                if ast.unparse(node.exc.func) in BUILT_IN:
                    found.append(f"{path}:{node.lineno}")
    assert not found, "raise one of lsmha_keras/errors.py"


@pytest.mark.backend_free
def test_files_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'{"a": "\xff"}')
    for read in (read_text, read_json):
        with pytest.raises(errors.InputError, match=r"x\.json is not a text file in UTF-8"):
            read(path)
    path.write_text('{"a": 1')
    with pytest.raises(errors.InputError, match=r"x\.json is not JSON\. Received: .*line 1"):
        read_json(path)
    path.write_text('{"a": "ä"}', encoding="utf-8")
    assert read_json(path) == {"a": "ä"}
