"""Merges a committee into one model: members are aligned, then averaged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from lsmha_keras._imports import needed_package
from lsmha_keras.errors import InputError
from lsmha_keras.layers.weight_arguments import built_with_weights
from lsmha_keras.models.cct_classifier import CCTClassifier
from lsmha_keras.models.committee_members import (
    check_members,
    group_by_preprocessing,
    load_members,
)
from lsmha_keras.models.copy_weights import check_full_precision

# What the name of a group of heads ends with; they are aligned in their own way.
_HEADS = "/heads"
# Rounds over all channels; a handful is enough.
_SWEEPS = 20
# What may differ between members: it changes training alone.
_TRAINING_ONLY = (
    "name",
    "trainable",
    "dtype",
    "dropout_rate",
    "spatial_dropout",
    "attention_dropout",
    "stochastic_depth_rate",
    "head_dropout",
)
# Kernels of convolutions, without those that are parallel to them; depthwise ones have one filter.
_CONV = re.compile(r"(tokenizer|block_\d+)/conv_\w+?(/conv)?/kernel$")
_EMBEDDINGS = "embedding/embeddings"


def merge_committee(members: Sequence[Any]) -> CCTClassifier:
    """Makes one model out of the members of a committee.

    Heads, hidden units of perceptrons and channels can stand in any order, so members that were
    trained apart are not alike weight by weight even where they compute the same. Each member is
    brought to the order of the first one: channels and hidden units by the assignment with the
    largest sum of inner products of their weights, in turn until nothing changes; heads by an
    assignment too, by the inner products of `W_q W_k'` and `W_v W_o`, which do not depend on the
    basis that a head uses inside; that basis is then turned to fit, too. No data are needed.

    Members that are the same but for these orders merge to what each of them computes, to rounding.
    Others lose accuracy, much of it if they were trained from different random weights: fine-tune
    the merged model, with the committee as its teacher (`distill_from`).

    Args:
        members: a `SoftCommittee`, or a list of at least two classifiers of images, texts or
            series, or names or directories of presets; of one layout, with plain attention, and of
            one vocabulary. They are left as they are.

    Returns:
        A new classifier of the members' class, as fast as one of them, with the mean of the aligned
        weights.

    Raises:
        ImportError: if SciPy is missing.
        ValueError: if there are fewer than two members, they answer different questions, differ in
            layout or preprocessing, one is quantised or has LoRA, or a kind of attention or block
            cannot be aligned.

    Example:

    ```python
    members = [
        lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16", num_classes=10)
        for _ in range(2)
    ]
    merged = lsmha_keras.merge_committee(members)
    merged.distill_from(lsmha_keras.SoftCommittee(members))  # then `compile` and `fit`
    ```

    References:
        - [Ainsworth et al., 2023](https://arxiv.org/abs/2209.04836), weight matching
        - [Singh and Jaggi, 2020](https://arxiv.org/abs/1910.05653), fusion by optimal transport
    """
    members = _check(members)
    first, *others = [_read(member) for member in members]
    sums = {path: values.copy() for path, values in first.items()}
    axes = _axes(members[0].backbone, first)
    for other in others:
        for path, values in _aligned(first, other, axes).items():
            sums[path] += values
    means = {path: values / len(members) for path, values in sums.items()}
    return built_with_weights(lambda: _with_weights(members[0], means))


def _check(members):
    members = load_members(getattr(members, "members", members))
    if len(members) < 2:
        raise InputError(
            f"A committee that is merged has two members at least. Received: {len(members)}"
        )
    check_members(members)
    if len(group_by_preprocessing(members)[0]) > 1:
        raise InputError(
            "Members that are merged must preprocess images alike, or texts by one vocabulary. "
            "Received: preprocessors that differ"
        )
    layouts = []
    for member in members:
        check_full_precision(member, "is merged")
        config = member.backbone.get_config()
        layout = {k: v for k, v in config.items() if k not in _TRAINING_ONLY}
        layouts.append(layout | {k: getattr(member, k, None) for k in ("pooling", "pooling_heads")})
    for number, layout in enumerate(layouts[1:], 1):
        if differing := [key for key in layout if layout[key] != layouts[0][key]]:
            key = differing[0]
            raise InputError(
                "Members that are merged must have one layout; a `SoftCommittee` takes any. "
                f"Received: {key}={layouts[0][key]!r} of member 0 and {layout[key]!r} of member "
                f"{number}"
            )
    for index, block in enumerate(members[0].backbone.blocks):
        kind = getattr(block, "attention_kind", "multi_head")
        if kind != "multi_head":
            raise InputError(
                "Heads of plain attention can be aligned; `lsmha_keras.convert_attention(model, "
                f"'multi_head')` comes first. Received: attention={kind!r} in block {index}"
            )
    return members


def _read(member):
    """Returns `{path: float64 array}`; kernels of attention are split into heads."""
    found = {}
    for weight in member.weights:
        values = ops.convert_to_numpy(ops.cast(weight, "float32")).astype("float64")
        found[weight.path] = values
    if getattr(member, "pooling", None) == "lama":  # its means, one after the other
        kernel = found["predictions/kernel"]
        found["predictions/kernel"] = kernel.reshape(member.pooling_heads, -1, kernel.shape[1])
    for block in member.backbone.blocks:
        for path in [path for path in found if path.startswith(f"{block.name}/attention/")]:
            heads = block.num_heads
            if "/qkv/" in path:  # (channels, 3, heads, head_dim), or a bias without channels
                shape = (*found[path].shape[:-1], 3, heads, -1)
                found[path] = found[path].reshape(shape)
            elif path.endswith("/projection/kernel"):
                found[path] = found[path].reshape(heads, -1, found[path].shape[-1])
    return found


def _axes(backbone, weights):
    """Names what the axes of each weight stand for.

    Returns:
        A dict from path to a tuple with, for each axis, the name of a group whose members can stand
        in any order, or `None`.

    Raises:
        ValueError: if a weight is not known.
    """
    stream = "stream" if backbone.position_embedding != "sine" else None
    features = "embedding" if _EMBEDDINGS in weights else None
    if not any(path.startswith("tokenizer/") for path in weights):
        # Tokens are the embeddings of words themselves, or the features of a series, in its order.
        stream = features = stream and features and "stream"
    axes, before = {}, {"tokenizer": features}
    ends = _last_convolutions(weights)
    for path, values in weights.items():
        block = path.partition("/")[0]
        if path == _EMBEDDINGS:
            axes[path] = (None, features)
        elif _CONV.match(path):
            start = before.get(block, stream)
            if values.shape[-1] == 1 and "batch_norm" not in path:
                axes[path] = (None, None, start, None)
                continue
            before[block] = stream if path in ends else path
            axes[path] = (*(None,) * (values.ndim - 2), start, before[block])
        elif "batch_norm/" in path and "identity" not in path and "pointwise" not in path:
            axes[path] = (before.get(block, stream),)
        else:
            axes[path] = _axes_of(path, stream, values.ndim)
    return axes


def _last_convolutions(weights):
    """The kernels whose filters are the channels of the stream: the last of each chain."""
    last = {}
    for path, values in weights.items():
        if _CONV.match(path) and values.shape[-1] > 1:
            last[path.partition("/")[0]] = path
    return set(last.values())


def _axes_of(path, stream, rank):
    block, _, rest = path.partition("/")
    hidden, heads, means = f"{block}/mlp_hidden", f"{block}{_HEADS}", "pooler/means"
    known = {
        "attention/qkv/kernel": (stream, None, heads, None),
        "attention/qkv/bias": (None, heads, None),
        "attention/projection/kernel": (heads, None, stream),
        "attention/projection/bias": (stream,),
        "mlp_hidden/kernel": (stream, hidden),
        "mlp_hidden/bias": (hidden,),
        "mlp_conv/kernel": (None, None, hidden, None),
        "mlp_conv/bias": (hidden,),
        "mlp_output/kernel": (hidden, stream),
        "mlp_output/bias": (stream,),
    }
    if block == "position_embedding":
        return (None, None, stream)
    if block == "pooler":
        found = {"scores/kernel": (stream, None), "context_vector": (None, stream)}
        found |= dict.fromkeys(("context_kernel", "token_kernel"), (stream, means))
        return found.get(rest, (None,))
    if block == "predictions":
        return {1: (None,), 2: (stream, None), 3: (means, stream, None)}[rank]
    if rest.rpartition("/")[0] in ("attention_norm", "mlp_norm") or block == "layer_norm":
        return (stream,)
    if rest not in known:
        raise InputError(
            "Only convolutions in a chain, plain attention and perceptrons can be aligned; a "
            f"`SoftCommittee` takes any. Received: a model with the weight {path}"
        )
    return known[rest]


def _aligned(first, other, axes):
    """Returns the weights of a member in the order of the first."""
    other, named = dict(other), dict.fromkeys(g for names in axes.values() for g in names if g)
    groups = [group for group in named if not group.endswith(_HEADS)]
    blocks = [group.removesuffix(_HEADS) for group in named if group.endswith(_HEADS)]
    settled = {None}
    for sweep in range(_SWEEPS):
        changed = False
        for group in groups:
            order = _match(first, other, axes, group, settled if sweep == 0 else None)
            settled.add(group)
            if (order != np.arange(len(order))).any():
                changed = True
                for path, names in axes.items():
                    for axis in [axis for axis, name in enumerate(names) if name == group]:
                        other[path] = np.take(other[path], order, axis)
        if not changed and sweep:
            break
        for block in blocks:
            _align_heads(first, other, block)
    return other


def _match(first, other, axes, group, settled):
    """Finds the order of a group's members that is most like the first one's.

    Weights count alike, whatever their size. In the first round only those count whose other axes
    have their order already (`settled`), as the rest would be noise.
    """
    gain = 0.0
    for path, names in axes.items():
        if group not in names or (settled is not None and not set(names) <= settled | {group}):
            continue
        own, its = first[path], other[path]
        size = np.linalg.norm(own) * np.linalg.norm(its)
        for axis in [axis for axis, name in enumerate(names) if name == group and size > 0]:
            rows = [np.moveaxis(values, axis, 0) for values in (own, its)]
            rows = [values.reshape(len(values), -1) for values in rows]
            gain = gain + rows[0] @ rows[1].T / size
    return _assign(gain) if np.ndim(gain) else np.arange(_size(first, axes, group))


def _size(weights, axes, group):
    return next(
        weights[path].shape[names.index(group)] for path, names in axes.items() if group in names
    )


def _assign(gain):
    optimize = needed_package("scipy.optimize", "explain", "Aligning members needs SciPy")
    # Where orders are as good as each other, that which is there stays.
    gain = gain + 1e-12 * np.eye(len(gain)) * np.abs(gain).max(initial=1.0)
    return optimize.linear_sum_assignment(gain, maximize=True)[1]


def _align_heads(first, other, block):
    """Brings a block's heads to the first member's order, and each to its basis; in place."""
    paths = [
        f"{block}/attention/{name}" for name in ("qkv/kernel", "qkv/bias", "projection/kernel")
    ]
    own, its = (_heads(weights, paths) for weights in (first, other))
    gain = 0.0
    for left, right in ((0, 1), (2, 3)):
        # The product of two factors of one head with those of another: `<Q K', q k'>`.
        inner = [np.einsum("hci,gcj->hgij", own[k], its[k]) for k in (left, right)]
        product = np.sum(inner[0] * inner[1], axis=(2, 3))
        lengths = [_lengths(weights[left], weights[right]) for weights in (own, its)]
        gain = gain + product / np.maximum(np.outer(*lengths), 1e-30)
    order = _assign(gain)
    its = [part[order] for part in its]
    for left, right in ((0, 1), (2, 3)):
        # The rotation that fits both factors best (orthogonal Procrustes).
        fit = sum(np.einsum("hci,hcj->hij", its[k], own[k]) for k in (left, right))
        u, _, v = np.linalg.svd(fit)
        for k in (left, right):
            its[k] = its[k] @ (u @ v)
    _write_heads(other, paths, its)


def _lengths(left, right):
    """Norms of the products of two factors, head by head, without making the products."""
    inner = np.einsum("hci,hcj->hij", left, left) * np.einsum("hci,hcj->hij", right, right)
    return np.sqrt(np.maximum(inner.sum(axis=(1, 2)), 0))


def _heads(weights, paths):
    """Queries, keys, values and outputs as `(heads, channels, head_dim)`; biases are rows."""
    kernel, bias, projection = (weights.get(path) for path in paths)
    joined = kernel if bias is None else np.concatenate([kernel, bias[None]])
    parts = [joined[:, k].transpose(1, 0, 2) for k in range(3)]
    return [*parts, projection.transpose(0, 2, 1)]


def _write_heads(weights, paths, parts):
    *qkv, output = parts
    joined = np.stack([part.transpose(1, 0, 2) for part in qkv], axis=1)
    channels = len(weights[paths[0]])
    weights[paths[0]] = joined[:channels]
    if paths[1] in weights:
        weights[paths[1]] = joined[channels]
    weights[paths[2]] = output.transpose(0, 2, 1)


def _with_weights(model, values):
    backbone = type(model.backbone).from_config(model.backbone.get_config())
    merged = model.with_backbone(backbone)
    for weight in merged.weights:
        weight.assign(values[weight.path].reshape(weight.shape))
    return merged
