"""Routers: which heads a token chooses."""

from keras import ops

from lsmha_keras.arguments import plain
from lsmha_keras.errors import InputError


def check_gates(num_heads, gate_of_head, num_gates):
    """Checks which gate each head belongs to.

    Args:
        num_heads: int.
        gate_of_head: list with the gate of each head, or `None`: each head has its own.
        num_gates: int, how many gates there are with `gate_of_head`.

    Returns:
        A list of ints, and the number of gates.

    Raises:
        ValueError: if the list has not one gate for each head, ascending, among those there are.
    """
    if gate_of_head is None and num_gates is None:
        return list(range(num_heads)), num_heads
    gates, count = plain(gate_of_head), plain(num_gates)
    if (
        not isinstance(gates, (list, tuple))
        or not isinstance(count, int)
        or len(gates) != num_heads
        or sorted({gate for gate in gates if gate in range(count)}) != list(gates)
    ):
        raise InputError(
            f"`gate_of_head` must be a list of {num_heads} gates, one for each head, ascending and "
            f"below `num_gates`. Received: gate_of_head={gate_of_head}, num_gates={num_gates}"
        )
    return list(gates), count


def choose(probabilities, k):
    """Marks the `k` largest entries of each row.

    Args:
        probabilities: float tensor `(batch, tokens, heads)`.
        k: int.

    Returns:
        A tensor of zeros and ones, of the same shape and dtype, without gradients. Among equal
        entries, the first ones are chosen.
    """
    heads = probabilities.shape[-1]
    _, chosen = ops.top_k(probabilities, k)
    marks = ops.sum(ops.one_hot(chosen, heads, dtype=probabilities.dtype), axis=-2)
    return ops.stop_gradient(marks)


def balance_loss(probabilities, chosen, padding_mask=None):
    """Computes `heads * sum_i f_i P_i`, which is lowest where all heads are used alike.

    `f_i` is the share of tokens that chose head `i`, `P_i` its mean probability. If both are
    uniform the loss is the number of chosen heads per token.

    Args:
        probabilities: float32 tensor `(batch, tokens, heads)`.
        chosen: what `choose` returns for them.
        padding_mask: boolean tensor `(batch, tokens)` or `None`; padding does not count.

    Returns:
        A scalar tensor.

    References:
        - [Fedus et al., 2021](https://arxiv.org/abs/2101.03961), section 2.2
    """
    if padding_mask is None:
        share, mean = ops.mean(chosen, axis=(0, 1)), ops.mean(probabilities, axis=(0, 1))
    else:
        valid = ops.cast(padding_mask, probabilities.dtype)[..., None]
        count = ops.maximum(ops.sum(valid), 1)
        share = ops.sum(chosen * valid, axis=(0, 1)) / count
        mean = ops.sum(probabilities * valid, axis=(0, 1)) / count
    return probabilities.shape[-1] * ops.sum(share * mean)
