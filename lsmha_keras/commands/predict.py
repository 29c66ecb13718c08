"""Classify image files.

Images may have any size; folders are searched, except for hidden files. Transparent pixels become
white. Images that are missing or cannot be read are reported, the others are classified, and the
exit status is 1. Presets with a model.onnx, such as the shipped ones, run in onnxruntime, without
Keras and its backend, unless --backend, KERAS_BACKEND or --runtime says otherwise.
"""

import json
import pathlib
import sys

from lsmha_keras.commands._common import (
    RUNTIMES,
    add_command,
    check_presets,
    choose_backend,
    open_predictor,
    positive,
)
from lsmha_keras.errors import MissingFileError

_EPILOG = """\
examples:
  lsmha predict cct_2_3x2_h16_cifar100 photo.png
  lsmha predict runs/digits/preset scans/ --top 3
  lsmha predict runs/digits/preset a.png b.jpg --json
"""


def add_parser(commands, parents):
    """Adds `lsmha predict`."""
    # The preset decides whether a backend is needed at all.
    parser = add_command(commands, "predict", globals(), _EPILOG, parents, needs_backend=False)
    parser.add_argument("name", metavar="NAME", help="preset name or directory")
    parser.add_argument("images", metavar="IMAGE_OR_FOLDER", nargs="+", help="images to classify")
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="default: 5 classes")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="default: 64")
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="runtime of the model (default: onnxruntime if possible, else keras)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args):
    """Classifies images; prints the classes of each batch when they are known."""
    asked = getattr(args, "backend", None)
    if asked:
        choose_backend(asked)
    if not any(pathlib.Path(name).exists() for name in args.images):  # before anything is imported
        raise MissingFileError(
            f"There is no such image or folder. Received: {', '.join(args.images)}"
        )
    check_presets(args.name)
    paths, problems = _find(args.images)
    if not paths:
        raise MissingFileError(" ".join(problems))
    predictor = open_predictor(args.name, args.runtime, asked)
    for problem in problems:
        print(f"lsmha: {problem}", file=sys.stderr)
    results, num_unreadable = [], 0
    for start in range(0, len(paths), args.batch_size):
        images = _read(paths[start : start + args.batch_size], predictor)
        num_unreadable += len(paths[start : start + args.batch_size]) - len(images)
        rows = predictor.probabilities(list(images.values()))
        for path, scores in zip(images, rows, strict=True):
            result = {"image": str(path), "classes": predictor.best(scores, args.top)}
            results.append(result)
            if not args.json:
                print(_lines(result), flush=True)
    if args.json:
        print(json.dumps(results, indent=2))
    return 1 if problems or num_unreadable else 0


def _find(names):
    """Lists the given files and the images below the given folders.

    Returns:
        A list of distinct paths, in the order given, and a list of error messages for names that
        are neither a file nor a folder with images.
    """
    from lsmha_keras.image_file import EXTENSIONS, find_images

    found, problems = [], []
    for path in map(pathlib.Path, names):
        below = find_images(path) if path.is_dir() else [path]
        if not path.exists():
            problems.append(f"There is no such image or folder. Received: {path}")
        elif not below:
            known = ", ".join(EXTENSIONS)
            problems.append(f"The folder holds no image ({known}). Received: {path}")
        else:
            found += below
    return list(dict.fromkeys(found)), problems


def _read(paths, predictor):
    """Reads images, as {path: array}; reports those that cannot be read."""
    images = {}
    for path in paths:
        try:
            images[path] = predictor.read(path)
        except (OSError, ValueError) as error:
            print(f"lsmha: {' '.join(str(error).split())}", file=sys.stderr)
    return images


def _lines(result):
    lines = [result["image"]]
    for found in result["classes"]:
        name = f"class {found['label']}" if found["name"] is None else found["name"]
        lines.append(f"  {found['score']:7.2%}  {name}")
    return "\n".join(lines)
