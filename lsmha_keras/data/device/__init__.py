"""Augmentation on the accelerator, for images that stay there."""
