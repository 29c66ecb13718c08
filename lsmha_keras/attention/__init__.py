"""Kinds of attention with many heads, one contract: `LargeScaleMultiHeadAttention`'s."""
