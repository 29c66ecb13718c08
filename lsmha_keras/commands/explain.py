"""Show which parts of a photo a label depends on.

Five methods: relevance (attention weighted by the derivatives of the label's logit), rollout and
flow (attention of all blocks), maps (single heads), and occlusion, which paints over one part after
the other and is the check of the others. Transparent pixels become white; of the photo the centred
part is taken that the model sees.
"""

import pathlib

from lsmha_keras.commands._backend import import_framework
from lsmha_keras.commands._output import add_command, check_presets, table
from lsmha_keras.errors import MissingFileError
from lsmha_keras.files import claim_directory

_METHODS = ("relevance", "rollout", "flow", "maps", "occlusion")
_EPILOG = """\
examples:
  lsmha explain lsmha-base photo.jpg --output runs/photo
  lsmha explain lsmha-base photo.jpg --output runs/photo --label sunflower
  lsmha explain runs/mine/preset scan.png --output runs/scan --methods relevance occlusion

The folder gets index.html, a page that needs no other file; for each method a .png and a .svg for
slides; heads.png and heads.svg, what each head looks at; and relevance.csv, the numbers.

Attention says where a model looks, not what it concludes. Where a method disagrees with occlusion,
believe occlusion. rollout, flow and maps are the same for every label. flow takes models of up to
64 tokens and is left out for larger ones. Kinds of attention without maps have occlusion only.
"""


def add_parser(commands, parents):
    """Adds `lsmha explain`."""
    parser = add_command(commands, "explain", globals(), _EPILOG, parents)
    parser.add_argument("name", metavar="NAME", help="preset name or directory")
    parser.add_argument("image", metavar="IMAGE", help="file of the photo, of any size")
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--label", help="name or number of the class to explain (default: the most likely)"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=_METHODS, help="default: all that the model allows"
    )


def run(args):
    """Explains; prints the most likely classes and where the page is."""
    if not pathlib.Path(args.image).is_file():  # known in no time
        raise MissingFileError(f"There is no such image. Received: {args.image}")
    check_presets(args.name)
    import_framework()
    from lsmha_keras.figure_style import import_matplotlib
    from lsmha_keras.heads.explain import check_classifier, explain_all, grid_shape
    from lsmha_keras.heads.relevance import MAX_FLOW_TOKENS
    from lsmha_keras.heads.report import write_explanations
    from lsmha_keras.models.load_classifier import load_classifier

    import_matplotlib()  # Needed last; if it is missing, say so now.
    model = load_classifier(args.name)
    check_classifier(model)
    methods = args.methods or list(_METHODS)
    rows, columns = grid_shape(model)
    if not args.methods and rows * columns > MAX_FLOW_TOKENS:
        print(f"flow is left out: {rows * columns} tokens are more than {MAX_FLOW_TOKENS}")
        methods.remove("flow")
    found = explain_all(model, args.image, methods, _label(args.label, model.class_names))
    # Claimed last: what cannot be explained leaves nothing behind.
    output_dir = claim_directory(args.output, "explanation")
    first = next(iter(found.values()))
    about = f"{pathlib.Path(args.image).name}, explained for {args.name}"
    page = write_explanations(found, output_dir, f"Why {first.name}?", about)
    best = first.probabilities.argsort()[::-1][:5]
    print(table([[first.class_name(k), f"{first.probabilities[k]:.2%}"] for k in best], ["", ""]))
    print(page)
    return 0


def _label(text, class_names):
    """A class may be called 7 by its name; else digits are its number."""
    is_number = text is not None and text.isascii() and text.isdigit()
    return int(text) if is_number and text not in (class_names or ()) else text
