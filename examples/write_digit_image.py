"""Writes a handwritten digit that was not trained on as an image file, for `lsmha predict`.

Usage: python examples/write_digit_image.py digit.png [index]
"""

import sys

from PIL import Image

import lsmha_keras as lsmha


def write_digit_image(path, index=0):
    """Writes test image number `index` of the digits, enlarged to 128x128; returns its label."""
    digits = lsmha.open_dataset("digits", "test")
    image = Image.fromarray(digits.load([index])[0])
    image.resize((128, 128), Image.Resampling.BICUBIC).save(path)
    return digits.class_names[digits.labels[index]]


if __name__ == "__main__":
    index = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    print(f"{sys.argv[1]}: a handwritten {write_digit_image(sys.argv[1], index)}")
