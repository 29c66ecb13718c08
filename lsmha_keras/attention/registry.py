"""Names of the kinds of attention that a backbone can be made of."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re

from lsmha_keras.errors import InputError, InputTypeError, nearest

_LAYERS = "lsmha_keras.layers.large_scale_multi_head_attention"
_HERE = "lsmha_keras.attention"


@dataclasses.dataclass(frozen=True)
class AttentionKind:
    """A kind of attention.

    Attributes:
        name: str, what `CCTBackbone(attention=...)` takes.
        description: str, one line.
        layer: subclass of `LargeScaleMultiHeadAttention`, or where to import it from,
            `"module:Class"`.
        options: dict of the layer's arguments that this name stands for.
    """

    name: str
    description: str
    layer: type | str
    options: dict = dataclasses.field(default_factory=dict)

    def __str__(self):
        return f"{self.name:15} {self.description}"

    def load_layer(self):
        """Returns the layer's class."""
        if isinstance(self.layer, str):
            module, _, name = self.layer.partition(":")
            return getattr(importlib.import_module(module), name)
        return self.layer


_KINDS: dict[str, AttentionKind] = {}


def _add(name, description, layer, **options):
    _KINDS[name] = AttentionKind(name, description, layer, options)


_add(
    "multi_head",
    "queries, keys and values of each head",
    f"{_LAYERS}:LargeScaleMultiHeadAttention",
)
_add(
    "grouped",
    "groups of four heads share keys and values",
    f"{_HERE}.grouped:GroupedQueryAttention",
)
_add(
    "multi_query",
    "all heads share keys and values",
    f"{_HERE}.grouped:GroupedQueryAttention",
    num_kv_heads=1,
)
_add("moh", "mixture of heads: each token chooses heads", f"{_HERE}.moh:MixtureOfHeads")
_add(
    "moa",
    "mixture of attention heads: chosen heads on shared keys and values",
    f"{_HERE}.moa:MixtureOfAttentionHeads",
)
_add(
    "mae",
    "mixture of attentive experts: each image weights the heads",
    f"{_HERE}.mae:MixtureOfAttentiveExperts",
)
_add(
    "knocking",
    "heads exchange features by a shared matrix, which folds away",
    f"{_HERE}.knocking:KnockingHeads",
)
_add(
    "knocking_gated",
    "heads exchange features of their values by a shared gated unit",
    f"{_HERE}.knocking:KnockingHeads",
    gated=True,
)
_add("talking", "heads exchange scores and weights", f"{_HERE}.talking:TalkingHeads")
_add(
    "eit",
    "enhanced interactive: queries of each head meet the keys of all",
    f"{_HERE}.interactive:InteractiveHeads",
)
_add(
    "head_embedding",
    "one projection for all heads, and an embedding of each head",
    f"{_HERE}.head_embedding:HeadEmbeddingAttention",
)
_add(
    "optimised",
    "values are slices of the tokens",
    f"{_HERE}.sliced:SlicedAttention",
)
_add(
    "efficient",
    "keys and values are slices of the tokens",
    f"{_HERE}.sliced:SlicedAttention",
    slice_keys=True,
)
_add(
    "super",
    "keys and values are slices, and tokens are mixed first",
    f"{_HERE}.sliced:SlicedAttention",
    slice_keys=True,
    mix_tokens=True,
)
_add("hilo", "windows for some heads, pooled tokens for the others", f"{_HERE}.hilo:HiLoAttention")
_add("windows", "each head sees its own distance", f"{_HERE}.windows:WindowedHeads")
_add("clustered", "groups of heads share their score maps", f"{_HERE}.clustered:ClusteredHeads")
_add("subspace", "one projection is query, key and value", f"{_HERE}.subspace:SubspaceAttention")
_add("sparse", "weights that are zero for most tokens", f"{_HERE}.sparse:SparseHeads")
_add("normlin", "learnt weights that no image changes, a control", f"{_HERE}.normlin:NormLin")

_SHIPPED = frozenset(_KINDS)


def list_attention() -> list[AttentionKind]:
    r"""Lists the kinds of attention, those of this package and registered ones.

    Returns:
        A list of `AttentionKind`; printed, each is one line.

    Example:

    ```python
    print(*lsmha_keras.list_attention(), sep="\n")
    ```
    """
    return list(_KINDS.values())


def attention_names():
    """Returns the names that `CCTBackbone(attention=...)` takes."""
    return list(_KINDS)


def register_attention(name: str, layer: type, description: str = "") -> None:
    """Makes a kind of attention of your own available by name.

    Backbones, presets, single-head performance, benchmarks and studies take it like those of this
    package. A process that loads a preset with it must register it first.

    Args:
        name: str of small letters, words joined by `_`. It becomes part of preset names.
        layer: subclass of `LargeScaleMultiHeadAttention` that overrides `build_heads` and `attend`,
            and `count_multiply_adds` and `get_config` where they differ.
        description: str, one line for `list_attention`.

    Raises:
        ValueError: if the name is taken by this package or not made of small letters.
        TypeError: if the layer is no such subclass.

    Example:

    ```python
    class UniformHeads(lsmha_keras.LargeScaleMultiHeadAttention):
        def attend(self, x, padding_mask, training, return_attention_scores):
            return super().attend(0 * x, padding_mask, training, return_attention_scores)

    lsmha_keras.register_attention("uniform", UniformHeads, "every token counts alike")
    backbone = lsmha_keras.CCTBackbone(attention="uniform")
    ```
    """
    from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention

    if not isinstance(name, str) or not re.fullmatch(r"[a-z]+(_[a-z]+)*", name):
        raise InputError(
            f"A kind of attention is named by small letters, joined by _. Received: name={name!r}"
        )
    if name in _SHIPPED:
        raise InputError(f"This package has a kind of that name. Received: name={name!r}")
    if not (isinstance(layer, type) and issubclass(layer, LargeScaleMultiHeadAttention)):
        raise InputTypeError(
            "`layer` must be a subclass of `LargeScaleMultiHeadAttention`, whose `attend` it "
            f"overrides. Received: layer={layer!r}"
        )
    _KINDS[name] = AttentionKind(name, description, layer)


def find_attention(name):
    """Returns the `AttentionKind` of a name.

    Raises:
        ValueError: if the name is unknown; the nearest is named.
    """
    if name not in _KINDS:
        raise InputError(
            f"Unknown attention{nearest(name, _KINDS)}; `lsmha_keras.list_attention()` lists all, "
            f"and your own are registered first. Received: attention={name!r}"
        )
    return _KINDS[name]


def check_options(attention, options=None):
    """Refuses a name or options that do not exist.

    Args:
        attention: str.
        options: dict of arguments that only this kind has, or `None`.

    Returns:
        The `AttentionKind`.

    Raises:
        ValueError: if the name or an option is unknown; the nearest is named.
    """
    from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention

    kind = find_attention(attention)
    apart = {*_parameters(LargeScaleMultiHeadAttention), *kind.options, "grid_shape"}
    known = [name for name in _parameters(kind.load_layer()) if name not in apart]
    for option in options or {}:
        if option not in known:
            listed = f"has the options {', '.join(known)}" if known else "has no options"
            raise InputError(
                f"Attention {attention!r} {listed}{nearest(option, known)}. "
                f"Received: attention_options with {option!r}"
            )
    return kind


def needs_grid(attention, options=None):
    """Returns whether a kind works only on all tokens of a grid.

    Args:
        attention: str.
        options: dict of arguments that only this kind has, or `None`.
    """
    kind = find_attention(attention)
    known = _parameters(kind.load_layer())
    if "mix_tokens" in known:  # the one kind that takes a grid without always needing it
        return bool({**kind.options, **(options or {})}.get("mix_tokens"))
    return "grid_shape" in known


def check_token_options(attention, options, head_tokens, token_keep):
    """Refuses options of tokens that a kind of attention cannot have.

    Args:
        attention: str.
        options: dict of arguments that only this kind has, or `None`.
        head_tokens: int, tokens that are added.
        token_keep: float, share of the tokens that stay afterwards.

    Raises:
        ValueError: if tokens are added where a grid is needed, or some are left out by the scores
            of a kind that has none.
    """
    if head_tokens and needs_grid(attention, options):
        raise InputError(
            f"Attention {attention!r} sees the tokens of a grid and no others: leave out "
            f"`head_tokens`, or take another kind. Received: head_tokens={head_tokens}"
        )
    if token_keep < 1 and not find_attention(attention).load_layer().has_scores:
        raise InputError(
            f"Attention {attention!r} has no scores, by which tokens are chosen that stay: leave "
            f"out `token_keep`, or take another kind. Received: token_keep={token_keep}"
        )


def make_attention(attention, num_heads, grid_shape=None, options=None, **arguments):
    """Makes an attention layer by its name.

    Args:
        attention: str.
        num_heads: int.
        grid_shape: `(grid_height, grid_width)` of the tokens, or `None` if it is unknown.
        options: dict of arguments that only this kind has, or `None`.
        **arguments: arguments that every kind has, such as `head_dim` and `dropout`.

    Raises:
        ValueError: if the name or an option is unknown, or the kind needs a grid and there is none.
    """
    kind = check_options(attention, options)
    layer, options = kind.load_layer(), dict(options or {})
    if "grid_shape" in _parameters(layer):
        if grid_shape is None:
            raise InputError(
                f"Attention {attention!r} needs the grid of its tokens. Received: grid_shape=None"
            )
        arguments["grid_shape"] = grid_shape
    return layer(num_heads, **arguments, **kind.options, **options)


def _parameters(layer):
    names = inspect.signature(layer.__init__).parameters
    return [name for name in names if name not in ("self", "kwargs")]
