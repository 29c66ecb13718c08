"""Measurements of this repository: run from its root, as `python -m benchmarks.shp`.

Python imports this file before any of them: what they import by name, such as Keras, is there
already, without TensorFlow's notes.
"""

from lsmha_keras._imports import import_quietly

import_quietly("keras")
