"""Classifies photos on a small device: LiteRT, without Keras and without this package.

Usage: python examples/run_litert.py EXPORTED_DIR PHOTO...

It needs `pip install ai-edge-litert numpy pillow`. EXPORTED_DIR is made elsewhere, by
`lsmha export lsmha-small --format litert --output EXPORTED_DIR`.
"""

import json
import pathlib
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps


def main(exported, *photos):
    """Prints the five most likely classes of each photo."""
    exported = pathlib.Path(exported)
    description = json.loads((exported / "model.json").read_text())
    height, width, _ = description["image_shape"]
    images = np.stack([read_photo(photo, height, width) for photo in photos])
    outputs = run(exported / "model.tflite", images)
    if description["activation"] == "linear":  # logits
        outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        outputs /= outputs.sum(axis=1, keepdims=True)
    names = description["class_names"] or range(description["num_classes"])
    for photo, scores in zip(photos, outputs, strict=True):
        print(photo)
        for label in scores.argsort()[:-6:-1]:
            print(f"  {scores[label]:7.2%}  {names[label]}")


def read_photo(path, height, width):
    """Reads a photo as `model.json` asks for under `resize`."""
    with Image.open(path) as photo:
        photo = ImageOps.exif_transpose(photo)
        if photo.has_transparency_data:
            photo = photo.convert("RGBA")
            photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
        photo = photo.convert("RGB")
    part_width = max(min(photo.width, photo.height * width // height), 1)
    part_height = max(min(photo.height, photo.width * height // width), 1)
    left, top = (photo.width - part_width) // 2, (photo.height - part_height) // 2
    part = (left, top, left + part_width, top + part_height)
    return np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR, box=part))


def run(model, images):
    """Runs a `.tflite` file on uint8 images `(batch, height, width, 3)`."""
    interpreter = Interpreter(str(model))
    # The batch may have any size; LiteRT reserves memory for the one that it is told.
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
