"""Show which parts of a photo, or which words of a text, a label depends on.

Five methods: relevance (attention weighted by the derivatives of the label's logit), rollout and
flow (attention of all blocks), maps (single heads), and occlusion, which paints over one part after
the other and is the check of the others. Transparent pixels become white; of the photo the centred
part is taken that the model sees. Words are replaced by unknown ones, one after the other.
"""

import math
import pathlib

from lsmha_keras.commands._common import (
    add_command,
    add_verbosity,
    check_presets,
    import_framework,
    positive,
    table,
    verbosity,
    writable_file,
)
from lsmha_keras.errors import InputError, MissingFileError
from lsmha_keras.files import claim_directory
from lsmha_keras.presets import HUBS, preset_name, read_config
from lsmha_keras.text_files import write_rows

_METHODS = ("relevance", "rollout", "flow", "maps", "occlusion")
_AREAS = ("deletion", "insertion")
_EPILOG = """\
examples:
  lsmha explain lsmha-base photo.jpg --output runs/photo
  lsmha explain lsmha-base photo.jpg --output runs/photo --label sunflower
  lsmha explain runs/mine/preset scan.png --output runs/scan --methods relevance occlusion
  lsmha explain runs/questions/preset "Who wrote Ulysses ?" --output runs/question
  lsmha explain lsmha-base --curves cifar100 --max-images 500 --output curves.csv

The folder gets index.html, a page that needs no other file; for each method a .png and a .svg for
slides; heads.png and heads.svg, what each head looks at; and relevance.csv, the numbers. Series
are .npy files of shape (time, features).

Attention says where a model looks, not what it concludes. Where a method disagrees with occlusion,
believe occlusion. rollout, flow and maps are the same for every label. flow takes models of up to
64 tokens and is left out for larger ones. Kinds of attention without maps have occlusion only.

--curves DATASET measures the methods: the most relevant parts of images are painted over, or shown,
first; of texts and series, words are replaced by unknown ones and time steps by their mean. The
area under the label's probability is small for a good method in deletion, large in insertion;
"random" is what any method must beat. --output is a csv file then.
"""


def add_parser(commands, parents):
    """Adds `lsmha explain`."""
    parser = add_command(commands, "explain", globals(), _EPILOG, parents)
    parser.add_argument("name", metavar="NAME", help="preset name or directory")
    parser.add_argument(
        "image", metavar="IMAGE", nargs="?", help="file of the photo, of any size; or the text"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--label", help="name or number of the class to explain (default: the most likely)"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=_METHODS, help="default: all that the model allows"
    )
    parser.add_argument(
        "--curves", metavar="DATASET", help="measure the methods on a dataset, in IMAGE's place"
    )
    parser.add_argument("--split", default="test", help="with --curves (default: test)")
    parser.add_argument("--data-dir", metavar="DIR", help="with --curves: folder with the datasets")
    parser.add_argument(
        "--max-images",
        type=positive,
        default=500,
        metavar="N",
        help="with --curves: images, texts or series, chosen at random (default: 500)",
    )
    add_verbosity(parser, verbose="show a progress bar also where the output is no terminal")


def run(args):
    """Explains; prints the most likely classes and where the page is."""
    if (args.image is None) == (args.curves is None):
        raise InputError(
            "Give either a photo, or a text, or --curves DATASET. "
            f"Received: image {args.image}, --curves {args.curves}"
        )
    return _explain(args) if args.curves is None else _measure(args)


def _explain(args):
    check_presets(args.name)
    is_sequence = not args.name.startswith(HUBS) and "sequence_length" in read_config(args.name)
    if not is_sequence and not pathlib.Path(args.image).is_file():  # known in no time
        raise MissingFileError(f"There is no such image. Received: {args.image}")
    import_framework()
    from lsmha_keras.figure_style import import_matplotlib
    from lsmha_keras.heads.explain import explain_all
    from lsmha_keras.heads.report import write_explanations

    import_matplotlib()  # Needed last; if it is missing, say so now.
    model, methods = _load(args)
    given = _sequence(model, args.image) if is_sequence else args.image
    found = explain_all(model, given, methods, _label(args.label, model.class_names))
    # Claimed last: what cannot be explained leaves nothing behind.
    output_dir = claim_directory(args.output, "explanation")
    first = next(iter(found.values()))
    name = args.image if is_sequence else pathlib.Path(args.image).name
    about = f"{name}, explained for {args.name}"
    page = write_explanations(found, output_dir, f"Why {first.name}?", about)
    best = first.probabilities.argsort()[::-1][:5]
    print(table([[first.class_name(k), f"{first.probabilities[k]:.2%}"] for k in best], ["", ""]))
    print(page)
    return 0


def _sequence(model, given):
    """Returns a text as it is given, and reads a series."""
    if model.backbone.vocabulary_size is not None:
        return given
    import numpy as np

    path = pathlib.Path(given)
    if path.suffix != ".npy" or not path.is_file():
        raise MissingFileError(f"A series must be an .npy file. Received: {given}")
    return np.load(path)


def _measure(args):
    output = writable_file(args.output)
    check_presets(args.name)
    import_framework()
    from lsmha_keras.heads.curves import RANDOM, explanation_curves
    from lsmha_keras.training.devices import describe_hardware

    model, methods = _load(args)
    curves = explanation_curves(
        model,
        args.curves,
        [*methods, RANDOM],
        verbose=verbosity(args),
        split=args.split,
        data_dir=args.data_dir,
        max_images=args.max_images,
    )
    measured = {"preset": preset_name(args.name), "dataset": f"{args.curves} ({args.split})"}
    write_rows(
        output, [{**measured, **row, "machine": describe_hardware()} for row in curves.rows()]
    )
    cells = [
        [row["method"], *(f"{row[k]:.4f} ± {row[f'{k}_error']:.4f}" for k in _AREAS)]
        for row in curves.rows()
    ]
    print(table(cells, ["", *_AREAS]))
    return 0


def _load(args):
    """Returns the model and the methods that were asked for, or that it allows."""
    from lsmha_keras.heads.explain import check_classifier, grid_shape
    from lsmha_keras.heads.relevance import MAX_FLOW_TOKENS
    from lsmha_keras.models import load_classifier

    model = load_classifier(args.name)
    check_classifier(model)
    tokens = math.prod(grid_shape(model))
    if args.methods:
        return model, args.methods
    if tokens > MAX_FLOW_TOKENS:
        print(f"flow is left out: {tokens} tokens are more than {MAX_FLOW_TOKENS}")
        return model, [method for method in _METHODS if method != "flow"]
    return model, list(_METHODS)


def _label(text, class_names):
    """A class may be called 7 by its name; else digits are its number."""
    is_number = text is not None and text.isascii() and text.isdigit()
    return int(text) if is_number and text not in (class_names or ()) else text
