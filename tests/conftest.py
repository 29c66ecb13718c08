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
_KERASTUNER = ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT")

if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in _ONE_THREAD:
        os.environ.setdefault(_name, "1")

# TensorFlow (2.21) asks the processor whether it multiplies bfloat16, and oneDNN, kept from its
# instructions, then kills the process. Processors without them do not use oneDNN for bfloat16.
if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ("SSE41", "AVX", "AVX2", "AVX2_VNNI"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# What a shell may hold that changes messages, or makes a search take itself for one of several.
for _name in ("COLUMNS", "LSMHA_TRACEBACK", *(f"KERASTUNER_{part}" for part in _KERASTUNER)):
    os.environ.pop(_name, None)
