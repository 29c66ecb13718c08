"""From attention maps to the tokens that a result depends on: pure functions over arrays."""

import numpy as np

from lsmha_keras.errors import InputError, PackageError

# A flow is found for each token, and each costs more the more tokens there are.
MAX_FLOW_TOKENS = 64
# Capacities are whole numbers for SciPy; a node's sum to this and stay far below 2**31.
_UNIT = 2**24
# Rows of float16 weights sum to 1 within this.
_TOLERANCE = 1e-2


def with_skip(weights):
    """Joins the maps of a block's heads and its skip connection, each with half of the say.

    Args:
        weights: array `(heads, tokens, tokens)`, the attention weights of a block; rows sum to 1.

    Returns:
        float64 array `(tokens, tokens)`, `(mean over heads + I) / 2`, whose rows sum to 1.

    Raises:
        ValueError: if the rows are no shares: a weight is negative, or they do not sum to 1.

    Example:
        >>> with_skip(np.full((1, 2, 2), 0.5))
        array([[0.75, 0.25],
               [0.25, 0.75]])
    """
    weights = np.asarray(weights, "float64")
    sums = weights.sum(axis=-1)
    if weights.min() < 0 or np.abs(sums - 1).max() > _TOLERANCE:
        raise InputError(
            "Rollout and flow pass shares on, so attention weights must be positive and rows must "
            "sum to 1; `method='relevance'` takes any. Received: weights from "
            f"{weights.min():.3g}, rows that sum to {sums.min():.3g} .. {sums.max():.3g}"
        )
    joined = weights.mean(axis=0) + np.eye(weights.shape[-1])
    return joined / joined.sum(axis=-1, keepdims=True)


def attention_rollout(maps):
    """Multiplies the maps of all blocks: what the last tokens are made of.

    The weight of the skip connection, one half, is an assumption: that attention and stream are
    equally large.

    Args:
        maps: list of arrays `(heads, tokens, tokens)`, the first block first.

    Returns:
        float64 array `(tokens after the last block, tokens before the first)`; rows sum to 1.

    Raises:
        ValueError: as `with_skip`.

    References:
        - [Abnar and Zuidema, 2020](https://arxiv.org/abs/2005.00928)

    Example:
        >>> attention_rollout([np.eye(2)[None]] * 3)
        array([[1., 0.],
               [0., 1.]])
    """
    rolled = np.eye(maps[0].shape[-1])
    for weights in maps:
        rolled = with_skip(weights) @ rolled
    return rolled


def attention_flow(maps, pooling):
    """Finds how much could flow from the pooled token to each token before the first block.

    The maps joined with the skip connections are pipes with these capacities, and so are the
    pooling's weights; a maximum flow is found for each token on its own, by SciPy.

    Args:
        maps: list of arrays `(heads, tokens, tokens)`, the first block first; at most 64 tokens.
        pooling: `(tokens,)` array, weights of the pooling; they sum to 1.

    Returns:
        float64 array `(tokens,)`, the flows divided by their sum.

    Raises:
        ImportError: if SciPy is missing.
        ValueError: if there are more than 64 tokens, or as `with_skip`.

    References:
        - [Abnar and Zuidema, 2020](https://arxiv.org/abs/2005.00928)

    Example:

    ```python
    flow = attention_flow([np.full((1, 4, 4), 0.25)], np.full(4, 0.25))  # 0.25 each
    ```
    """
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import maximum_flow
    except ImportError as error:
        raise PackageError(
            'Attention flow needs SciPy: pip install "lsmha-keras[explain]"'
        ) from error
    tokens = len(pooling)
    if tokens > MAX_FLOW_TOKENS:
        raise InputError(
            f"`method='flow'` takes models of up to {MAX_FLOW_TOKENS} tokens, as it solves a "
            f"maximum flow for each; 'rollout' takes any number. Received: {tokens} tokens"
        )
    # Layer 0 holds the tokens before the first block; the pooled token is the last node.
    source = (len(maps) + 1) * tokens
    heads, tails, capacities = [np.full(tokens, source)], [source - tokens + np.arange(tokens)], []
    capacities.append(np.asarray(pooling, "float64"))
    for layer, weights in enumerate(maps):
        queries, keys = np.indices((tokens, tokens)).reshape(2, -1)
        heads.append((layer + 1) * tokens + queries)
        tails.append(layer * tokens + keys)
        capacities.append(with_skip(weights).ravel())
    whole = np.rint(np.concatenate(capacities) * _UNIT).astype("int32")
    edges = (np.concatenate(heads).astype("int32"), np.concatenate(tails).astype("int32"))
    graph = coo_array((whole, edges), shape=(source + 1, source + 1)).tocsr()
    flows = [maximum_flow(graph, source, token).flow_value for token in range(tokens)]
    return np.array(flows, "float64") / sum(flows)


def gradient_relevance(maps, gradients):
    """Adds up what raises a logit, block by block: `R = I`, then `R += mean((dA * A)^+) R`.

    Args:
        maps: list of arrays `(heads, tokens, tokens)`, the first block first.
        gradients: list of arrays of the same shapes, derivatives of the logit by the maps.

    Returns:
        float64 array `(tokens after the last block, tokens before the first)`.

    References:
        - [Chefer et al., 2021](https://arxiv.org/abs/2103.15679)

    Example:
        >>> gradient_relevance([np.eye(2)[None]], [np.ones((1, 2, 2))])
        array([[2., 0.],
               [0., 2.]])
    """
    relevance = np.eye(maps[0].shape[-1])
    for weights, derivatives in zip(maps, gradients, strict=True):
        raising = np.maximum(np.multiply(weights, derivatives, dtype="float64"), 0)
        relevance = relevance + raising.mean(axis=0) @ relevance
    return relevance


def head_maps(weights, pooling):
    """What each head looks at: its weights as a mean over queries, weighted as tokens are pooled.

    Args:
        weights: array `(heads, tokens, tokens)`.
        pooling: `(tokens,)` array, weights of the pooling.

    Returns:
        float64 array `(heads, tokens)`.

    Example:
        >>> head_maps(np.eye(2)[None], np.array([0.25, 0.75]))
        array([[0.25, 0.75]])
    """
    return np.einsum("q,hqk->hk", np.asarray(pooling, "float64"), weights)
