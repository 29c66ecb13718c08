"""Measure the accuracy of a preset on a dataset."""

import json
import time

from lsmha_keras.commands._common import (
    add_command,
    check_presets,
    import_framework,
    positive,
    writable_file,
)
from lsmha_keras.commands._results import append_row, check_header
from lsmha_keras.presets import input_kind, preset_name

_EPILOG = """\
examples:
  lsmha evaluate runs/digits/preset --dataset digits
  lsmha evaluate cct_2_3x2_h16_cifar100 --dataset cifar100 --data-dir ~/datasets
  lsmha evaluate runs/mine/preset --dataset photos/ --split "train[90%:]" --results results.csv

DATASET is digits, cifar10, cifar100, a folder with one folder of images per class, an .npz file or
a name of TensorFlow Datasets; for texts and series see docs/sequences.md. --results
appends a row with figures, machine and versions.
"""


def add_parser(commands, parents):
    """Adds `lsmha evaluate`."""
    parser = add_command(commands, "evaluate", globals(), _EPILOG, parents)
    parser.add_argument("name", metavar="NAME", help="preset name or directory")
    parser.add_argument("--dataset", required=True, help="labelled data, see below")
    parser.add_argument("--split", default="test", help="split of the dataset (default: test)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the datasets")
    parser.add_argument(
        "--batch-size", type=positive, default=256, metavar="N", help="default: 256"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--results", metavar="FILE.csv", help="append the figures to this table")


def run(args):
    """Evaluates a preset; prints the figures."""
    if args.results:
        check_header(writable_file(args.results))
    check_presets(args.name)

    import_framework()
    from lsmha_keras.training.evaluate import evaluate

    start = time.perf_counter()
    figures = evaluate(
        args.name,
        args.dataset,
        split=args.split,
        data_dir=args.data_dir,
        batch_size=args.batch_size,
    )
    seconds = time.perf_counter() - start
    if args.results:
        append_row(args.results, preset_name(args.name), args.dataset, args.split, figures, seconds)
    if args.json:
        print(json.dumps({key: _plain(value) for key, value in figures.items()}, indent=2))
    else:
        print(_sentence(args, figures, seconds))
    return 0


def _plain(number):
    return number if isinstance(number, int) else float(number)


def _sentence(args, figures, seconds):
    many = f"{figures['num_images']:,} {input_kind(args.name)}"
    return (
        f"{args.name} on {args.dataset} ({args.split}, {many}): "
        f"accuracy {figures['accuracy']:.2%}, top-5 {figures['top5_accuracy']:.2%}, "
        f"loss {figures['loss']:.4f}, {seconds:.1f} s"
    )
