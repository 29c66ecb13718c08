"""Helpers of the commands: backend and runtime, options, checks of outputs before work starts."""

import argparse
import importlib.util
import json
import os
import pathlib
import sys

from lsmha_keras._imports import import_quietly
from lsmha_keras.errors import InputError, PackageError, StorageError
from lsmha_keras.files import writable_dir
from lsmha_keras.presets import HUBS, resolve_preset

BACKENDS = ("tensorflow", "jax", "torch")
# Runtimes of `Predictor`, in the order of preference.
RUNTIMES = ("onnxruntime", "openvino", "keras")


def choose_backend(asked=None):
    """Sets `KERAS_BACKEND`, unless Keras is imported already.

    Args:
        asked: "tensorflow", "jax", "torch", or None for the environment's KERAS_BACKEND, else the
            backend in Keras's configuration file if that is installed, else the first one
            installed.

    Raises:
        ImportError: if the backend, or every backend, is missing.
        ValueError: if the environment names an unknown backend, or Keras already runs on another
            one.

    Example:

    ```python
    choose_backend("jax")
    ```
    """
    if "keras" in sys.modules:
        running = sys.modules["keras"].backend.backend()
        if asked not in (None, running):
            raise InputError(f"Keras already runs on {running}. Received: --backend {asked}")
        return
    backend = asked or os.environ.get("KERAS_BACKEND") or _first_installed()
    if backend not in BACKENDS:
        raise InputError(
            f"A backend is one of {', '.join(BACKENDS)}. Received: KERAS_BACKEND={backend}"
        )
    if not _is_installed(backend):
        raise PackageError(
            f"The backend {backend} is not installed: "
            f'pip install "lsmha-keras[{backend}]". Installed: {_installed() or "none"}'
        )
    os.environ["KERAS_BACKEND"] = backend


def import_framework():
    """Imports Keras, before the modules of this package that need it.

    Raises:
        ImportError: if Keras or its backend is missing or cannot be imported.
    """
    try:
        import_quietly("keras")
    except ImportError as error:
        raise PackageError(f"Keras cannot be imported: {error}") from error


def open_predictor(name, runtime=None, backend=None, num_threads=None):
    """Opens a preset, in onnxruntime if possible, so that Keras need not be imported.

    Args:
        name: name or directory of a preset, or an exported file.
        runtime: str, one of `RUNTIMES`, or `None` for onnxruntime, unless it is missing, the preset
            has no ONNX file, or a backend is requested.
        backend: str, the requested backend, or `None` for that of `KERAS_BACKEND`, if any.
        num_threads: as for `lsmha_keras.Predictor`.

    Returns:
        A `lsmha_keras.Predictor`.

    Raises:
        ImportError, ValueError: as `lsmha_keras.Predictor`.

    Example:

    ```python
    classify = open_predictor("lsmha-small")
    ```
    """
    asked = backend or os.environ.get("KERAS_BACKEND")
    from lsmha_keras.predictor import Predictor, find_onnx

    if runtime is None:
        usable = not asked and importlib.util.find_spec("onnxruntime")
        runtime = "onnxruntime" if usable and find_onnx(name)[0] else "keras"
    if runtime == "keras":
        choose_backend(asked)
        import_framework()
    return Predictor(name, runtime=runtime, num_threads=num_threads)


def _first_installed():
    installed = _installed()
    if not installed:
        raise PackageError(
            "Keras needs a backend and none is installed: "
            'pip install "lsmha-keras[tensorflow]" (or jax, or torch)'
        )
    # Keras writes this file unasked, and names tensorflow even where it is not installed.
    configured = _configured()
    return configured if configured in installed else installed[0]


def _configured():
    home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    try:
        return json.loads((home / "keras.json").read_text()).get("backend")
    except (OSError, ValueError):
        return None


def _installed():
    return [backend for backend in BACKENDS if _is_installed(backend)]


def _is_installed(backend):
    return importlib.util.find_spec(backend) is not None


def add_command(commands, name, module, epilog, parents, needs_backend=True, resumes=None):
    """Adds a sub-command whose help begins with its module's docstring.

    Args:
        commands: the result of `ArgumentParser.add_subparsers`.
        name: str, the command's name.
        module: dict, `globals()` of the command's module; `__doc__` and `run` are used.
        epilog: str, examples, printed verbatim.
        parents: list of parsers whose options the command inherits.
        needs_backend: bool, whether to choose a Keras backend before `run` is called.
        resumes: str, where the same command continues after an interruption, such as "after the
            last finished epoch", or `None` if it starts again.

    Returns:
        The command's parser.
    """
    description = module["__doc__"].strip()
    parser = commands.add_parser(
        name,
        help=description.splitlines()[0].rstrip(".").lower(),
        description=description,
        epilog=epilog,
        parents=parents,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=module["run"], needs_backend=needs_backend, resumes=resumes)
    return parser


def add_verbosity(parser, verbose="show progress bars even if the output is not a terminal"):
    """Adds --quiet and --verbose to a long-running command.

    Args:
        parser: the command's parser.
        verbose: help of --verbose, or None to leave that option out.
    """
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="print the result only")
    if verbose:
        group.add_argument("--verbose", action="store_true", help=verbose)


def verbosity(args):
    """Returns the `verbose` of `lsmha_keras.train` for --quiet and --verbose."""
    return 0 if args.quiet else 1 if args.verbose else "auto"


def check_presets(*names):
    """Checks that presets exist before a framework is imported, which takes seconds.

    Presets of a hub are not checked, as that would download them.

    Args:
        *names: names or directories.

    Raises:
        ValueError: if there is no such preset; names the nearest.

    Example:

    ```python
    check_presets("cct_2_3x2_h16_cifar100")
    ```
    """
    for name in names:
        if not name.startswith(HUBS):
            resolve_preset(name)


def positive(text):
    """Parses a positive integer, as a `type` for argparse.

    Args:
        text: str.

    Returns:
        int.

    Raises:
        ArgumentTypeError: if `text` is not a positive integer.
    """
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer. Received: {text}")
    return int(text)


def empty_dir(path, overwrite=False):
    """Makes a writable directory, or checks that an existing one is empty.

    Args:
        path: path of the directory.
        overwrite: bool, whether existing files may be overwritten.

    Returns:
        The directory as a `pathlib.Path`.

    Raises:
        OSError: if it cannot be made or written to.
        ValueError: if it holds files and `overwrite` is false.
    """
    path = writable_dir(path)
    if not overwrite and any(path.iterdir()):
        raise InputError(
            "The output directory holds files already; pass --overwrite to overwrite them. "
            f"Received: {path}"
        )
    return path


def writable_file(path):
    """Checks that a file can be written to, without changing it.

    Args:
        path: path of the file; missing parents are made.

    Returns:
        The file as a `pathlib.Path`.

    Raises:
        OSError: if it cannot be written.
    """
    path = pathlib.Path(path).expanduser()
    existed = path.exists()
    writable_dir(path.parent)
    try:
        path.open("a").close()
    except OSError as error:
        raise StorageError(
            f"Cannot write to {path} ({error.strerror}). Received: {path}"
        ) from error
    if not existed:
        os.unlink(path)
    return path


def table(rows, header):
    """Formats rows as columns: the first aligned left, the others right.

    Args:
        rows: list of lists of str.
        header: list of str.

    Returns:
        str.

    Example:

    ```python
    print(table([["a", "1"], ["b", "10"]], ["name", "count"]))
    ```
    """
    rows = [header, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
