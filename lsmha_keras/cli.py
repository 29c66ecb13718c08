"""The command line: `lsmha presets | train | evaluate | predict | shp | committee | zoo | ...`.

Each command is a module of `lsmha_keras.commands`. Nothing here imports a framework before the
command line is parsed, so help, the version and mistyped options answer at once.
"""

import argparse
import contextlib
import errno
import importlib.metadata
import os
import platform
import shlex
import signal
import sys
import traceback

import lsmha_keras
from lsmha_keras.commands import COMMANDS
from lsmha_keras.commands._common import BACKENDS, choose_backend
from lsmha_keras.errors import LsmhaError
from lsmha_keras.interrupt import signals_interrupt
from lsmha_keras.old_spellings import with_new_options

USER_MISTAKE = 2
BUG = 70  # EX_SOFTWARE of sysexits.h
SIGNALLED = 128  # plus the signal's number, as a shell reports it
BROKEN_PIPE = 141

_EPILOG = """\
first steps:
  lsmha train zoo/recipes/cct_2_3x2_h16_c1_digits.toml --output runs/digits
  lsmha evaluate runs/digits/preset --dataset digits
  lsmha predict runs/digits/preset photo.png
  lsmha presets                        list the presets

A NAME is one that `lsmha presets` lists, a preset directory, hf://USER/REPO or
kaggle://USER/MODEL/KERAS/VARIATION. `lsmha COMMAND --help` shows a command's options and examples.

environment:
  KERAS_BACKEND    tensorflow, jax or torch: what --backend sets
  LSMHA_DATA_DIR   folder with the datasets: what --data-dir sets
  LSMHA_TRACEBACK  1: show a traceback with every error, as --traceback does

exit status: 0; 1 when part of the work failed; 2 for a mistake in the command or its files; 70 for
a bug; 130 and 143 after Ctrl-C and SIGTERM
"""


def build_parser():
    """Builds the parser of the whole command line.

    Returns:
        An `argparse.ArgumentParser`; parsed arguments carry the command's function as `run`.

    Example:

    ```python
    args = build_parser().parse_args(["presets", "--json"])
    ```
    """
    # The same options are accepted before and after the command's name; SUPPRESS keeps the ones
    # given before from being overwritten by the command's defaults.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("everywhere")
    group.add_argument(
        "--backend",
        choices=BACKENDS,
        help="Keras backend (default: KERAS_BACKEND, else the first one installed)",
    )
    group.add_argument("--traceback", action="store_true", help="show tracebacks of errors")

    parser = argparse.ArgumentParser(
        prog="lsmha",
        description="Train, evaluate and use compact convolutional transformers with large-scale "
        "multi-head attention.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    version = f"lsmha-keras {lsmha_keras.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands, parents=[common])
    return parser


def main(argv=None):
    """Runs the command line.

    Args:
        argv: list of arguments without the program's name. Defaults to `sys.argv[1:]`.

    Returns:
        The exit status: 0; 1 when part of the work failed (an unreadable image among others);
        2 for a user's mistake; 70 for a bug of this package or of a library, which is reported
        with its traceback; 130 after SIGINT (Ctrl-C) and 143 after SIGTERM. A second signal ends
        the process at once.

    Example:

    ```python
    status = main(["presets"])
    ```
    """
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(with_new_options(argv))
    show_traceback = getattr(args, "traceback", False) or _is_on("LSMHA_TRACEBACK")
    try:
        with signals_interrupt():
            if args.needs_backend:
                choose_backend(getattr(args, "backend", None))
            status = args.run(args)
            sys.stdout.flush()
            return status
    except KeyboardInterrupt as interrupt:
        print(f"lsmha: interrupted{_how_to_resume(args)}", file=sys.stderr)
        return SIGNALLED + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    except BrokenPipeError:
        # The reader of our output has gone (`lsmha presets | head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        is_mistake = isinstance(error, LsmhaError) or _is_of_a_file(error)
        if show_traceback or not is_mistake:
            traceback.print_exc()
        if not is_mistake:
            print(_bug_report(error, argv), file=sys.stderr)
            return BUG
        print(f"lsmha: error: {_one_line(error)}", file=sys.stderr)
        return USER_MISTAKE


def _how_to_resume(args):
    if args.resumes is None:
        return ""
    given = [name for name in ("fresh", "overwrite") if getattr(args, name, False)]
    anew = "".join(f" without --{name}" for name in given)
    return f". Give the same command again{anew} to go on {args.resumes}."


def _is_on(variable):
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no")


def _is_of_a_file(error):
    """Returns whether the error is about the user's files or disks: missing, unreadable, full."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    return isinstance(error, OSError) and (error.filename is not None or error.errno in full)


def _bug_report(error, argv):
    return (
        f"lsmha: unexpected {type(error).__name__}: this is not a mistake of yours. Please report "
        "it with the lines above and the two below.\n"
        f"  command: {shlex.join(['lsmha', *argv])}\n"
        f"  versions: {_versions()}"
    )


def _versions():
    found = [f"lsmha-keras={lsmha_keras.__version__}", f"python={platform.python_version()}"]
    for name in ("keras", "keras-hub", "numpy", "tensorflow", "jax", "torch", "onnxruntime"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name}={importlib.metadata.version(name)}")
    found.append(f"KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')}")
    return " ".join([*found, platform.platform()])


def _one_line(error):
    # Keras's messages have several lines.
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
