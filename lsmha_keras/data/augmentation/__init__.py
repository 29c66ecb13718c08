"""Augmentation as Keras layers, one a file."""
