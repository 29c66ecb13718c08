"""What attention weights say of heads: how wide they look, how far, where, and who looks alike."""

import numpy as np
from keras import ops

from lsmha_keras.errors import InputError


def token_shares(padding_mask):
    """Spreads a share of 1 evenly over the tokens that are no padding.

    Args:
        padding_mask: boolean tensor `(batch, tokens)`, `False` for padding.

    Returns:
        A float32 tensor `(batch, tokens)`; each row sums to 1, or to 0 if all is padding.

    Example:

    ```python
    token_shares(np.array([[True, True, False]]))  # [[0.5, 0.5, 0.]]
    ```
    """
    valid = ops.cast(padding_mask, "float32")
    return valid / ops.maximum(ops.sum(valid, axis=-1, keepdims=True), 1.0)


def _mean_over_queries(values, padding_mask):
    """The mean of `(batch, heads, queries)` over queries that are no padding."""
    if padding_mask is None:
        return ops.mean(values, axis=-1)
    return ops.sum(values * token_shares(padding_mask)[:, None], axis=-1)


def attention_entropy(attention_scores, padding_mask=None):
    """Entropy of the attention over keys, in nats, as a mean over queries.

    Args:
        attention_scores: tensor `(batch, heads, queries, keys)` whose rows sum to 1.
        padding_mask: boolean tensor `(batch, queries)`, `False` for padding, or `None`.

    Returns:
        A float32 tensor `(batch, heads)`: 0 if every query looks at one key, log of the number of
        keys if it looks at all alike.

    Example:

    ```python
    attention_entropy(np.full((1, 1, 4, 4), 0.25, "float32"))  # [[1.386]]
    ```
    """
    weights = ops.cast(attention_scores, "float32")
    logarithms = ops.log(ops.maximum(weights, np.finfo("float32").tiny))  # 0 log 0 is 0
    return _mean_over_queries(-ops.sum(weights * logarithms, axis=-1), padding_mask)


def attention_distance(attention_scores, distances, padding_mask=None):
    """Distance between a query's token and the tokens it looks at, as a mean over queries.

    Args:
        attention_scores: tensor `(batch, heads, tokens, tokens)` whose rows sum to 1.
        distances: array `(tokens, tokens)`, see `token_distances`.
        padding_mask: as for `attention_entropy`.

    Returns:
        A float32 tensor `(batch, heads)` in the unit of `distances`.

    Example:

    ```python
    distances = token_distances(grid_shape=(8, 8), image_size=(32, 32))
    attention_distance(np.eye(64)[None, None], distances)  # [[0.]]
    ```

    Raises:
        ValueError: if the attention is between other tokens.

    References:
        - [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), appendix D.7
    """
    weights = _weights_of_grid(attention_scores, distances)
    distances = ops.convert_to_tensor(distances)
    return _mean_over_queries(ops.sum(weights * distances, axis=-1), padding_mask)


def _weights_of_grid(attention_scores, places):
    if attention_scores.shape[-1] != len(places):
        raise InputError(
            "Where a head looks is known of blocks that see all tokens of the grid, and no others: "
            "leave out `attention_distance` and `offset`, or choose other blocks. Received: "
            f"attention between {attention_scores.shape[-1]} tokens, {len(places)} on the grid"
        )
    return ops.cast(attention_scores, "float32")


def token_distances(grid_shape, image_size):
    """Euclidean distances between the tokens of a grid laid over an image.

    Args:
        grid_shape: `(grid_height, grid_width)`; tokens are counted row by row.
        image_size: `(height, width)` of the image in pixels.

    Returns:
        A float32 array `(tokens, tokens)` in pixels.

    Example:
        >>> token_distances((1, 3), (4, 12))[0]
        array([0., 4., 8.], dtype=float32)
    """
    return np.linalg.norm(token_offsets(grid_shape, image_size), axis=-1)


def token_offsets(grid_shape, image_size):
    """Where tokens lie, seen from others, on a grid laid over an image.

    Args:
        grid_shape: `(grid_height, grid_width)`; tokens are counted row by row.
        image_size: `(height, width)` of the image in pixels.

    Returns:
        A float32 array `(tokens, tokens, 2)`: from the first token to the second, in pixels down
        and to the right.

    Example:
        >>> token_offsets((1, 3), (4, 12))[1].tolist()
        [[0.0, -4.0], [0.0, 0.0], [0.0, 4.0]]
    """
    steps = np.array(image_size) / np.array(grid_shape)
    places = np.indices(grid_shape).reshape(2, -1).T * steps  # (tokens, 2)
    return (places[None] - places[:, None]).astype("float32")


def attention_offset(attention_scores, offsets, padding_mask=None):
    """Where a head looks, seen from the query: the centroid of its attention, mean over queries.

    Args:
        attention_scores: tensor `(batch, heads, tokens, tokens)` whose rows sum to 1.
        offsets: array `(tokens, tokens, 2)`, see `token_offsets`.
        padding_mask: as for `attention_entropy`.

    Returns:
        A float32 tensor `(batch, heads, 2)` in the unit of `offsets`, down and to the right.

    Example:

    ```python
    offsets = token_offsets(grid_shape=(8, 8), image_size=(32, 32))
    attention_offset(np.eye(64)[None, None], offsets)  # [[[0., 0.]]]
    ```

    References:
        - [Cordonnier et al., 2020](https://arxiv.org/abs/1911.03584), heads with a fixed offset
    """
    weights = _weights_of_grid(attention_scores, offsets)
    batch, heads, tokens, _ = ops.shape(weights)
    if padding_mask is None:
        weights = weights / tokens
    else:
        weights = weights * token_shares(padding_mask)[:, None, :, None]
    flat = ops.reshape(weights, (batch, heads, tokens * tokens))
    return ops.matmul(flat, ops.convert_to_tensor(offsets.reshape(-1, 2)))


def attention_similarity(attention_scores, padding_mask=None):
    """How alike the heads of a block look: cosines of their maps, each less its mean.

    Args:
        attention_scores: tensor `(batch, heads, queries, keys)`.
        padding_mask: boolean tensor `(batch, tokens)`, `False` for queries and keys that are
            padding, or `None`; keys beyond these tokens all count.

    Returns:
        A float32 tensor `(batch, heads, heads)` in -1 .. 1. Heads that look at all tokens alike are
        similar to none.

    Example:

    ```python
    attention_similarity(np.stack([np.eye(4), np.eye(4)])[None])  # ones
    ```
    """
    weights = ops.cast(attention_scores, "float32")
    batch, heads, queries, keys = ops.shape(weights)
    flat = ops.reshape(weights, (batch, heads, queries * keys))
    if padding_mask is None:
        flat = flat - ops.mean(flat, axis=-1, keepdims=True)
    else:
        others = ops.ones((batch, keys - queries), "bool")  # such as tokens that stand for heads
        seen = ops.concatenate([ops.cast(padding_mask, "bool"), others], axis=1)
        counts = ops.cast(padding_mask, "float32")[:, :, None] * ops.cast(seen, "float32")[:, None]
        counts = ops.reshape(counts, (batch, 1, queries * keys))
        total = ops.maximum(ops.sum(counts, axis=-1, keepdims=True), 1.0)
        flat = counts * (flat - ops.sum(counts * flat, axis=-1, keepdims=True) / total)
    lengths = ops.sqrt(ops.sum(ops.square(flat), axis=-1, keepdims=True))
    # What is left of a uniform map is rounding, of which no direction follows.
    flat = ops.where(lengths > 1e-5, flat / ops.maximum(lengths, 1e-5), 0.0)
    return ops.matmul(flat, ops.swapaxes(flat, 1, 2))


def linear_cka(covariances, num_heads):
    """How alike the outputs of heads are: linear centred kernel alignment.

    Args:
        covariances: array `(heads * head_dim, heads * head_dim)`, of the outputs of all heads over
            tokens and images.
        num_heads: int.

    Returns:
        A float64 array `(heads, heads)` in 0 .. 1: 1 where the outputs of one head are those of the
        other, rotated and scaled. Heads with constant outputs are similar to none.

    Example:
        >>> linear_cka(np.array([[1.0, 2.0], [2.0, 4.0]]), num_heads=2).round(6).tolist()
        [[1.0, 1.0], [1.0, 1.0]]

    References:
        - [Kornblith et al., 2019](https://arxiv.org/abs/1905.00414), section 3
    """
    covariances = np.asarray(covariances, "float64")
    width = len(covariances) // num_heads
    blocks = covariances.reshape(num_heads, width, num_heads, width)
    norms = np.sqrt(np.square(blocks).sum(axis=(1, 3)))  # (heads, heads), Frobenius
    own = np.sqrt(np.diag(norms))
    own = np.where(own > 1e-6 * own.max(initial=0), own, np.inf)
    return np.square(norms / own[:, None] / own[None])


def most_alike(similarities):
    """Returns each head's similarity with the head that is most like it.

    Args:
        similarities: array `(heads, heads)`.

    Returns:
        An array `(heads,)`; 0 for a head that is alone.

    Example:
        >>> most_alike(np.array([[1.0, 0.2, 0.7], [0.2, 1.0, 0.1], [0.7, 0.1, 1.0]])).tolist()
        [0.7, 0.2, 0.7]
    """
    others = np.where(np.eye(len(similarities), dtype=bool), -np.inf, similarities)
    return others.max(axis=1) if len(others) > 1 else np.zeros(1)
