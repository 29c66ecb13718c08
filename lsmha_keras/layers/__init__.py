"""Layers: they know tensors, nothing of models or data."""
