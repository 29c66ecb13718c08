"""Names of the types that arguments of the public functions and classes share."""

import os
from collections.abc import Callable
from typing import Any, Literal

# A file or folder.
PathLike = str | os.PathLike[str]

# Labelled images: the name of a dataset, an `ImageDataset`, a pair of arrays, a
# `keras.utils.PyDataset` or a `tf.data.Dataset`.
Dataset = Any

# What `keras.initializers.get` takes, and likewise for regularizers and constraints.
Initializer = str | dict[str, Any] | Callable[..., Any] | None
Regularizer = str | dict[str, Any] | Callable[..., Any] | None
Constraint = str | dict[str, Any] | Callable[..., Any] | None

# Nothing, bars, lines; "auto" is bars in a terminal, else lines.
Verbose = Literal["auto", 0, 1, 2]

# How tokens are pooled for one head.
Pooling = Literal["recomputed", "frozen"]
