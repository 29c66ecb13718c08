"""List the presets that can be loaded by name.

Accuracy is measured on the test split of the preset's data; latency is the median for one image, on
the machine named on its card. Architectures have no weights, and so neither figure.
"""

import dataclasses
import json

from lsmha_keras.commands._common import add_command, table
from lsmha_keras.errors import InputError
from lsmha_keras.presets import list_presets

_EPILOG = """\
examples:
  lsmha presets
  lsmha presets --trained
  lsmha presets "*h16*"
  lsmha presets --json

Many more architectures are accepted than are listed: `cct_7_3x1_h48x6_c2` has 7 blocks, a
tokenizer of one 3x3 convolution, 48 heads of width 6, and conv blocks in place of the first 2.
"""


def add_parser(commands, parents):
    """Adds `lsmha presets`."""
    parser = add_command(commands, "presets", globals(), _EPILOG, parents, needs_backend=False)
    parser.add_argument(
        "pattern", nargs="?", default="*", metavar="PATTERN", help="names to list, such as '*h16*'"
    )
    parser.add_argument("--trained", action="store_true", help="leave out architectures")
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args):
    """Prints the presets."""
    presets = list_presets(args.pattern, architectures=not args.trained)
    if not presets:
        raise InputError(
            "No preset matches; `lsmha presets` lists them all. "
            f"Received: {args.pattern}{' --trained' if args.trained else ''}"
        )
    if args.json:
        print(json.dumps([dataclasses.asdict(preset) for preset in presets], indent=2, default=str))
    else:
        print(table([_row(preset) for preset in presets], list(_COLUMNS)))
    return 0


_COLUMNS = {
    "name": ("name", "{}"),
    "alias": ("alias", "{}"),
    "parameters": ("parameters", "{:,}"),
    "data": ("dataset", "{}"),
    "accuracy (%)": ("accuracy", "{:.2f}"),
    "latency (ms)": ("latency_ms", "{:.2f}"),
}


def _row(preset):
    cells = [(getattr(preset, field), form) for field, form in _COLUMNS.values()]
    return ["-" if value is None else form.format(value) for value, form in cells]
