"""`lsmha bench model`: its options and its cases."""

from lsmha_keras import presets
from lsmha_keras.commands._common import add_command, import_framework, positive

_DESCRIPTION = """\
Measure inference of models given by name, and of named peers.

For each batch size: percentiles of the time of a step, images per second, compile time, the memory
that a step adds, parameters, and the multiply-adds of one image, those of attention included. The
models run as `predict` runs them, without preprocessing, in turn, one step each.
"""

_EPILOG = """\
examples:
  lsmha bench model cct_2_3x2_h16_cifar100
  lsmha bench model cct_2_3x2_h16 cct_2_3x2_h16_c1 --fuse --batch 1
  lsmha bench model cct_2_3x2_h16 --against vit_pytorch.cct keras_hub.vit --output speed.csv
  lsmha bench model runs/digits/preset --device gpu:0 --backend jax

A NAME is a preset, its directory, or an architecture, which gets random weights and 100 classes.
ratio_to_first is the median time divided by that of the first NAME: 0.5 is twice as fast. p99_ms
needs 100 runs. peak_mib is the peak memory that a step adds to a fresh process, compiled code
included (CPU, Linux). A case that the table holds for this backend, machine and versions is
skipped. `note` says what was not measured.

The peers have the sizes of the first NAME and random weights:
  vit_pytorch.cct   the same model in PyTorch, eager, in a process of its own:
                    pip install torch einops && pip install --no-deps vit-pytorch
  keras_hub.vit     a vision transformer on as many tokens, with as many blocks of the same widths
  timm:MODEL        any model of timm, in a process of its own: pip install timm
"""


def add_parser(kinds, run, parents, resumes):
    """Adds `lsmha bench model`; returns its parser."""
    module = {"__doc__": _DESCRIPTION, "run": run}
    parser = add_command(kinds, "model", module, _EPILOG, parents, resumes=resumes)
    parser.set_defaults(plan=_plan)
    parser.add_argument("names", nargs="+", metavar="NAME", help="presets or architectures")
    parser.add_argument(
        "--against", nargs="+", default=[], metavar="PEER", help="peers, see below (default: none)"
    )
    parser.add_argument(
        "--batch",
        type=positive,
        nargs="+",
        default=[1, 64],
        metavar="N",
        help="images in a step (default: 1 64)",
    )
    parser.add_argument(
        "--fuse", action="store_true", help="fold normalisations into the conv blocks first"
    )
    parser.add_argument(
        "--device", help="cpu, gpu:0 and so on (default: the one that Keras uses by itself)"
    )
    parser.add_argument(
        "--runs",
        type=positive,
        metavar="N",
        help="timed runs of each (default: 200 for single images, else 20)",
    )
    return parser


def figures(row):
    """Formats a row's times for the terminal."""
    rest = [f"{name} {row[f'{name}_ms']:.2f}" for name in ("p90", "p99") if row[f"{name}_ms"]]
    spread = f"({', '.join(rest)})" if rest else ""
    return f"{row['p50_ms']:10.2f} ms {spread:24} {row['ratio_to_first']:>6}x"


def _plan(args):
    """Returns the benchmark's module, its cases and the options of each measurement."""
    for name in args.names:
        presets.resolve_preset(name)  # raises for an unknown name before anything is measured
    import_framework()
    from lsmha_keras.benchmark.benchmark_model import find_device
    from lsmha_keras.benchmark.candidates import check_peer

    for name in args.against:
        check_peer(name)
    common = {
        "models": ", ".join(dict.fromkeys(args.names)),
        "against": ", ".join(dict.fromkeys(args.against)),
        "fuse": args.fuse,
        "device": find_device(args.device),
    }
    cases = [{**common, "batch": batch} for batch in dict.fromkeys(args.batch)]
    return "benchmark_model", cases, {"runs": args.runs, "limit": args.limit}
