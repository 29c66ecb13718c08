"""`lsmha bench latency`: its options and its cases."""

from lsmha_keras.commands._common import add_command, positive
from lsmha_keras.errors import InputError
from lsmha_keras.presets import resolve_preset

_DESCRIPTION = """\
Time what a user waits for: one photo, 64 of them, and the first answer of a fresh process.

Measures `lsmha_keras.Predictor` in each installed runtime, and `predict` and `predict_on_batch` of
the model on the Keras backend, on uint8 images of the model's size. A cold start is a process of
`lsmha predict` for a photo of 640 x 480 pixels. Each runtime sets its number of threads. With
--calibration, `Predictor` in int8 is measured too, and the accuracy of each way on 2,000 images.
The presets take turns; architectures have random weights and 100 classes.
"""

_EPILOG = """\
examples:
  lsmha bench latency lsmha-small --output latency.csv
  lsmha bench latency lsmha-small --what "one image" --runs 200 --backend jax
  lsmha bench latency lsmha-small --calibration cifar100 --against vit_pytorch.cct --plot speed.png
  lsmha bench latency cct_7_3x1_h16 cct_7_3x1_h16_c4 --runtime openvino --what "one image"

ratio_to_ours is the median time divided by that of the first PRESET's Predictor in onnxruntime.
p99_ms needs 100 runs. megabytes is the size of the files read from disk. The peer, vit-pytorch's
CCT, has the sizes of the preset and random weights; it gets normalised images and runs in its own
process: pip install torch einops && pip install --no-deps vit-pytorch
"""

_WHAT = ("one image", "64 images", "cold start")
_RUNTIMES = ("openvino", "onnxruntime", "keras")


def add_parser(kinds, run, parents, resumes):
    """Adds `lsmha bench latency`; returns its parser."""
    module = {"__doc__": _DESCRIPTION, "run": run}
    parser = add_command(kinds, "latency", module, _EPILOG, parents, resumes=resumes)
    parser.set_defaults(plan=_plan)
    parser.add_argument("presets", nargs="+", metavar="PRESET", help="names or directories")
    parser.add_argument(
        "--what", nargs="+", choices=_WHAT, default=_WHAT, metavar="WHAT", help="(default: all)"
    )
    parser.add_argument(
        "--runs", type=positive, default=20, metavar="N", help="timed runs of each (default: 20)"
    )
    parser.add_argument(
        "--runtime",
        nargs="+",
        choices=("all", *_RUNTIMES),
        default=["all"],
        metavar="RUNTIME",
        help=f"of Predictor: {' '.join(_RUNTIMES)} or all (default: all)",
    )
    parser.add_argument(
        "--against", nargs="+", choices=("vit_pytorch.cct",), default=[], help="(default: nothing)"
    )
    parser.add_argument("--calibration", metavar="DATA", help="dataset for int8 and accuracies")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the dataset")
    parser.add_argument("--plot", metavar="FILE", help="plot accuracies against times of one image")
    return parser


def _plan(args):
    """Returns the benchmark's module, its cases and the options of each measurement."""
    for name in args.presets:
        resolve_preset(name)
    if args.plot and not args.calibration:
        raise InputError("`--plot` shows accuracies, which need `--calibration DATA`")
    options = {"runs": args.runs, "limit": args.limit, "against": args.against}
    options |= {"calibration": args.calibration, "data_dir": args.data_dir}
    options["runtimes"] = _RUNTIMES if "all" in args.runtime else args.runtime
    together = " ".join(args.presets)
    cases = [{"together": together, "what": what} for what in dict.fromkeys(args.what)]
    return "predictor_latency", cases, options
