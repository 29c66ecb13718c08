"""Classify image files.

Images may have any size; folders are searched, without hidden files. Transparent pixels become
white. An image that is missing or cannot be read is named, the others are classified, and the exit
status is 1.
"""

import json
import pathlib
import sys

from lsmha_keras.commands._backend import import_framework
from lsmha_keras.commands._output import add_command, check_presets, positive

_EPILOG = """\
examples:
  lsmha predict cct_2_3x2_h16_cifar100 photo.png
  lsmha predict runs/digits/preset scans/ --top 3
  lsmha predict runs/digits/preset a.png b.jpg --json
"""


def add_parser(commands, parents):
    """Adds `lsmha predict`."""
    parser = add_command(commands, "predict", globals(), _EPILOG, parents)
    parser.add_argument("name", metavar="NAME", help="preset name or directory")
    parser.add_argument("images", metavar="IMAGE_OR_FOLDER", nargs="+", help="what to look at")
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="default: 5 classes")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="default: 64")
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args):
    """Predicts; prints the classes of each image as they are known."""
    if not any(pathlib.Path(name).exists() for name in args.images):  # known in no time
        raise FileNotFoundError(
            f"There is no such image or folder. Received: {', '.join(args.images)}"
        )
    check_presets(args.name)

    import_framework()
    from lsmha_keras.models import load_classifier

    paths, problems = _find(args.images)
    if not paths:
        raise FileNotFoundError(" ".join(problems))
    for problem in problems:
        print(f"lsmha: {problem}", file=sys.stderr)
    classifier = load_classifier(args.name)
    results, num_unreadable = [], 0
    for start in range(0, len(paths), args.batch_size):
        images = _read(paths[start : start + args.batch_size], classifier.image_shape)
        num_unreadable += len(paths[start : start + args.batch_size]) - len(images)
        for path, scores in zip(images, _probabilities(classifier, images), strict=True):
            result = {"image": str(path), "classes": _best(classifier, scores, args.top)}
            results.append(result)
            if not args.json:
                print(_lines(result), flush=True)
    if args.json:
        print(json.dumps(results, indent=2))
    return 1 if problems or num_unreadable else 0


def _find(names):
    """Lists the files named, and the images below the folders named, in a stable order.

    Returns:
        A list of paths, each once, and a list of sentences about names of which there is no file
        and no folder with images.
    """
    from lsmha_keras.data.sources.image_file import EXTENSIONS, find_images

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


def _read(paths, image_shape):
    """Reads the images that can be read, as {path: array}; names the others."""
    from lsmha_keras.data.sources.image_file import read_image

    images = {}
    for path in paths:
        try:
            # The same reduction as when a folder of images is trained or evaluated on.
            image = read_image(path, image_shape[:2])
        except (OSError, ValueError) as error:
            print(f"lsmha: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        if image_shape[-1] == 1:
            image = image.mean(axis=-1, keepdims=True).round().astype("uint8")
        images[path] = image
    return images


def _probabilities(classifier, images):
    import numpy as np

    if not images:
        return []
    outputs = classifier.predict(np.stack(list(images.values())), verbose=0)
    return classifier.probabilities(outputs)


def _best(classifier, scores, top):
    names = getattr(classifier, "class_names", None)
    return [
        {"label": int(label), "name": names[label] if names else None, "score": scores[label]}
        for label in scores.argsort()[::-1][:top]
    ]


def _lines(result):
    lines = [result["image"]]
    for found in result["classes"]:
        name = f"class {found['label']}" if found["name"] is None else found["name"]
        lines.append(f"  {found['score']:7.2%}  {name}")
    return "\n".join(lines)
