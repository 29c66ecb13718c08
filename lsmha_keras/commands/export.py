"""Export a preset for another runtime, preprocessing included.

The file takes uint8 images of the model's size, from 0 to 255, any number of them. Before it
appears, its answers are compared with those of `predict`: they may differ by 1e-3. `model.json`
beside it holds the class names and tells how to bring photos to that size.
"""

from lsmha_keras.commands._backend import import_framework
from lsmha_keras.commands._output import add_command, check_presets

_FORMATS = ("onnx", "openvino", "litert", "tf_saved_model", "torch")

_EPILOG = """\
examples:
  lsmha export lsmha-small --format onnx --output exported
  lsmha export runs/mine/preset --format openvino --output exported --softmax --overwrite
"""


def add_parser(commands, parents):
    """Adds `lsmha export`."""
    parser = add_command(commands, "export", globals(), _EPILOG, parents)
    parser.add_argument("name", metavar="NAME", help="preset name or directory")
    parser.add_argument("--format", required=True, choices=_FORMATS, help="what to write")
    parser.add_argument("--output", required=True, metavar="DIR", help="directory to write")
    parser.add_argument("--softmax", action="store_true", help="give probabilities, not logits")
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")


def run(args):
    """Exports; prints the files written."""
    check_presets(args.name)
    import_framework()
    from lsmha_keras.exporting.export import export

    path = export(
        args.name, args.format, args.output, softmax=args.softmax, overwrite=args.overwrite
    )
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        print(f"{file} ({file.stat().st_size:,} bytes)")
    return 0
