"""Draws the picture that the README classifies: a sunflower against the sky.

Usage: python examples/draw_sunflower.py [examples/sunflower.png]
"""

import math
import sys

from PIL import Image, ImageDraw

SIZE = 1024  # drawn four times as large as it is saved, so that edges are smooth
CENTRE = (512, 452)


def main(path="examples/sunflower.png"):
    """Draws sky, stem, two rings of petals and the disc of seeds."""
    picture = Image.new("RGB", (SIZE, SIZE))
    draw = ImageDraw.Draw(picture)
    for y in range(SIZE):
        share = y / SIZE
        sky = (90 + 80 * share, 150 + 60 * share, 230 + 20 * share)
        draw.line((0, y, SIZE, y), fill=tuple(map(int, sky)))
    draw.rectangle((480, 512, 544, SIZE), fill=(50, 120, 40))
    draw_petals(draw, 400, 24, 0.0, (240, 180, 10))
    draw_petals(draw, 350, 20, 0.5, (255, 210, 30))
    for radius, colour in ((152, (80, 45, 15)), (95, (55, 30, 10))):
        draw.circle(CENTRE, radius, fill=colour)
    picture.resize((256, 256), Image.Resampling.LANCZOS).save(path)


def draw_petals(draw, length, count, shift, colour):
    """Draws a ring of petals, each from the centre to a tip."""
    for petal in range(count):
        angle = 2 * math.pi * (petal + shift) / count
        ends = ((0.6 * length, angle - 0.16), (length, angle), (0.6 * length, angle + 0.16))
        tips = [(CENTRE[0] + r * math.cos(a), CENTRE[1] + r * math.sin(a)) for r, a in ends]
        draw.polygon([CENTRE, *tips], fill=colour)


if __name__ == "__main__":
    main(*sys.argv[1:])
