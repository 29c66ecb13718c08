"""Compact convolutional transformers with large-scale multi-head attention, for Keras 3.

Every public name is listed in `_PUBLIC` with the module that defines it and is imported on first
use, so that `import lsmha_keras` and the command line's help load no framework.
"""

import importlib

from lsmha_keras import _registration

__version__ = "0.1.0"

_PUBLIC = {
    # layers
    "LargeScaleMultiHeadAttention": "lsmha_keras.layers.large_scale_multi_head_attention",
    "ConvTokenizer": "lsmha_keras.layers.conv_tokenizer",
    "PositionEmbedding": "lsmha_keras.layers.position_embedding",
    "TransformerBlock": "lsmha_keras.layers.transformer_block",
    "ConvBlock": "lsmha_keras.layers.conv_block",
    "SequencePooling": "lsmha_keras.layers.sequence_pooling",
    "StochasticDepth": "lsmha_keras.layers.stochastic_depth",
    # kinds of attention
    "list_attention": "lsmha_keras.attention.registry",
    "register_attention": "lsmha_keras.attention.registry",
    "ClusteredHeads": "lsmha_keras.attention.clustered",
    "GroupedQueryAttention": "lsmha_keras.attention.grouped",
    "HeadEmbeddingAttention": "lsmha_keras.attention.head_embedding",
    "HiLoAttention": "lsmha_keras.attention.hilo",
    "KnockingHeads": "lsmha_keras.attention.knocking",
    "MixtureOfAttentionHeads": "lsmha_keras.attention.moa",
    "MixtureOfAttentiveExperts": "lsmha_keras.attention.mae",
    "MixtureOfHeads": "lsmha_keras.attention.moh",
    "NormLin": "lsmha_keras.attention.normlin",
    "SlicedAttention": "lsmha_keras.attention.sliced",
    "SparseHeads": "lsmha_keras.attention.sparse",
    "SubspaceAttention": "lsmha_keras.attention.subspace",
    "TalkingHeads": "lsmha_keras.attention.talking",
    "WindowedHeads": "lsmha_keras.attention.windows",
    # models
    "CCTBackbone": "lsmha_keras.models",
    "CCTImageConverter": "lsmha_keras.models",
    "CCTImageClassifierPreprocessor": "lsmha_keras.models",
    "CCTImageClassifier": "lsmha_keras.models",
    "SoftCommittee": "lsmha_keras.models",
    "load_classifier": "lsmha_keras.models",
    "list_presets": "lsmha_keras.presets",
    # use without Keras
    "Predictor": "lsmha_keras.predictor",
    "export": "lsmha_keras.exporting.export",
    # data
    "load_dataset": "lsmha_keras.data",
    "open_dataset": "lsmha_keras.data",
    "epoch_batches": "lsmha_keras.data",
    "AugmentationPolicy": "lsmha_keras.data",
    "CutMix": "lsmha_keras.data",
    "HorizontalFlip": "lsmha_keras.data",
    "MixUp": "lsmha_keras.data",
    "OneOf": "lsmha_keras.data",
    "PadCrop": "lsmha_keras.data",
    "RandAugment": "lsmha_keras.data",
    "RandomErasing": "lsmha_keras.data",
    "ResizedCrop": "lsmha_keras.data",
    # training
    "Recipe": "lsmha_keras.training.recipe",
    "train": "lsmha_keras.training.train",
    "evaluate": "lsmha_keras.training.evaluate",
    # single-head performance
    "fit_readout": "lsmha_keras.shp.readout_trainer",
    "single_head_performance": "lsmha_keras.shp.performance",
    "find_clusters": "lsmha_keras.shp.statistics",
    "BlockReadouts": "lsmha_keras.shp.readouts",
    "SHPResult": "lsmha_keras.shp.shp_result",
    "SingleHeadPerformance": "lsmha_keras.shp.callback",
    # committees
    "measure_committee": "lsmha_keras.committee.measure_committee",
    # benchmark
    "benchmark_model": "lsmha_keras.benchmark.benchmark_model",
    # studies
    "CCTHyperModel": "lsmha_keras.studies.cct_hypermodel",
    "SearchSpace": "lsmha_keras.studies.search_space",
    "Study": "lsmha_keras.studies.study",
    "search": "lsmha_keras.studies.search",
    # surgery
    "convert_attention": "lsmha_keras.surgery.convert_attention",
    "grow": "lsmha_keras.surgery.grow",
    "replace_blocks": "lsmha_keras.surgery.replace_blocks",
    "convert_torch_checkpoint": "lsmha_keras.surgery.convert_torch",
}

# Needs KerasTuner, without which `import *` and `dir` have to do.
_OPTIONAL = ("CCTHyperModel",)

__all__ = [*(name for name in _PUBLIC if name not in _OPTIONAL), "__version__"]


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)


_registration.watch({name: module for name, module in _PUBLIC.items() if name[0].isupper()})
