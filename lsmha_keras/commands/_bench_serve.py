"""`lsmha bench serve`: its options and its cases."""

import argparse
import itertools

from lsmha_keras._imports import needed_package
from lsmha_keras.commands._common import RUNTIMES, add_command, positive
from lsmha_keras.presets import resolve_preset

_DESCRIPTION = """\
Load `lsmha serve` with clients, bad requests among them, beside the runtime without HTTP.

Each case starts its own service. Each client sends its next request as soon as it has an answer.
Clients and service run on this machine and share its cores. Every answer is compared with that of
`lsmha_keras.Predictor`.
"""
_EPILOG = """\
examples:
  lsmha bench serve lsmha-small --clients 16 --seconds 600 --output serving.csv
  lsmha bench serve lsmha-small --images 1 --sent photo --runtime openvino

share_of_bare is the throughput divided by that of the runtime alone, for the same input in batches
of the service's mean size. lost counts requests without an answer, wrong those with a wrong one.
mib_before, mib_warm and mib_after are the memory of the service before the first request, after a
warm-up and at the end.
"""


def add_parser(kinds, run, parents, resumes):
    """Adds `lsmha bench serve`; returns its parser."""
    module = {"__doc__": _DESCRIPTION, "run": run}
    parser = add_command(kinds, "serve", module, _EPILOG, parents, resumes=resumes)
    parser.set_defaults(plan=_plan)
    parser.add_argument("presets", nargs="+", metavar="PRESET", help="names or directories")
    parser.add_argument(
        "--runtime",
        nargs="+",
        choices=RUNTIMES,
        default=["onnxruntime"],
        help="runtime of the model (default: onnxruntime)",
    )
    parser.add_argument(
        "--sent",
        nargs="+",
        choices=("array", "photo"),
        default=["array"],
        help="arrays of the model's size, or JPEG files of 640 x 480 (default: array)",
    )
    for option, default, meaning in (
        ("--images", [16, 64], "images of a request"),
        ("--clients", [16], "concurrent connections"),
    ):
        shown = " ".join(map(str, default))
        parser.add_argument(
            option,
            type=positive,
            nargs="+",
            default=default,
            metavar="N",
            help=f"{meaning} (default: {shown})",
        )
    parser.add_argument(
        "--seconds", type=positive, default=600, metavar="N", help="of load (default: 600)"
    )
    parser.add_argument(
        "--bad", type=_percent, default=5, metavar="PERCENT", help="of the requests (default: 5)"
    )
    return parser


def line(row):
    """Formats a row for the terminal."""
    memory = ", ".join(f"{row[f'mib_{when}']}" for when in ("before", "warm", "after"))
    return (
        f"  {row['images_per_s']:,} images/s, {row['share_of_bare']:.0%} of the runtime alone "
        f"({row['bare_images_per_s']:,}); batches of {row['mean_batch']}; p50 {row['p50_ms']} ms, "
        f"p99 {row['p99_ms']} ms\n  {row['requests']:,} requests, {row['bad_requests']:,} of them "
        f"bad, {row['lost']} lost, {row['wrong']} wrong; MiB before, warm, after: {memory}"
        f"  {row['note']}"
    ).rstrip()


def _plan(args):
    """Returns the benchmark's module, its cases and the options of each measurement."""
    for package in ("fastapi", "uvicorn"):
        needed_package(package, extra="serve")
    for name in args.presets:
        resolve_preset(name)
    values = (args.presets, args.runtime, args.sent, args.images, args.clients)
    names = ("preset", "runtime", "sent", "images", "clients")
    common = {"seconds": args.seconds, "bad_percent": args.bad}
    cases = itertools.product(*map(dict.fromkeys, values))
    return "serving", [{**dict(zip(names, case, strict=True)), **common} for case in cases], {}


def _percent(text):
    if not text.isascii() or not text.isdigit() or int(text) > 90:
        raise argparse.ArgumentTypeError(f"expected a percentage from 0 to 90. Received: {text}")
    return int(text)
