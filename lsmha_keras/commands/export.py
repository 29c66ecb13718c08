"""Export a preset for another runtime, preprocessing included.

The file takes batches of any size of uint8 images of the model's size. It is kept only if its
answers equal those of `predict` to 1e-3. `model.json` beside it has the class names and says how
to resize photos.
"""

import json

from lsmha_keras.commands._common import add_command, check_presets, import_framework

_PRECISIONS = ("float32", "int8")
_FORMATS = ("onnx", "openvino", "litert", "tf_saved_model", "torch")

_EPILOG = """\
examples:
  lsmha export lsmha-small --format onnx --output exported
  lsmha export runs/mine/preset --format openvino --output exported --softmax --overwrite
  lsmha export lsmha-small --format onnx --output any_size --any-size
  lsmha export lsmha-small --format onnx --output int8 --precision int8 --calibration cifar100
"""


def add_parser(commands, parents):
    """Adds `lsmha export`."""
    parser = add_command(commands, "export", globals(), _EPILOG, parents)
    parser.add_argument("name", metavar="NAME", help="preset name or directory")
    parser.add_argument("--format", required=True, choices=_FORMATS, help="what to write")
    parser.add_argument("--output", required=True, metavar="DIR", help="directory to write")
    parser.add_argument("--softmax", action="store_true", help="return probabilities, not logits")
    parser.add_argument("--any-size", action="store_true", help="take photos of any size (onnx)")
    parser.add_argument(
        "--precision",
        choices=_PRECISIONS,
        default="float32",
        help="int8: refused if the accuracy falls by more than 0.5 points (onnx, openvino)",
    )
    parser.add_argument(
        "--calibration",
        metavar="DATA",
        help="dataset for int8: 512 images of its train split, 2,000 of its test split",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the dataset")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing export")


def run(args):
    """Exports a preset; prints the files written."""
    check_presets(args.name)
    import_framework()
    from lsmha_keras.exporting.export import DESCRIPTION, export

    path = export(
        args.name,
        args.format,
        args.output,
        softmax=args.softmax,
        overwrite=args.overwrite,
        any_size=args.any_size,
        precision=args.precision,
        calibration=args.calibration,
        data_dir=args.data_dir,
    )
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        print(f"{file} ({file.stat().st_size:,} bytes)")
    if args.calibration:
        figures = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))["calibration"]
        print(
            f"accuracy on {figures['checked']:,} images: {figures['float32']:.2f} % in float32, "
            f"{figures['int8']:.2f} % in int8"
        )
    return 0
