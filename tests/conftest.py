"""Settings of the whole suite; read before any test module, and so before any framework."""

import gc
import os
import shutil
import sys

import pytest

# The workers of pytest-xdist share the cores. The frameworks' pools of threads, each as large as
# the machine, would wait for each other. Processes that tests start inherit the settings.
_ONE_THREAD = (
    "OMP_NUM_THREADS",  # torch, oneDNN, BLAS
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "PJRT_NPROC",  # jax
)
_BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_KERASTUNER = ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT")

if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in _ONE_THREAD:
        os.environ.setdefault(_name, "1")

# A test compiles a program and runs it once or twice. XLA's own passes are kept; LLVM's expensive
# ones are not, nor the newer emitters of fused loops: a training step of a small model compiles in
# a sixth of the time. In one part, as the workers share the cores.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters=true"
    " --xla_cpu_parallel_codegen_split_count=1",
)

# TensorFlow (2.21) asks the processor whether it multiplies bfloat16, and oneDNN, kept from its
# instructions, then kills the process. Processors without them do not use oneDNN for bfloat16.
# OpenVINO (2026.4) kills it too: it has a oneDNN of its own, beside kernels that use them anyway.
if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ("SSE41", "AVX", "AVX2", "AVX2_VNNI"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    sys.modules["openvino"] = None  # as if it were not installed

# What a shell may hold that changes messages, or makes a search take itself for one of several.
_MESSAGES = ("COLUMNS", "LSMHA_TRACEBACK", "PYTHONWARNINGS")
for _name in (*_MESSAGES, *(f"KERASTUNER_{part}" for part in _KERASTUNER)):
    os.environ.pop(_name, None)


def pytest_addoption(parser):
    """Adds options with which a second environment leaves out what the first has proved."""
    group = parser.getgroup("two environments")
    group.addoption("--write-passed", metavar="FILE", help="write the names of the passed tests")
    group.addoption("--leave-out", metavar="FILE", help="leave out the tests named in the file")


def pytest_configure(config):
    """Writes the file of the first option; the workers of pytest-xdist report to one process."""
    file = config.getoption("--write-passed")
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_PassedTests(file))


def pytest_collection_modifyitems(config, items):
    """Obeys the second option."""
    file = config.getoption("--leave-out")
    if file:
        with open(file, encoding="utf-8") as lines:
            passed = set(lines.read().splitlines())
        left_out = [item for item in items if item.nodeid in passed]
        items[:] = [item for item in items if item.nodeid not in passed]
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish():
    """Takes the imported frameworks out of the garbage collector's rounds.

    Each of these goes through a million objects otherwise, and Keras asks for one per quantised
    layer.
    """
    gc.collect()
    gc.freeze()


class _PassedTests:
    def __init__(self, file):
        self.file, self.names = file, []

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.names.append(report.nodeid)

    def pytest_sessionfinish(self):
        with open(self.file, "w", encoding="utf-8") as lines:
            lines.writelines(f"{name}\n" for name in sorted(self.names))


@pytest.fixture(autouse=True, scope="module")
def what_a_module_leaves():
    """Takes what the tests of a module leave behind out of the garbage collector's rounds too.

    Frameworks keep programs and graphs. After a thousand tests a round would take seconds, and a
    quantised model asks for dozens.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def kinds_of_attention():
    """Forgets the kinds of attention that a test, or the page of the docs it runs, registered."""
    yield
    registry = sys.modules.get("lsmha_keras.attention.registry")
    if registry is not None:
        for name in registry._KINDS.keys() - registry._SHIPPED:
            del registry._KINDS[name]


@pytest.fixture(scope="module")
def browser():
    """A browser; of one module, as no event loop runs beside playwright's in its thread."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason='a browser is driven by playwright: pip install "playwright"'
    )
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser is installed: apt-get install {_BROWSERS[0]}")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path)
        yield browser
        browser.close()
