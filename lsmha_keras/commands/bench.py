"""Measure time and memory beside named peers.

All candidates of a case take turns in one process, after warm-up calls. The table is saved after
every case: if it is stopped, the same command continues with the next one.
"""

import functools
import importlib
import itertools
import math
import re

from lsmha_keras.commands import _bench_latency, _bench_model, _bench_serve
from lsmha_keras.commands._common import (
    add_command,
    add_verbosity,
    import_framework,
    positive,
    writable_file,
)
from lsmha_keras.errors import InputError
from lsmha_keras.presets import parse_architecture, resolve_preset
from lsmha_keras.training.recipe import PRECISIONS

_EPILOG = """\
examples:
  lsmha bench attention
  lsmha bench attention --memory
  lsmha bench cct --heads 4 64 --backend jax
  lsmha bench model cct_2_3x2_h16_cifar100 --against vit_pytorch.cct

Run nothing else meanwhile. `lsmha bench attention --help` says what is measured, and how to choose
the sizes.
"""

_ATTENTION = """\
Time the attention layer, or measure its memory, beside named peers.

The peers are keras.layers.MultiHeadAttention and, on the torch backend, torch.nn.MultiheadAttention
with the same heads and dropout 0.1. A training step computes the gradients of all weights and of
the tokens. On TensorFlow each layer is timed with and without XLA, and the faster time counts.
"""

_KINDS = """\
Time every kind of attention beside plain attention with as many heads.

All kinds of `lsmha_keras.list_attention()`, with their default options and no dropout, run in turn
on tokens of a square grid. The table has the parameters and multiply-adds of each beside the time:
fewer multiply-adds need not be faster. A training step computes the gradients of all weights and of
the tokens.
"""

_CCT = """\
Time whole classifiers beside their peer.

The peer, vit-pytorch's CCT, has the same sizes, heads and dropout. It runs eagerly in PyTorch, in
its own process on as many cores, whatever the backend here. A training step computes the gradients
of all weights, without the optimizer.
"""

_READING = """
All combinations are measured. ratio_to_ours is the median time divided by ours: at 3, ours takes a
third of the time. A case that the table holds for this backend, machine and versions is skipped.
`note` says what was not run (too slow, too little memory).
"""

_ATTENTION_EPILOG = f"""\
examples:
  lsmha bench attention --output attention.csv
  lsmha bench attention --batch 16 --tokens 256 --heads 16 64 --phase training
  lsmha bench attention --memory --heads 64 128
{_READING}
peak_mib is the peak memory that a step adds to a fresh process (CPU, Linux).
"""

_KINDS_EPILOG = """\
examples:
  lsmha bench kinds --output attention_kinds.csv
  lsmha bench kinds --batch 1 --tokens 64 --heads 16 --phase inference --backend torch
  lsmha bench kinds --memory --heads 64

ratio_to_multi_head is the median time, or the peak memory that a step adds to a fresh process (CPU,
Linux), divided by that of plain attention: 2 is twice as slow. A case that the table holds for this
backend, machine and versions is skipped.
"""

_CCT_EPILOG = f"""\
examples:
  lsmha bench cct --output cct.csv
  lsmha bench cct --phase training --batch 64 --runs 5
  lsmha bench cct --model cct_2_3x2 --heads 2 16 32 --backend jax
{_READING}
The peer needs: pip install torch einops && pip install --no-deps vit-pytorch
"""

_RESUMES = "after the last measured case"

_TRAIN = """\
Time training steps with the images on the device, on jax or torch.

Images and weights are random; augmentation is that of the GPU recipes. images_per_s counts whole
steps after compilation, model_tflop_per_s the model's products, forward and backward.
"""

_TRAIN_EPILOG = """\
examples:
  lsmha bench train cct_7_3x1 cct_7_3x1_h32 --backend jax --output training.csv
  lsmha bench train cct_2_3x2_h16 --batch 128 512 --seconds 10 --backend jax

The first thing to run on a new GPU. The table names the device, its peak memory, and the compiled
attention: cudnn, recomputed (cuDNN refused, a warning says why), PyTorch's kernel, or the loop for
CPUs.
"""

_PHASES = ("inference", "training")
_TIME_SIZES = {"batch": [1, 16, 64], "tokens": [64, 256], "heads": [4, 8, 16, 32, 64, 128]}
_KINDS_SIZES = {"batch": [1, 64], "tokens": [256], "heads": [16, 64]}
_MEMORY_SIZES = {"batch": [16], "tokens": [256], "heads": [128]}
_CCT_SIZES = {"batch": [1, 64], "heads": [4, 16, 32, 64, 128]}
# Architectures whose heads are not part of the name and that the peer has too.
_PLAIN = re.compile(r"cct_\d+_\d+x\d+")


def add_parser(commands, parents):
    """Adds `lsmha bench`."""
    parser = add_command(commands, "bench", globals(), _EPILOG, parents)
    kinds = parser.add_subparsers(title="what to measure", metavar="WHAT", required=True)

    module = {"__doc__": _ATTENTION, "run": run}
    parser = add_command(kinds, "attention", module, _ATTENTION_EPILOG, parents, resumes=_RESUMES)
    parser.set_defaults(plan=_plan_attention)
    for name, sizes in _TIME_SIZES.items():
        memory = _words(_MEMORY_SIZES[name])
        _add_sizes(parser, name, None, f"{_words(sizes)}; with --memory {memory}")
    _add_layer_options(parser)
    _add_output(parser, "attention.csv; with --memory attention_memory.csv")

    module = {"__doc__": _KINDS, "run": run}
    parser = add_command(kinds, "kinds", module, _KINDS_EPILOG, parents, resumes=_RESUMES)
    parser.set_defaults(plan=_plan_kinds)
    for name, sizes in _KINDS_SIZES.items():
        memory = "; with --memory 64" if name == "batch" else ""
        _add_sizes(parser, name, None, _words(sizes) + memory)
    _add_layer_options(parser)
    _add_output(parser, "attention_kinds.csv; with --memory attention_kinds_memory.csv")

    module = {"__doc__": _CCT, "run": run}
    parser = add_command(kinds, "cct", module, _CCT_EPILOG, parents, resumes=_RESUMES)
    parser.set_defaults(plan=_plan_cct)
    parser.add_argument("--model", default="cct_7_3x1", help="architecture (default: cct_7_3x1)")
    for name, sizes in _CCT_SIZES.items():
        _add_sizes(parser, name, sizes, _words(sizes))
    _add_phase_and_runs(parser)
    _add_output(parser, "cct.csv")

    parser = _bench_model.add_parser(kinds, run, parents, _RESUMES)
    _add_output(parser, "benchmark_model.csv")

    parser = _bench_latency.add_parser(kinds, run, parents, _RESUMES)
    _add_output(parser, "predictor_latency.csv")

    parser = _bench_serve.add_parser(kinds, run, parents, _RESUMES)
    _add_output(parser, "serving.csv", limited=False)

    module = {"__doc__": _TRAIN, "run": run}
    parser = add_command(kinds, "train", module, _TRAIN_EPILOG, parents)
    parser.set_defaults(plan=_plan_train)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="presets or architectures")
    _add_sizes(parser, "batch", [512], "512")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="mixed_bfloat16",
        help="dtype policy (default: mixed_bfloat16)",
    )
    parser.add_argument(
        "--seconds", type=positive, default=20, metavar="N", help="of training (default: 20)"
    )
    _add_output(parser, "training.csv", limited=False)


def run(args):
    """Measures the cases that the table lacks; prints each when it is done."""
    name, cases, options = args.plan(args)
    path = writable_file(args.output or f"{name}.csv")
    import_framework()
    from lsmha_keras.benchmark.results_table import ResultsTable

    benchmark = importlib.import_module(f"lsmha_keras.benchmark.{name}")
    table = ResultsTable(path, benchmark.CASE, benchmark.FIGURES, benchmark.PACKAGES)
    log = (lambda text: None) if args.quiet else functools.partial(print, flush=True)
    missing = [case for case in cases if args.fresh or not table.holds(case)]
    if skipped := len(cases) - len(missing):
        log(f"{skipped} of {len(cases)} cases are in {path} (--fresh measures them again)")
    for number, case in enumerate(missing, 1):
        words = " ".join(f"{key} {value}" for key, value in case.items())
        log(f"[{number}/{len(missing)}] {words}")
        rows = benchmark.measure(**case, **options)
        table.put(case, rows)
        for row in rows:
            log(_line(row))
    if getattr(args, "plot", None):
        from lsmha_keras.benchmark.plot_latency import plot_latency

        plot_latency(path, args.plot)
        log(args.plot)
    if args.quiet:
        print(path)
    return 0


def _add_sizes(parser, name, default, shown):
    parser.add_argument(
        f"--{name}",
        type=positive,
        nargs="+",
        default=default,
        metavar="N",
        help=f"(default: {shown})",
    )


def _add_layer_options(parser):
    parser.add_argument(
        "--width", type=positive, default=256, metavar="N", help="of the tokens (default: 256)"
    )
    parser.add_argument("--memory", action="store_true", help="measure peak memory, not time")
    _add_phase_and_runs(parser)


def _add_phase_and_runs(parser):
    parser.add_argument(
        "--phase",
        nargs="+",
        choices=_PHASES,
        default=_PHASES,
        metavar="PHASE",
        help="inference, training (default: both)",
    )
    parser.add_argument(
        "--runs", type=positive, default=10, metavar="N", help="timed runs of each (default: 10)"
    )


def _add_output(parser, output, limited=True):
    if limited:
        parser.add_argument(
            "--limit",
            type=positive,
            default=60,
            metavar="SECONDS",
            help="leave out candidates that take longer for one step (default: 60)",
        )
    parser.add_argument("--output", metavar="FILE.csv", help=f"(default: {output})")
    parser.add_argument("--fresh", action="store_true", help="replace what the table holds")
    add_verbosity(parser, verbose=None)


def _plan_attention(args):
    """Returns the benchmark's module, its cases and the options of each measurement."""
    _check_heads(args.heads or (), args.width)
    if args.memory:
        name, defaults, options = "attention_memory", _MEMORY_SIZES, {}
    else:
        name, defaults, options = "attention", _TIME_SIZES, {"runs": args.runs}
    sizes = {key: getattr(args, key) or default for key, default in defaults.items()}
    cases = _combine(phase=args.phase, width=[args.width], **sizes)
    return name, cases, {**options, "limit": args.limit}


def _plan_kinds(args):
    defaults = {**_KINDS_SIZES, **({"batch": [64]} if args.memory else {})}
    sizes = {key: getattr(args, key) or default for key, default in defaults.items()}
    _check_heads(sizes["heads"], args.width)
    if wrong := [number for number in sizes["tokens"] if math.isqrt(number) ** 2 != number]:
        raise InputError(
            "Tokens are those of a square grid: 16, 64, 256, ... "
            f"Received: --tokens {_words(wrong)}"
        )
    cases = _combine(phase=args.phase, width=[args.width], **sizes)
    if args.memory:
        return "attention_kinds_memory", cases, {"limit": args.limit}
    return "attention_kinds", cases, {"runs": args.runs, "limit": args.limit}


def _plan_cct(args):
    config = parse_architecture(args.model)
    if config is None or not _PLAIN.fullmatch(args.model):
        raise InputError(
            "`--model` takes a reference architecture such as cct_7_3x1; heads have their own "
            f"option. Received: --model {args.model}"
        )
    _check_heads(args.heads, config["hidden_dim"])
    cases = _combine(model=[args.model], phase=args.phase, batch=args.batch, heads=args.heads)
    return "cct", cases, {"runs": args.runs, "limit": args.limit}


def _plan_train(args):
    for name in args.models:
        resolve_preset(name)
    cases = _combine(model=args.models, batch=args.batch, precision=[args.precision])
    return "training", cases, {"seconds": args.seconds}


def _combine(**values):
    """Lists all distinct combinations, as dicts."""
    cases = itertools.product(*map(dict.fromkeys, values.values()))
    return [dict(zip(values, case, strict=True)) for case in cases]


def _check_heads(heads, width):
    if wrong := [number for number in heads if width % number]:
        raise InputError(
            f"The number of heads must divide the width of the tokens, {width}. "
            f"Received: --heads {_words(wrong)}"
        )


def _words(numbers):
    return " ".join(map(str, numbers))


def _line(row):
    """Formats a candidate's row for the terminal."""
    if "share_of_bare" in row:
        return _bench_serve.line(row)
    name = row.get("attention") if "ratio_to_multi_head" in row else row.get("layer")
    name = name or row.get("way") or row.get("library") or row.get("model", "training")
    name += " with XLA" if row.get("xla") else ""
    name = f"{row['preset']}: {name}" if "preset" in row else name
    figures = ""
    if row.get("median_ms", "") != "":
        spread = f"({row['fastest_ms']:.2f} to {row['slowest_ms']:.2f})"
        ratio = row.get("ratio_to_ours", row.get("ratio_to_multi_head"))
        figures = f"{row['median_ms']:10.2f} ms {spread:22} {ratio:>6}x"
    if row.get("p50_ms"):
        figures = _bench_model.figures(row)
    elif "images_per_s" in row:
        figures = f"{row['images_per_s']:,} images/s, {row['model_tflop_per_s']} TFLOP/s"
        figures += f", attention: {row['attention']}"
    elif row.get("peak_mib"):
        figures = f"{row['peak_mib']:10.1f} MiB"
    return f"  {name:40} {figures}  {row['note']}".rstrip()
