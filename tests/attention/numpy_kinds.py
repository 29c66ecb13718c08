"""Every kind of attention in float64 NumPy, written from its definition and not from the layers."""

import itertools

import numpy as np

HEADS, WIDTH, GRID = 8, 4, (4, 4)
TOKENS = GRID[0] * GRID[1]

# Options under which a rounding cannot change which heads or tokens are chosen.
OPTIONS = {
    "moh": {"num_shared": 2, "top_k": 6},
    "moa": {"top_k": 8},
    "grouped": {"num_kv_heads": 2},
    "mae": {"leave_out": 3, "gate_dim": 5},
    "windows": {"windows": [0, 1, 1, 2, 3, 4, None, None]},
    "clustered": {"map_of_head": [0, 1, 0, 2, 0, 1, 2, 2]},
    "sparse": {"normaliser": "entmax15"},
    "eit": {"maps_per_head": 3},
}


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def split(x, heads):
    """(batch, tokens, heads * width) -> (batch, heads, tokens, width)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def attend(query, key, value, normalise=softmax, allowed=True):
    scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1])
    weights = normalise(np.where(allowed, scores, -np.inf))
    return weights @ value


def qkv(w, x, heads=HEADS):
    return [split(part, heads) for part in np.split(x @ w["qkv/kernel"], 3, axis=-1)]


def multi_head(w, x):
    return attend(*qkv(w, x))


def grouped(w, x, groups=2):
    query = split(x @ w["query/kernel"], HEADS)
    key, value = (split(p, groups) for p in np.split(x @ w["key_value/kernel"], 2, axis=-1))
    owner = [h // (HEADS // groups) for h in range(HEADS)]
    return attend(query, key[:, owner], value[:, owner])


def moh(w, x):
    balance = 2 * softmax(x @ w["balance_router"])
    shared = 2 * softmax(x @ w["shared_router"]) * balance[..., :1]
    routed = 6 * softmax(x @ w["router"]) * balance[..., 1:]
    gates = np.concatenate([shared, routed], axis=-1)
    return multi_head(w, x) * gates.transpose(0, 2, 1)[..., None]


def moa(w, x):
    gates = HEADS * softmax(x @ w["router"])
    return grouped(w, x, groups=1) * gates.transpose(0, 2, 1)[..., None]


def mae(w, x, leave_out=3):
    """The sum over the experts, each computed: nothing but what the definition says."""
    hidden = x.mean(1) @ w["gate_hidden/kernel"] + w["gate_hidden/bias"]
    gates = softmax(np.maximum(hidden, 0) @ w["gate/kernel"] + w["gate/bias"])
    heads = multi_head(w, x)
    total = 0
    for expert in range(HEADS):
        kept = np.ones(HEADS)
        kept[[(expert + i) % HEADS for i in range(leave_out)]] = 0
        output = heads * kept[:, None, None] * HEADS / (HEADS - leave_out)
        total = total + gates[:, expert, None, None, None] * output
    return total


def knocking(w, x):
    names = ("query_delta", "key_delta", "value_delta")
    return attend(*(h @ (np.eye(WIDTH) + w[n]) for h, n in zip(qkv(w, x), names, strict=True)))


def knocking_gated(w, x):
    query, key, value = qkv(w, x)
    up, down = (np.eye(WIDTH) + w[n] for n in ("up_delta", "down_delta"))
    value = 2 * ((value @ up) * sigmoid(value @ w["gate_delta"])) @ down
    return attend(query, key, value)


def talking(w, x):
    query, key, value = qkv(w, x)
    scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(WIDTH)
    weights = softmax(np.einsum("hg,bgij->bhij", w["score_mixing"], scores))
    return np.einsum("hg,bgij->bhij", w["weight_mixing"], weights) @ value


def eit(w, x):
    """All maps of scores, one for each pair of heads, and the two interactions on them."""
    query, key, value = qkv(w, x)
    pairs = np.einsum("bgid,bkjd->bgkij", query, key) / np.sqrt(WIDTH)
    inner = np.einsum("gkm,bgkij->bgmij", w["inner"], pairs)
    scores = np.einsum("gmh,bgmij->bhij", w["cross"], np.maximum(inner, 0))
    return softmax(scores) @ value


def head_embedding(w, x):
    names = ("query_embedding", "key_embedding", "value_embedding")
    shared = (split(p, 1) for p in np.split(x @ w["qkv/kernel"], 3, axis=-1))
    return attend(*(s * (1 + w[n]) for s, n in zip(shared, names, strict=True)))


def optimised(w, x):
    query, key = (split(p, HEADS) for p in np.split(x @ w["qkv/kernel"], 2, axis=-1))
    return attend(query, key, split(x, HEADS))


def efficient(w, x):
    return attend(split(x @ w["qkv/kernel"], HEADS), split(x, HEADS), split(x, HEADS))


def super_(w, x):
    mixed = split(np.einsum("ts,bsc->btc", w["token_mixing"], x), HEADS)
    return attend(split(x @ w["qkv/kernel"], HEADS), split(x, HEADS), mixed)


def places():
    return np.asarray(list(itertools.product(*map(range, GRID))))


def hilo(w, x, window=2):
    """High heads by a mask over all tokens; low heads by keys and values that are averaged."""
    chunk = places() // window
    together = np.all(chunk[:, None] == chunk[None], axis=-1)
    high = attend(*qkv(w, x, HEADS // 2), allowed=together)
    averages = np.stack(
        [x[:, np.all(chunk == c, axis=1)].mean(1) for c in np.unique(chunk, axis=0)], 1
    )
    query = split(x @ w["query/kernel"], HEADS // 2)
    key_value = np.split(averages @ w["key_value/kernel"], 2, axis=-1)
    low = attend(query, *(split(p, HEADS // 2) for p in key_value))
    return np.concatenate([high, low], axis=1)


def windows(w, x):
    distance = np.abs(places()[:, None] - places()[None]).max(-1)
    sizes = [TOKENS if s is None else s for s in OPTIONS["windows"]["windows"]]
    return attend(*qkv(w, x), allowed=np.stack([distance <= s for s in sizes]))


def clustered(w, x):
    maps = OPTIONS["clustered"]["map_of_head"]
    query, key = (split(p, 3) for p in np.split(x @ w["query_key/kernel"], 2, axis=-1))
    return attend(query[:, maps], key[:, maps], split(x @ w["value/kernel"], HEADS))


def subspace(w, x):
    heads = split(x @ w["qkv/kernel"], HEADS)
    return attend(heads, heads, heads)


def entmax15(scores):
    """`max(scores / 2 - t, 0)^2`, with the `t` for which they sum to 1 found by bisection."""
    z = scores / 2
    low = z.max(-1, keepdims=True) - 1
    high = low + 1
    for _ in range(100):
        middle = (low + high) / 2
        above = (np.maximum(z - middle, 0) ** 2).sum(-1, keepdims=True) >= 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.maximum(z - low, 0) ** 2


def sparse(w, x):
    return attend(*qkv(w, x), normalise=entmax15)


def normlin(w, x):
    mixing = np.log1p(np.exp(w["mixing"]))
    mixing = mixing / mixing.sum(-1, keepdims=True)
    return mixing @ split(x @ w["value/kernel"], HEADS)


KINDS = {
    "multi_head": multi_head,
    "grouped": grouped,
    "multi_query": lambda w, x: grouped(w, x, groups=1),
    "moh": moh,
    "moa": moa,
    "mae": mae,
    "knocking": knocking,
    "knocking_gated": knocking_gated,
    "talking": talking,
    "eit": eit,
    "head_embedding": head_embedding,
    "optimised": optimised,
    "efficient": efficient,
    "super": super_,
    "hilo": hilo,
    "windows": windows,
    "clustered": clustered,
    "subspace": subspace,
    "sparse": sparse,
    "normlin": normlin,
}


def run(name, weights, x):
    """Output `(batch, tokens, C)` and heads `(batch, tokens, heads, width)` of a kind."""
    heads = KINDS[name](weights, x).transpose(0, 2, 1, 3)
    flat = heads.reshape(*x.shape[:2], -1)
    return flat @ weights["projection/kernel"] + weights["projection/bias"], heads
