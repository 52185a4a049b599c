"""Scenes behind the flowers, one function each."""

import math

import numpy as np
from numpy.random import Generator
from PIL import ImageDraw

from embedded.wildflowers.shapes import Colour, W, around, disc, petal, shade


def _fill(pen: ImageDraw.ImageDraw, top: Colour, bottom: Colour) -> None:
    """A vertical gradient over the whole image."""
    for i in range(24):
        t = i / 23
        r, g, b = (int(a + (c - a) * t) for a, c in zip(top, bottom, strict=True))
        pen.rectangle((0, i * W / 24, W, (i + 1) * W / 24), fill=(r, g, b))


def _meadow(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, shade((150, 196, 130), rng, 6), shade((70, 140, 60), rng, 8))
    for _ in range(40):
        x, y = rng.uniform(0, W), rng.uniform(W * 0.3, W)
        pen.line(
            [(x, y), (x + rng.uniform(-8, 8), y - rng.uniform(14, 36))],
            fill=shade((92, 164, 74), rng, 12),
            width=2,
        )


def _snow(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, shade((196, 210, 226), rng, 5), shade((236, 240, 248), rng, 4))
    for _ in range(26):
        disc(pen, rng.uniform(0, W), rng.uniform(0, W), rng.uniform(2, 4), (255, 255, 255))
    pen.ellipse((-W * 0.3, W * 0.72, W * 0.7, W * 1.3), fill=(222, 230, 242))


def _forest(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, shade((34, 62, 38), rng, 5), shade((22, 40, 24), rng, 5))
    for _ in range(6):
        x, w = rng.uniform(0, W), rng.uniform(7, 17)
        pen.rectangle((x, 0, x + w, W), fill=shade((66, 48, 34), rng, 8))


def _desert(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, shade((226, 208, 168), rng, 6), shade((214, 176, 116), rng, 6))
    for level in (0.55, 0.72, 0.88):
        y = W * (level + rng.uniform(-0.05, 0.05))
        shift = rng.uniform(-0.3, 0.3) * W
        pen.ellipse((shift - W * 0.4, y, shift + W * 1.2, y + W * 0.9), fill=shade((204, 160, 98), rng, 7))


def _pond(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, shade((92, 150, 160), rng, 6), shade((36, 92, 116), rng, 6))
    for _ in range(16):
        x, y = rng.uniform(-20, W), rng.uniform(0, W)
        pen.line([(x, y), (x + rng.uniform(20, 60), y)], fill=shade((140, 190, 198), rng, 8), width=2)
    for _ in range(3):
        x, y = rng.uniform(0, W), rng.uniform(W * 0.5, W)
        pen.ellipse((x, y, x + 34, y + 14), fill=(56, 120, 70))


def _dusk(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, shade((84, 58, 112), rng, 6), shade((230, 138, 92), rng, 8))
    disc(pen, rng.uniform(0, W), W * rng.uniform(0.7, 0.95), W * 0.12, (252, 206, 130))


def _brick(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    pen.rectangle((0, 0, W, W), fill=shade((186, 172, 158), rng, 5))
    shift = rng.uniform(0, 40)
    for row in range(11):
        for column in range(-1, 6):
            x = column * 44 + (22 if row % 2 else 0) - shift
            pen.rectangle((x, row * 18 + 2, x + 40, row * 18 + 16), fill=shade((156, 78, 60), rng, 9))


def _sky(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, shade((112, 172, 232), rng, 5), shade((190, 220, 246), rng, 5))
    for _ in range(3):
        x, y = rng.uniform(0, W), rng.uniform(0, W * 0.8)
        for _ in range(4):
            disc(pen, x + rng.uniform(-22, 22), y + rng.uniform(-7, 7), rng.uniform(9, 17), (246, 250, 254))


def _rocks(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    pen.rectangle((0, 0, W, W), fill=shade((120, 120, 122), rng, 6))
    for _ in range(12):
        x, y, r = rng.uniform(0, W), rng.uniform(0, W), rng.uniform(18, 44)
        points = [
            (x + r * math.cos(a) * rng.uniform(0.7, 1.1), y + r * math.sin(a) * 0.7)
            for a in np.linspace(0, 5.4, 6)
        ]
        grey = int(rng.uniform(96, 176))
        pen.polygon(points, fill=(grey, grey, grey + 4), outline=(78, 78, 82))


def _fence(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, (176, 206, 190), (110, 150, 90))
    shift = rng.uniform(0, 30)
    for i in range(-1, 7):
        x = i * 32 - shift
        pen.rectangle((x, W * 0.08, x + 25, W), fill=shade((170, 138, 100), rng, 7), outline=(116, 90, 62))
    for level in (0.25, 0.7):
        pen.rectangle((0, W * level, W, W * level + 12), fill=(146, 116, 82))


def _night(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, shade((14, 18, 44), rng, 4), shade((34, 38, 72), rng, 4))
    for _ in range(24):
        disc(pen, rng.uniform(0, W), rng.uniform(0, W), rng.uniform(1, 2.4), (220, 222, 240))
    disc(pen, rng.uniform(0, W), W * rng.uniform(0.05, 0.25), W * 0.09, (236, 232, 206))


def _autumn(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    pen.rectangle((0, 0, W, W), fill=shade((118, 78, 44), rng, 6))
    for _ in range(48):
        x, y, angle = rng.uniform(0, W), rng.uniform(0, W), rng.uniform(0, 6.3)
        leaf = around(petal("pointed", 0.42), x, y, angle, rng.uniform(16, 28))
        pen.polygon(leaf, fill=shade(((196, 104, 38), (170, 62, 34), (202, 152, 58))[rng.integers(3)], rng, 10))


SCENERY = {
    "meadow": _meadow,
    "snow": _snow,
    "forest": _forest,
    "desert": _desert,
    "pond": _pond,
    "dusk": _dusk,
    "brick": _brick,
    "sky": _sky,
    "rocks": _rocks,
    "fence": _fence,
    "night": _night,
    "autumn": _autumn,
}
