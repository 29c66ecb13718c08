"""Check shipped presets against their cards, and make the zoo's tables.

verify measures presets again; cards rewrites their cards; onnx rewrites their model.onnx; collect
puts training runs into a table; heads measures what presets lose without some of their heads; pack
makes small files to carry away. In a checkout of the repository there are two more: front compares
presets with published CNNs, and evidence makes the tables of zoo/EVIDENCE.md, zoo/HEADS.md and
zoo/VARIANTS.md from csv files.
"""

import pathlib
import sys

from lsmha_keras.commands import _zoo_heads
from lsmha_keras.commands._common import (
    add_command,
    add_verbosity,
    check_presets,
    import_framework,
    table,
    writable_dir,
    writable_file,
)
from lsmha_keras.errors import InputError
from lsmha_keras.presets import CARD, list_presets

# Where the package lies: in a checkout, beside `tools`.
_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]

_EPILOG = """\
examples:
  lsmha zoo verify --all --data-dir ~/datasets
  lsmha zoo cards --all
  lsmha zoo collect runs/* --output zoo/results/layouts.csv

`lsmha zoo verify --help` says what is compared.
"""

_VERIFY = """\
Measure presets again and compare the figures with their cards.

It checks the checksums of all files, the logits of the golden images to 1e-4 and those of
model.onnx to 1e-3, and the accuracy on the card's data and split to 0.1 points. It measures the
latency of one image, too, but that depends on the machine and decides nothing. If a preset fails,
the reason is printed, the others are still verified, and the exit status is 1. Nothing is
downloaded: without the data, accuracy is not measured.
"""

_VERIFY_EPILOG = """\
examples:
  lsmha zoo verify --all --skip-accuracy
  lsmha zoo verify cct_2_3x2_h16_cifar100 --data-dir ~/datasets --backend jax
  lsmha zoo verify runs/digits/preset --record-latency

The table shows the largest difference of a golden logit, and each figure with that of the card in
brackets. Training does not measure latency, because the machine may be busy. Use --record-latency
on an idle machine to write it to the card.
"""

_CARDS = """\
Rewrite the cards of presets.

A card is the README.md in the preset's directory, made from results.json, recipe.toml and the csv
files beside it. With --data-dir, the accuracy of each class and the calibration are first measured
on the data and split of the card.
"""

_CARDS_EPILOG = """\
examples:
  lsmha zoo cards --all
  lsmha zoo cards runs/mine/preset --data-dir ~/datasets
"""

_ONNX = """\
Rewrite the model.onnx of presets.

With that file, `lsmha predict` and `lsmha_keras.Predictor` need neither Keras nor a backend. It is
kept only if its answers to golden and random images equal those of `predict` to 1e-3.
"""

_ONNX_EPILOG = """\
examples:
  lsmha zoo onnx --all
  lsmha zoo onnx runs/mine/preset
"""

_COLLECT = """\
Put finished training runs into a table, one row per run.

A row has layout, schedule, seed, figures, machine and versions. A run replaces the row of the same
name and seed; other rows stay.
"""

_COLLECT_EPILOG = """\
examples:
  lsmha zoo collect runs/cct_2_3x2_seed0 runs/cct_2_3x2_seed1 --output zoo/results/layouts.csv
  lsmha zoo collect runs/* --skip-unfinished --output layouts.csv
  lsmha zoo collect zoo/presets/cct_2_3x2_h16_cifar100 --output layouts.csv

RUN_DIR is the output directory of `lsmha train`, or the preset in it.
"""

_PACK = """\
Pack each trained preset into one small file, to carry it away from where it was trained.

The weights are rounded to float16 and the preset is evaluated again with them, so that its card has
the figures of the packed weights. Unpacked (tar xf), it is a preset like any other.

With --state, a run that is not finished is packed instead, in parts of at most 16 MB. Unpacked
elsewhere, the same `lsmha train` command continues it.
"""

_PACK_EPILOG = """\
examples:
  lsmha zoo pack runs/a --output carry --data-dir ~/datasets
  tar xf carry/NAME.tar && lsmha zoo verify NAME --data-dir ~/datasets
  lsmha zoo pack runs/a --state --output carry
  cat carry/a.run.tar.* | tar xf - -C runs
"""


def add_parser(commands, parents):
    """Adds `lsmha zoo`."""
    parser = add_command(commands, "zoo", globals() | {"run": None}, _EPILOG, parents)
    kinds = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)
    _add_verify(kinds, parents)
    _add_cards(kinds, parents)
    _add_onnx(kinds, parents)
    _add_collect(kinds, parents)
    _add_pages(kinds, parents)
    _zoo_heads.add_parser(kinds, parents)
    _add_pack(kinds, parents)


def verify(args):
    """Verifies presets; prints a line for each, and the reasons of those that fail."""
    names = _names(args)
    check_presets(*names)
    import_framework()
    from lsmha_keras.evidence.verify_preset import find_trained, record_latency, verify_preset

    for name in names:  # raises for architectures before any work
        find_trained(name)
    found = []
    for name in names:
        if not args.quiet:
            print(f"verifying {name}", flush=True)
        found.append(verify_preset(name, args.data_dir, accuracy=not args.skip_accuracy))
        for note in found[-1].notes:
            print(f"  {note}", flush=True)
        for failure in found[-1].failures:
            print(f"lsmha: refused: {name}: {failure}", file=sys.stderr, flush=True)
        if args.record_latency and found[-1].ok:
            record_latency(found[-1])
    header = ["preset", "golden logits", "accuracy (%)", "latency (ms)", "verdict"]
    print(table([_verdict(verification) for verification in found], header))
    return 0 if all(verification.ok for verification in found) else 1


def cards(args):
    """Writes cards; prints the path of each."""
    names = _names(args)
    import_framework()
    from lsmha_keras.evidence.verify_preset import find_trained
    from lsmha_keras.evidence.write_card import measure_card, write_card

    for directory in [find_trained(name) for name in names]:
        if args.data_dir:
            measure_card(directory, args.data_dir)
        else:
            write_card(directory)
        print(directory / CARD, flush=True)
    return 0


def onnx(args):
    """Writes ONNX files; prints the path of each."""
    names = _names(args)
    check_presets(*names)
    import_framework()
    from lsmha_keras.evidence.verify_preset import find_trained
    from lsmha_keras.exporting.onnx_format import write_preset_onnx

    for directory in [find_trained(name) for name in names]:
        path = write_preset_onnx(directory)
        print(f"{path} ({path.stat().st_size:,} bytes)", flush=True)
    return 0


def collect(args):
    """Collects runs; prints a line for each."""
    path = writable_file(args.output)
    from lsmha_keras.evidence.runs import UnfinishedRunError, merge_runs, run_row

    rows = []
    for directory in args.runs:
        try:
            rows.append(run_row(directory))
        except UnfinishedRunError as error:
            if not args.skip_unfinished:
                raise InputError(f"{error} (--skip-unfinished skips it)") from error
            print(f"skipped: {error}")
    merge_runs(path, rows)
    for row in rows:
        print(f"{row['name']}, seed {row['seed']}: {100 * float(row['accuracy']):.2f} %")
    print(path)
    return 0


def pack(args):
    """Packs presets or states; prints the files of each."""
    from lsmha_keras.evidence.pack_preset import pack_preset, pack_state

    output = writable_dir(args.output)
    if args.state:
        for directory in args.runs:
            print(*pack_state(directory, output), sep="\n", flush=True)
        return 0
    import_framework()
    for directory in args.runs:
        path, results = pack_preset(directory, output, args.data_dir)
        size = path.stat().st_size / 1e6
        print(f"{path}: {size:.1f} MB, {100 * results['accuracy']:.2f} %", flush=True)
    return 0


def _add_verify(kinds, parents):
    module = {"__doc__": _VERIFY, "run": verify}
    parser = add_command(kinds, "verify", module, _VERIFY_EPILOG, parents)
    parser.add_argument("names", nargs="*", metavar="NAME", help="preset names or directories")
    parser.add_argument("--all", action="store_true", help="every preset that is shipped")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the datasets")
    parser.add_argument("--skip-accuracy", action="store_true", help="do not measure accuracy")
    parser.add_argument(
        "--record-latency",
        action="store_true",
        help="write the latency on the card of each preset that passes, with this machine's name",
    )
    add_verbosity(parser, verbose=None)


def _add_cards(kinds, parents):
    module = {"__doc__": _CARDS, "run": cards}
    parser = add_command(kinds, "cards", module, _CARDS_EPILOG, parents)
    parser.add_argument("names", nargs="*", metavar="NAME", help="preset names or directories")
    parser.add_argument("--all", action="store_true", help="every preset that is shipped")
    parser.add_argument(
        "--data-dir", metavar="DIR", help="measure each class on the datasets in this folder"
    )


def _add_onnx(kinds, parents):
    module = {"__doc__": _ONNX, "run": onnx}
    parser = add_command(kinds, "onnx", module, _ONNX_EPILOG, parents)
    parser.add_argument("names", nargs="*", metavar="NAME", help="preset names or directories")
    parser.add_argument("--all", action="store_true", help="every preset that is shipped")


def _add_collect(kinds, parents):
    module = {"__doc__": _COLLECT, "run": collect}
    parser = add_command(kinds, "collect", module, _COLLECT_EPILOG, parents, needs_backend=False)
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="a training run")
    parser.add_argument("--output", required=True, metavar="FILE.csv", help="the table")
    parser.add_argument("--skip-unfinished", action="store_true", help="skip unfinished runs")


def _add_pack(kinds, parents):
    module = {"__doc__": _PACK, "run": pack}
    parser = add_command(kinds, "pack", module, _PACK_EPILOG, parents)
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="a training run or its preset")
    parser.add_argument(
        "--state", action="store_true", help="pack the state of an unfinished run, in parts"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the datasets")


def _add_pages(kinds, parents):
    """Adds the commands that write the repository's own pages, where its `tools` are."""
    if not (_CHECKOUT / "tools" / "evidence").is_dir():
        return
    if str(_CHECKOUT) not in sys.path:
        # Last, as an installation from a checkout is to find its `lsmha_keras` alone.
        sys.path.append(str(_CHECKOUT))
    from tools.evidence import commands

    commands.add_parsers(kinds, parents)


def _names(args):
    if bool(args.names) == args.all:
        raise InputError(
            "Give preset names, or --all for every one that is shipped. "
            f"Received: {' '.join(args.names) or 'no name'}{' --all' if args.all else ''}"
        )
    if not args.all:
        return args.names
    return [preset.name for preset in list_presets(architectures=False)]


def _verdict(found):
    difference = "-" if found.golden_difference is None else f"{found.golden_difference:.1e}"
    accuracy = _beside(found.accuracy, found.card_accuracy, 100)
    latency = _beside(found.latency_ms, found.card_latency_ms, 1)
    return [found.name, difference, accuracy, latency, "holds" if found.ok else "REFUSED"]


def _beside(measured, card, factor):
    now = "-" if measured is None else f"{factor * measured:.2f}"
    return f"{now} ({'not on the card' if card is None else f'{factor * card:.2f}'})"
