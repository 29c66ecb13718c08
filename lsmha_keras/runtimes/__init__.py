"""Runtimes that run a classifier on images of its size. Each is imported on first use."""
