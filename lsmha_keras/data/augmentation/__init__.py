"""Augmentation as Keras layers."""
