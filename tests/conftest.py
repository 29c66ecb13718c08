"""Settings of the whole suite; read before any test module, and so before any framework."""

import os

# The workers of pytest-xdist share the cores. The frameworks' pools of threads, each as large as
# the machine, would wait for each other. Processes that tests start inherit the settings.
_ONE_THREAD = (
    "OMP_NUM_THREADS",  # torch, oneDNN, BLAS
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "PJRT_NPROC",  # jax
)

if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in _ONE_THREAD:
        os.environ.setdefault(_name, "1")
