"""Classify images, texts or series.

Images may have any size; folders are searched, except for hidden files. Transparent pixels become
white. A model of texts takes texts, or `.txt` files with a text in each line; one of series takes
`.npy` files, `(time, features)` or `(series, time, features)`. What is missing or cannot be read is
reported, the rest is classified, and the exit status is 1. Presets with a model.onnx, such as the
shipped ones, run in onnxruntime, without Keras and its backend, unless --backend, KERAS_BACKEND or
--runtime says otherwise.
"""

import json
import os
import pathlib
import sys

from lsmha_keras.commands._common import (
    RUNTIMES,
    add_command,
    choose_backend,
    open_predictor,
    positive,
)
from lsmha_keras.errors import InputError, MissingFileError
from lsmha_keras.presets import HUBS, input_kind

_EPILOG = """\
examples:
  lsmha predict cct_2_3x2_h16_cifar100 photo.png
  lsmha predict runs/digits/preset scans/ --top 3
  lsmha predict runs/digits/preset a.png b.jpg --json
  lsmha predict runs/trec/preset "How far is it to the moon ?" questions.txt
  lsmha predict runs/series/preset measured.npy
"""


def add_parser(commands, parents):
    """Adds `lsmha predict`."""
    # The preset decides whether a backend is needed at all.
    parser = add_command(commands, "predict", globals(), _EPILOG, parents, needs_backend=False)
    parser.add_argument("name", metavar="NAME", help="preset name or directory")
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="images or folders, texts or files, or series"
    )
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="default: 5 classes")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="default: 64")
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="runtime of the model (default: onnxruntime if possible, else keras)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args):
    """Classifies; prints the classes of each batch when they are known."""
    asked = getattr(args, "backend", None)
    if asked:
        choose_backend(asked)
    # Before anything is imported; a preset of a hub would be downloaded, so its inputs come second.
    kind = None if args.name.startswith(HUBS) else input_kind(args.name)
    predictor = open_predictor(args.name, args.runtime, asked) if kind is None else None
    found, problems = _FINDERS[predictor.kind if predictor else kind](args.inputs)
    if not found:
        raise MissingFileError(" ".join(problems))
    predictor = predictor or open_predictor(args.name, args.runtime, asked)
    for problem in problems:
        print(f"lsmha: {problem}", file=sys.stderr)
    results, num_unreadable = [], 0
    for start in range(0, len(found), args.batch_size):
        batch = found[start : start + args.batch_size]
        read = _read(batch, predictor)
        num_unreadable += len(batch) - len(read)
        rows = predictor.probabilities([values for _, values in read])
        for (names, _), scores in zip(read, rows, strict=True):
            result = {**names, "classes": predictor.best(scores, args.top)}
            results.append(result)
            if not args.json:
                print(_lines(result), flush=True)
    if args.json:
        print(json.dumps(results, indent=2))
    return 1 if problems or num_unreadable else 0


def _find_images(names):
    """Lists the given files and the images below the given folders.

    Returns:
        A list of pairs, in the order given: what names an image in the results, and its path. And a
        list of error messages for names that are neither a file nor a folder with images.
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
    return [({"image": str(path)}, path) for path in dict.fromkeys(found)], problems


def _find_texts(names):
    """As `_find_images`: a name of a `.txt` file stands for its lines, any other is a text."""
    from lsmha_keras.text_files import read_text

    found, problems = [], []
    for name in names:
        path = pathlib.Path(name)
        if path.suffix.lower() != ".txt":
            if os.path.isfile(name):  # unlike Path.is_file, also asked of a long text
                problems.append(f"A model of texts reads files named *.txt. Received: {path}")
            else:
                found.append(({"text": name}, name))
            continue
        try:
            lines = read_text(path).removeprefix("\ufeff").splitlines()
        except (OSError, ValueError) as error:
            problems.append(" ".join(str(error).split()))
            continue
        texts = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        if not texts:
            problems.append(f"The file holds no text. Received: {path}")
        found += [({"text": t, "file": str(path), "line": n}, t) for n, t in texts]
    return found, problems


def _find_series(names):
    """As `_find_images`, for `.npy` files of one series or several."""
    import numpy as np

    found, problems = [], []
    for path in map(pathlib.Path, names):
        try:
            series = np.load(path, allow_pickle=False)
            if not isinstance(series, np.ndarray) or series.ndim not in (2, 3):
                raise InputError(
                    "it must be an array (time, features) or (series, time, features), saved by "
                    f"`np.save`: {getattr(series, 'shape', 'an archive')}"
                )
        except (OSError, EOFError, ValueError) as error:
            reason = " ".join(str(error).split())
            problems.append(f"The series cannot be read. Received: {path} ({reason})")
            continue
        series = series if series.ndim == 3 else series[None]
        found += [({"file": str(path), "series": i}, one) for i, one in enumerate(series)]
    return found, problems


_FINDERS = {"images": _find_images, "texts": _find_texts, "series": _find_series}


def _read(batch, predictor):
    """Reads inputs, a list of pairs of names and array; reports those that cannot be read."""
    found = []
    for names, value in batch:
        try:
            found.append((names, predictor.read(value)))
        except (OSError, ValueError) as error:
            print(f"lsmha: {' '.join(str(error).split())}", file=sys.stderr)
    return found


def _lines(result):
    where = ""
    if "line" in result:
        where = f" ({result['file']}, line {result['line']})"
    elif "series" in result:
        where = f"{result['file']}, series {result['series']}"
    lines = [(result.get("image") or result.get("text") or "") + where]
    for found in result["classes"]:
        name = f"class {found['label']}" if found["name"] is None else found["name"]
        lines.append(f"  {found['score']:7.2%}  {name}")
    return "\n".join(lines)
