"""Compact convolutional transformers with large-scale multi-head attention, for Keras 3.

A public name is imported on first use, so that `import lsmha_keras` and the command line's help
load no framework. `_PUBLIC` tells Python where it is, and the imports below it tell editors and
type checkers; a test keeps the two the same.
"""

from typing import TYPE_CHECKING

from lsmha_keras import _imports, old_spellings

__version__ = "0.1.0"

_PUBLIC = {
    # errors
    "LsmhaError": "lsmha_keras.errors",
    # layers
    "LargeScaleMultiHeadAttention": "lsmha_keras.layers.large_scale_multi_head_attention",
    "ConvTokenizer": "lsmha_keras.layers.conv_tokenizer",
    "PositionEmbedding": "lsmha_keras.layers.position_embedding",
    "TransformerBlock": "lsmha_keras.layers.transformer_block",
    "ConvBlock": "lsmha_keras.layers.conv_block",
    "GLMixBlock": "lsmha_keras.layers.glmix_block",
    "SpectralBlock": "lsmha_keras.layers.spectral_block",
    "SequencePooling": "lsmha_keras.layers.sequence_pooling",
    "GRUTokenizer": "lsmha_keras.layers.gru_tokenizer",
    "LAMAPooling": "lsmha_keras.layers.lama_pooling",
    "SequenceTokenizer": "lsmha_keras.layers.sequence_tokenizer",
    "StochasticDepth": "lsmha_keras.layers.stochastic_depth",
    # kinds of attention
    "list_attention": "lsmha_keras.attention.registry",
    "register_attention": "lsmha_keras.attention.registry",
    "ClusteredHeads": "lsmha_keras.attention.clustered",
    "GroupedQueryAttention": "lsmha_keras.attention.grouped",
    "HeadEmbeddingAttention": "lsmha_keras.attention.head_embedding",
    "HiLoAttention": "lsmha_keras.attention.hilo",
    "InteractiveHeads": "lsmha_keras.attention.interactive",
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
    "CCTSequenceBackbone": "lsmha_keras.models",
    "CCTSequenceClassifier": "lsmha_keras.models",
    "CCTTextClassifier": "lsmha_keras.models",
    "CCTTextClassifierPreprocessor": "lsmha_keras.models",
    "SoftCommittee": "lsmha_keras.models",
    "load_classifier": "lsmha_keras.models",
    "list_presets": "lsmha_keras.presets",
    # use without Keras
    "Predictor": "lsmha_keras.predictor",
    "export": "lsmha_keras.exporting.export",
    # data
    "load_dataset": "lsmha_keras.data",
    "open_dataset": "lsmha_keras.data.open_dataset",
    "epoch_batches": "lsmha_keras.data",
    "AugmentationPolicy": "lsmha_keras.data",
    "CutMix": "lsmha_keras.data",
    "HorizontalFlip": "lsmha_keras.data",
    "MixUp": "lsmha_keras.data",
    "OneOf": "lsmha_keras.data",
    "PadCrop": "lsmha_keras.data",
    "RandAugmentPerImage": "lsmha_keras.data",
    "RandomErasing": "lsmha_keras.data",
    "ResizedCrop": "lsmha_keras.data",
    # training
    "Recipe": "lsmha_keras.training.recipe",
    "train": "lsmha_keras.training.train",
    "AnnealTokenKeep": "lsmha_keras.training.block_callbacks",
    "TrainInTurns": "lsmha_keras.training.block_callbacks",
    "MaskImportantHeads": "lsmha_keras.heads.mask_important_heads",
    "evaluate": "lsmha_keras.training.evaluate",
    # single-head performance
    "fit_readout": "lsmha_keras.shp.readout_trainer",
    "single_head_performance": "lsmha_keras.shp.performance",
    "find_clusters": "lsmha_keras.shp.statistics",
    "head_scores": "lsmha_keras.shp.head_scores",
    "HeadScoreTable": "lsmha_keras.shp.head_score_table",
    "BlockReadouts": "lsmha_keras.shp.readouts",
    "SHPResult": "lsmha_keras.shp.shp_result",
    "SHPCallback": "lsmha_keras.shp.callback",
    # heads
    "explain": "lsmha_keras.heads.explain",
    "Explanation": "lsmha_keras.heads.explanation",
    "explanation_curves": "lsmha_keras.heads.curves",
    "HeadPursuit": "lsmha_keras.heads.pursuit",
    "head_pursuit": "lsmha_keras.heads.pursuit",
    "HeadSchedule": "lsmha_keras.heads.head_schedule",
    "intervene_on_heads": "lsmha_keras.heads.interventions",
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
    "prune_heads": "lsmha_keras.surgery.prune_heads",
    "merge_committee": "lsmha_keras.surgery.merge_committee",
    "share_heads": "lsmha_keras.surgery.share_heads",
    "head_similarity": "lsmha_keras.surgery.share_heads",
    "prune_steps": "lsmha_keras.surgery.prune_steps",
    "replace_blocks": "lsmha_keras.surgery.replace_blocks",
    "convert_torch_checkpoint": "lsmha_keras.surgery.convert_torch",
}

if TYPE_CHECKING:
    from lsmha_keras.attention.clustered import ClusteredHeads as ClusteredHeads
    from lsmha_keras.attention.grouped import GroupedQueryAttention as GroupedQueryAttention
    from lsmha_keras.attention.head_embedding import (
        HeadEmbeddingAttention as HeadEmbeddingAttention,
    )
    from lsmha_keras.attention.hilo import HiLoAttention as HiLoAttention
    from lsmha_keras.attention.interactive import InteractiveHeads as InteractiveHeads
    from lsmha_keras.attention.knocking import KnockingHeads as KnockingHeads
    from lsmha_keras.attention.mae import MixtureOfAttentiveExperts as MixtureOfAttentiveExperts
    from lsmha_keras.attention.moa import MixtureOfAttentionHeads as MixtureOfAttentionHeads
    from lsmha_keras.attention.moh import MixtureOfHeads as MixtureOfHeads
    from lsmha_keras.attention.normlin import NormLin as NormLin
    from lsmha_keras.attention.registry import list_attention as list_attention
    from lsmha_keras.attention.registry import register_attention as register_attention
    from lsmha_keras.attention.sliced import SlicedAttention as SlicedAttention
    from lsmha_keras.attention.sparse import SparseHeads as SparseHeads
    from lsmha_keras.attention.subspace import SubspaceAttention as SubspaceAttention
    from lsmha_keras.attention.talking import TalkingHeads as TalkingHeads
    from lsmha_keras.attention.windows import WindowedHeads as WindowedHeads
    from lsmha_keras.benchmark.benchmark_model import benchmark_model as benchmark_model
    from lsmha_keras.committee.measure_committee import measure_committee as measure_committee
    from lsmha_keras.data import AugmentationPolicy as AugmentationPolicy
    from lsmha_keras.data import CutMix as CutMix
    from lsmha_keras.data import HorizontalFlip as HorizontalFlip
    from lsmha_keras.data import MixUp as MixUp
    from lsmha_keras.data import OneOf as OneOf
    from lsmha_keras.data import PadCrop as PadCrop
    from lsmha_keras.data import RandAugmentPerImage as RandAugmentPerImage
    from lsmha_keras.data import RandomErasing as RandomErasing
    from lsmha_keras.data import ResizedCrop as ResizedCrop
    from lsmha_keras.data import epoch_batches as epoch_batches
    from lsmha_keras.data import load_dataset as load_dataset
    from lsmha_keras.data.open_dataset import open_dataset as open_dataset
    from lsmha_keras.errors import LsmhaError as LsmhaError
    from lsmha_keras.exporting.export import export as export
    from lsmha_keras.heads.curves import explanation_curves as explanation_curves
    from lsmha_keras.heads.explain import explain as explain
    from lsmha_keras.heads.explanation import Explanation as Explanation
    from lsmha_keras.heads.head_schedule import HeadSchedule as HeadSchedule
    from lsmha_keras.heads.interventions import intervene_on_heads as intervene_on_heads
    from lsmha_keras.heads.mask_important_heads import MaskImportantHeads as MaskImportantHeads
    from lsmha_keras.heads.pursuit import HeadPursuit as HeadPursuit
    from lsmha_keras.heads.pursuit import head_pursuit as head_pursuit
    from lsmha_keras.layers.conv_block import ConvBlock as ConvBlock
    from lsmha_keras.layers.conv_tokenizer import ConvTokenizer as ConvTokenizer
    from lsmha_keras.layers.glmix_block import GLMixBlock as GLMixBlock
    from lsmha_keras.layers.gru_tokenizer import GRUTokenizer as GRUTokenizer
    from lsmha_keras.layers.lama_pooling import LAMAPooling as LAMAPooling
    from lsmha_keras.layers.large_scale_multi_head_attention import (
        LargeScaleMultiHeadAttention as LargeScaleMultiHeadAttention,
    )
    from lsmha_keras.layers.position_embedding import PositionEmbedding as PositionEmbedding
    from lsmha_keras.layers.sequence_pooling import SequencePooling as SequencePooling
    from lsmha_keras.layers.sequence_tokenizer import SequenceTokenizer as SequenceTokenizer
    from lsmha_keras.layers.spectral_block import SpectralBlock as SpectralBlock
    from lsmha_keras.layers.stochastic_depth import StochasticDepth as StochasticDepth
    from lsmha_keras.layers.transformer_block import TransformerBlock as TransformerBlock
    from lsmha_keras.models import CCTBackbone as CCTBackbone
    from lsmha_keras.models import CCTImageClassifier as CCTImageClassifier
    from lsmha_keras.models import CCTImageClassifierPreprocessor as CCTImageClassifierPreprocessor
    from lsmha_keras.models import CCTImageConverter as CCTImageConverter
    from lsmha_keras.models import CCTSequenceBackbone as CCTSequenceBackbone
    from lsmha_keras.models import CCTSequenceClassifier as CCTSequenceClassifier
    from lsmha_keras.models import CCTTextClassifier as CCTTextClassifier
    from lsmha_keras.models import CCTTextClassifierPreprocessor as CCTTextClassifierPreprocessor
    from lsmha_keras.models import SoftCommittee as SoftCommittee
    from lsmha_keras.models import load_classifier as load_classifier
    from lsmha_keras.predictor import Predictor as Predictor
    from lsmha_keras.presets import list_presets as list_presets
    from lsmha_keras.shp.callback import SHPCallback as SHPCallback
    from lsmha_keras.shp.head_score_table import HeadScoreTable as HeadScoreTable
    from lsmha_keras.shp.head_scores import head_scores as head_scores
    from lsmha_keras.shp.performance import single_head_performance as single_head_performance
    from lsmha_keras.shp.readout_trainer import fit_readout as fit_readout
    from lsmha_keras.shp.readouts import BlockReadouts as BlockReadouts
    from lsmha_keras.shp.shp_result import SHPResult as SHPResult
    from lsmha_keras.shp.statistics import find_clusters as find_clusters
    from lsmha_keras.studies.cct_hypermodel import CCTHyperModel as CCTHyperModel
    from lsmha_keras.studies.search import search as search
    from lsmha_keras.studies.search_space import SearchSpace as SearchSpace
    from lsmha_keras.studies.study import Study as Study
    from lsmha_keras.surgery.convert_attention import convert_attention as convert_attention
    from lsmha_keras.surgery.convert_torch import (
        convert_torch_checkpoint as convert_torch_checkpoint,
    )
    from lsmha_keras.surgery.grow import grow as grow
    from lsmha_keras.surgery.merge_committee import merge_committee as merge_committee
    from lsmha_keras.surgery.prune_heads import prune_heads as prune_heads
    from lsmha_keras.surgery.prune_steps import prune_steps as prune_steps
    from lsmha_keras.surgery.replace_blocks import replace_blocks as replace_blocks
    from lsmha_keras.surgery.share_heads import head_similarity as head_similarity
    from lsmha_keras.surgery.share_heads import share_heads as share_heads
    from lsmha_keras.training.block_callbacks import AnnealTokenKeep as AnnealTokenKeep
    from lsmha_keras.training.block_callbacks import TrainInTurns as TrainInTurns
    from lsmha_keras.training.evaluate import evaluate as evaluate
    from lsmha_keras.training.recipe import Recipe as Recipe
    from lsmha_keras.training.train import train as train

# Needs KerasTuner, without which `import *` and `dir` have to do.
_OPTIONAL = ("CCTHyperModel",)
# The rooms whose classes are found in saved models.
_SAVED_ROOMS = ("attention", "layers", "models", "data")
_SERIALIZABLE = {
    name: module
    for name, module in _PUBLIC.items()
    if name[0].isupper() and module.split(".")[1] in _SAVED_ROOMS
}

__all__ = [*(name for name in _PUBLIC if name not in _OPTIONAL), "custom_objects", "__version__"]


def custom_objects() -> dict[str, type]:
    """Returns the classes of this package that a saved Keras model may hold.

    Needed only where Keras is imported after this package and nothing of it has been used yet.

    Returns:
        dict from registered names to classes, for Keras's `custom_objects` arguments.

    Example:

    ```python
    import lsmha_keras as lsmha
    import keras

    model = keras.saving.load_model("model.keras", custom_objects=lsmha.custom_objects())
    ```
    """
    return {f"lsmha_keras>{name}": _find(name) for name in _SERIALIZABLE}


def _find(name):
    if name in old_spellings.NAMES:
        old_spellings.warn_of(f"`lsmha_keras.{name}`", f"`{old_spellings.NAMES[name]}`")
        return _find(old_spellings.NAMES[name])
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_imports.import_quietly(_PUBLIC[name]), name)
    globals()[name] = value
    _imports.register(_SERIALIZABLE)
    return value


if not TYPE_CHECKING:  # a type checker would believe in every name
    __getattr__ = _find


def __dir__():
    return sorted(__all__)


_imports.register(_SERIALIZABLE)
