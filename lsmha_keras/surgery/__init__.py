"""Turns a model, or a checkpoint, into another model."""
