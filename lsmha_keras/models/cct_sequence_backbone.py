"""The compact convolutional transformer for texts and series, without its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import own_arguments, positive_int
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.layers.gru_tokenizer import GRUTokenizer
from lsmha_keras.layers.sequence_tokenizer import SequenceTokenizer
from lsmha_keras.layers.weight_arguments import initial_values
from lsmha_keras.models.cct_base_backbone import CCTBaseBackbone
from lsmha_keras.models.preset_arguments import check_arguments
from lsmha_keras.words import PADDING_ID

_TOKENIZERS = ("plain", "gru")
# Kinds of blocks and of attention that mix all places of a sequence, padding too.
_WITHOUT_MASKS = ("spectral", "glmix", "hilo", "super", "normlin")


@keras.saving.register_keras_serializable(package="lsmha_keras")
class CCTSequenceBackbone(CCTBaseBackbone):
    """Compact convolutional transformer for sequences: token ids, or series of measurements.

    Ids pass an embedding; then ids and series pass a 1-D convolutional tokenizer, a position
    embedding and the same blocks as the image model's, on a grid of one column. Padding at the end
    of a sequence changes nothing: convolutions see zeros there, and attention leaves it out.

    The defaults are text CCT-2 of the reference, but for positions that are learned.

    Args:
        sequence_length: int, number of ids or time steps of an input.
        vocabulary_size: int, number of different ids, with 0 for padding; `None` for series.
            Defaults to `None`.
        num_features: int, number of measurements of a time step; `None` for ids. Defaults to
            `None`.
        mask_value: float; the last time steps of a series whose measurements all have this value
            are padding. `None` for series without padding, and for ids. Defaults to `None`.
        embedding_dim: int, width of the embedding of ids. Defaults to `300`.
        spatial_dropout: float in [0, 1), dropout of that embedding, in whole channels of a text.
            Defaults to `0.0`.
        hidden_dim: int, width of the tokens. Defaults to `128`.
        num_layers: int, number of blocks. Defaults to `2`.
        num_heads: int, or a list with one int per transformer block. Defaults to `2`.
        mlp_dim: int, width of the hidden layer of the perceptrons. Defaults to `128`.
        tokenizer_layers: int, convolutions of the tokenizer. With 0 the tokens are the ids'
            embeddings, or the series, as in text CVT. Defaults to `1`.
        tokenizer_kernel_size: int, length of their kernels. Defaults to `4`.
        tokenizer_filters: int, filters of all of them but the last. Defaults to `64`.
        tokenizer_design: `"plain"`, convolutions, or `"gru"`, a bidirectional GRU of
            `tokenizer_layers` layers, one token for each word or time step, as in the text models
            of LAMA; see `GRUTokenizer`. Defaults to `"plain"`.
        head_dim, num_conv_blocks, conv_block_design, fused_conv_blocks, position_embedding,
            dropout_rate, attention_dropout, stochastic_depth_rate, use_qkv_bias,
            layer_norm_epsilon, attention, attention_options, blocks, head_dropout, mlp, mlp_conv,
            context_broadcast, position_embedding_join, head_dropout_by, head_tokens, dtype: as in
            `CCTBackbone`. Kinds of attention and blocks that take
            no mask are for series without padding.
        token_keep, token_reduction, token_return_after: for `CCTBackbone`; all tokens are kept.
        **kwargs: base model arguments, such as `name`.

    Returns:
        Called on ids `(batch, sequence_length)` or series `(batch, sequence_length, num_features)`:
        tokens `(batch, tokens, hidden_dim)` in the compute dtype.

    Raises:
        ValueError: if not one of `vocabulary_size` and `num_features` is given, a kind of block
            cannot leave padding out, or an argument is unknown or out of range; see `CCTBackbone`.

    Example:

    ```python
    backbone = lsmha_keras.CCTSequenceBackbone(32, vocabulary_size=1000, num_heads=16)
    tokens = backbone(np.array([[5, 7, 2] + 29 * [0]]))  # (1, 17, 128)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704), appendix on text
    """

    def __init__(
        self,
        sequence_length: int,
        vocabulary_size: int | None = None,
        num_features: int | None = None,
        mask_value: float | None = None,
        embedding_dim: int = 300,
        spatial_dropout: float = 0.0,
        hidden_dim: int = 128,
        num_layers: int = 2,
        num_heads: int | Sequence[int] = 2,
        head_dim: int | Sequence[int | None] | None = None,
        mlp_dim: int = 128,
        tokenizer_layers: int = 1,
        tokenizer_kernel_size: int = 4,
        tokenizer_filters: int = 64,
        tokenizer_design: str = "plain",
        num_conv_blocks: int = 0,
        conv_block_design: str = "separable",
        fused_conv_blocks: bool = False,
        position_embedding: str = "learnable",
        position_embedding_join: str = "input",
        dropout_rate: float = 0.0,
        attention_dropout: float = 0.1,
        stochastic_depth_rate: float = 0.1,
        use_qkv_bias: bool = False,
        layer_norm_epsilon: float = 1e-05,
        attention: str | Sequence[str] = "multi_head",
        attention_options: Any = None,
        blocks: Sequence[str] | None = None,
        head_dropout: float = 0.0,
        mlp: str = "perceptron",
        mlp_conv: bool = False,
        context_broadcast: bool = False,
        head_dropout_by: str = "random",
        head_tokens: int = 0,
        token_keep: float | Sequence[float] = 1.0,
        token_reduction: str = "fuse",
        token_return_after: int = 1,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        arguments = own_arguments(locals())
        check_arguments(kwargs, CCTSequenceBackbone)
        _check_front(arguments)
        _check_token_keep(arguments["token_keep"])
        # `embed` and `padding_mask` read them while `connect` runs the layers.
        self.vocabulary_size = arguments["vocabulary_size"]
        self.mask_value = arguments["mask_value"]
        if self.has_padding:
            _check_masks([*_listed(blocks), *_listed(attention)])

        # === Layers ===
        if self.vocabulary_size is not None:
            self.embedding = keras.layers.Embedding(
                self.vocabulary_size,
                embedding_dim,
                embeddings_initializer=initial_values(keras.initializers.RandomNormal(stddev=0.1)),
                dtype=dtype,
                name="embedding",
            )
            self.word_dropout = keras.layers.SpatialDropout1D(
                spatial_dropout, dtype=dtype, name="word_dropout"
            )
        options = {"num_layers": tokenizer_layers, "dtype": dtype, "name": "tokenizer"}
        if tokenizer_design == "gru":
            self.tokenizer = GRUTokenizer(hidden_dim, **options)
        else:
            self.tokenizer = SequenceTokenizer(
                hidden_dim,
                kernel_size=tokenizer_kernel_size,
                num_filters=tokenizer_filters,
                **options,
            )
        tokens = self.tokenizer.num_tokens((None, sequence_length, embedding_dim))
        self.make_layers(arguments, (tokens, 1), dtype)

        # === Functional Model and Config ===
        if num_features is None:
            inputs = keras.Input((sequence_length,), dtype="int32", name="ids")
        else:
            inputs = keras.Input((sequence_length, num_features), name="series")
        self.connect(inputs, arguments, dtype=dtype, **kwargs)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of an input without the batch: `(time,)` or `(time, features)`."""
        return tuple(self.input_shape[1:])

    @property
    def extent(self) -> tuple[int, int]:
        """Words or time steps that the tokens cover, by 1: as many for each token in all models."""
        stride = getattr(self.tokenizer, "stride", 1)  # 1 where each step has a token of its own
        return self.position_embedding_layer.grid_shape[0] * stride, 1

    @property
    def has_padding(self) -> bool:
        """Whether inputs may end with padding."""
        return self.vocabulary_size is not None or self.mask_value is not None

    def embed(self, inputs: Any, training: bool | None = None) -> Any:
        """Makes tokens `(batch, tokens, hidden_dim)` of ids or series."""
        x = inputs
        if self.vocabulary_size is not None:
            x = self.word_dropout(self.embedding(inputs), training=training)
        return self.tokenizer(x, padding_mask=self.padding_mask(inputs))

    def over_inputs(self, tokens: np.ndarray, inputs: Any) -> np.ndarray:
        """Spreads shares of tokens, `(batch, ..., tokens)`, over words or steps: `(..., time)`."""
        places = np.arange(self.sequence_length)
        rows = zip(tokens, self.count_inputs(inputs), strict=True)
        # Without it each step has a token of its own.
        sources = getattr(self.tokenizer, "token_sources", np.diag)
        return np.stack([row @ sources(places < count) for row, count in rows])

    def count_inputs(self, inputs: Any) -> list[int]:
        """Counts the words or time steps of each text or series, without padding at its end."""
        mask = self.padding_mask(ops.convert_to_tensor(inputs))
        if mask is None:
            return [self.sequence_length] * len(inputs)
        return [int(row.nonzero()[0].max(initial=-1)) + 1 for row in ops.convert_to_numpy(mask)]

    def padding_mask(self, inputs: Any) -> Any:
        """Returns which ids or time steps are no padding, boolean `(batch, sequence_length)`."""
        if self.vocabulary_size is not None:
            return ops.not_equal(inputs, PADDING_ID)
        if self.mask_value is not None:
            return ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)
        return None

    def token_mask(self, inputs: Any) -> Any:
        """Returns which tokens are no padding, boolean `(batch, tokens)`; `None`: all of them."""
        mask = self.padding_mask(inputs)
        return None if mask is None else self.tokenizer.token_mask(mask)


def _check_masks(kinds):
    if found := [kind for kind in kinds if kind in _WITHOUT_MASKS]:
        raise InputError(
            f"{', '.join(_WITHOUT_MASKS)} mix all places of a sequence and take no mask of its "
            "padding: they are for series without `mask_value`. Received: blocks with "
            f"{', '.join(found)}"
        )


def _listed(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _check_token_keep(token_keep):
    if any(keep != 1 for keep in _listed(token_keep)):
        raise InputError(
            "Tokens of sequences are all kept: which of them are padding is not known of those "
            f"that would be left. Received: token_keep={token_keep}"
        )


def _check_front(front):
    if (design := front["tokenizer_design"]) not in _TOKENIZERS:
        raise InputError(
            f"`tokenizer_design` must be one of {', '.join(_TOKENIZERS)}"
            f"{nearest(design, _TOKENIZERS)}. Received: tokenizer_design={design!r}"
        )
    for name in ("sequence_length", "embedding_dim"):
        positive_int(name, front[name])
    vocabulary_size, num_features = front["vocabulary_size"], front["num_features"]
    if (vocabulary_size is None) == (num_features is None):
        raise InputError(
            "Give `vocabulary_size` for token ids or `num_features` for series, one of the two. "
            f"Received: vocabulary_size={vocabulary_size}, num_features={num_features}"
        )
    if num_features is not None:
        positive_int("num_features", num_features)
        return
    if positive_int("vocabulary_size", vocabulary_size) < 2:
        raise InputError(
            "`vocabulary_size` counts the id of padding, 0, and must be at least 2. "
            f"Received: vocabulary_size={vocabulary_size}"
        )
    if front["mask_value"] is not None:
        raise InputError(
            "`mask_value` is for series: the padding of ids is 0. "
            f"Received: mask_value={front['mask_value']}"
        )
