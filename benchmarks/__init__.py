"""Measurements of this repository: run from its root, as `python -m benchmarks.shp`."""
