"""The Ray task that trains a trial. Importing this module imports no framework."""

import contextlib
import os
import pathlib
import pickle
import platform
import time

from lsmha_keras.directory_lock import DirectoryLock
from lsmha_keras.errors import MissingFileError

# Sizes of the thread pools of TensorFlow and JAX. PyTorch reads OMP_NUM_THREADS, which Ray sets.
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "PJRT_NPROC")
_LOCK = ".task.lock"


def train_job(payload, settings):
    """Trains the executions of a trial in a Ray worker.

    Args:
        payload: bytes, the pickled pair of a `TrialJob` and the callbacks. They are unpickled here,
            because their modules import Keras, which must find the environment set.
        settings: dict of the driver's "backend", "folder" (its working directory), "data_dir" and
            "verbose", and the trial's "cores" (float) and "gpus" (float).

    Returns:
        dict of "rows" (of the study's table), "lines" (list of str, the log) and "machine".

    Raises:
        OSError: if this machine cannot see the study's directory, the data cannot be read or the
            disk is full.
    """
    _set_environment(settings)
    job, callbacks = pickle.loads(payload)
    if not (job.directory.parent / "study.toml").exists():
        raise MissingFileError(
            "All machines of a search must see its output directory. "
            f"Received: {job.directory.parent}, which {platform.node()} does not see"
        )
    from lsmha_keras.training.recipe_data import open_recipe_data

    lines = []
    parts = ("train", "validation")
    with _hold(job.directory):
        sources = open_recipe_data(job.study.recipe, settings["data_dir"], parts)
        rows = job.run(sources, callbacks, settings["verbose"], lines.append)
    return {"rows": rows, "lines": lines, "machine": platform.node()}


def _set_environment(settings):
    os.environ["KERAS_BACKEND"] = settings["backend"]
    for name in _THREADS:
        os.environ.setdefault(name, str(max(1, int(settings["cores"]))))
    if 0 < settings["gpus"] < 1:
        # Several trials share a GPU, so none may reserve all of its memory.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if pathlib.Path(settings["folder"]).is_dir():
        os.chdir(settings["folder"])


@contextlib.contextmanager
def _hold(directory, seconds=60.0):
    """Locks the directory; waits for a task of a killed driver that may still be writing."""
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(DirectoryLock(directory, _LOCK))
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(1.0)
        yield
