"""Keras callbacks: they schedule analyses that live elsewhere."""
