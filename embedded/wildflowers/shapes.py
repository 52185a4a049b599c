"""What every drawing is made of: colours near a colour, discs, petals, points turned and moved."""

import math

import numpy as np
from numpy.random import Generator
from PIL import ImageDraw

SIZE = 64
SCALE = 3  # drawn this much larger, then averaged down: smooth edges
W = SIZE * SCALE

Colour = tuple[int, int, int]


def shade(rgb: Colour, rng: Generator, by: float = 14) -> Colour:
    """A colour near `rgb`, `by` grey levels around."""
    r, g, b = (int(np.clip(c + d, 0, 255)) for c, d in zip(rgb, rng.normal(0, by, 3), strict=True))
    return r, g, b


def dark(rgb: Colour, factor: float = 0.72) -> Colour:
    r, g, b = (int(c * factor) for c in rgb)
    return r, g, b


def disc(
    pen: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: Colour, outline: Colour | None = None
) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=2)


def around(
    points: list[tuple[float, float]], x: float, y: float, angle: float, size: float
) -> list[tuple[float, float]]:
    """Points given along a unit axis, turned by `angle`, scaled by `size` and moved to (x, y)."""
    cos, sin = math.cos(angle) * size, math.sin(angle) * size
    return [(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in points]


def petal(shape: str, width: float) -> list[tuple[float, float]]:
    """A petal's outline from the origin along +u to about u = 1."""
    w = width
    if shape == "pointed":
        return [(0, 0), (0.35, w * 0.85), (0.6, w * 0.75), (1.05, 0), (0.6, -w * 0.75), (0.35, -w * 0.85)]
    if shape == "narrow":
        return [(0, 0), (0.25, w * 0.45), (0.9, w * 0.5), (1.0, 0), (0.9, -w * 0.5), (0.25, -w * 0.45)]
    if shape == "notched":
        return [
            (0, 0),
            (0.4, w * 0.7),
            (0.8, w),
            (1.0, w * 0.72),
            (0.74, 0),
            (1.0, -w * 0.72),
            (0.8, -w),
            (0.4, -w * 0.7),
        ]
    arc = [(0.55 + 0.45 * math.cos(t), w * math.sin(t)) for t in np.linspace(-2.2, 2.2, 12)]
    return [(0, 0), *arc]
