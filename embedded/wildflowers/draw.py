"""Drawing a flower in a scene, 64 x 64 px: as a photo (noise, light, odd framing) or as a painted image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from embedded.wildflowers.world import Flower

SIZE = 64
SCALE = 3  # drawn this much larger, then averaged down: smooth edges
W = SIZE * SCALE

RGB = {
    "white": (243, 243, 238),
    "yellow": (247, 214, 38),
    "orange": (240, 130, 28),
    "red": (206, 28, 34),
    "pink": (238, 130, 178),
    "purple": (136, 58, 170),
    "blue": (66, 106, 222),
    "black": (28, 22, 30),
    "green": (112, 168, 58),
    "brown": (112, 66, 30),
}
PETALS = {"three": 3, "four": 4, "five": 5, "six": 6, "many": 15}

Colour = tuple[int, int, int]


def draw(flower: Flower, rng: Generator, style: str = "photo") -> Image.Image:
    """The flower as a 64 x 64 RGB image. style: "photo", or "painted" (larger, centred, saturated, no noise)."""
    image = Image.new("RGB", (W, W))
    pen = ImageDraw.Draw(image)
    SCENERY[flower.scene](pen, rng)
    painted = style == "painted"
    size = W * (rng.uniform(0.30, 0.36) if painted else rng.uniform(0.22, 0.36))
    spread = 0.03 if painted else 0.10
    x = W * (0.5 + rng.uniform(-spread, spread))
    y = W * (0.42 + rng.uniform(-spread, spread))
    if not painted and rng.random() < 0.3:  # a second, smaller one behind
        side = rng.choice([-1, 1])
        _plant(pen, rng, flower, x + side * W * 0.3, y + W * rng.uniform(0.0, 0.2), size * 0.55)
    _plant(pen, rng, flower, x, y, size)
    small = image.reduce(SCALE)
    pixels = np.asarray(small, dtype=np.float64)
    if painted:
        mean = pixels.mean(axis=2, keepdims=True)
        pixels = mean + (pixels - mean) * 1.15
    else:
        pixels = (pixels - 128) * rng.uniform(0.75, 1.1) + 128 + rng.uniform(-22, 22)
        pixels = pixels * (1 + rng.uniform(-0.07, 0.07, 3))
        pixels = pixels + rng.normal(0, 7, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _shade(rgb: Colour, rng: Generator, by: float = 14) -> Colour:
    """A colour near `rgb`, `by` grey levels around."""
    r, g, b = (int(np.clip(c + d, 0, 255)) for c, d in zip(rgb, rng.normal(0, by, 3), strict=True))
    return r, g, b


def _dark(rgb: Colour, factor: float = 0.72) -> Colour:
    r, g, b = (int(c * factor) for c in rgb)
    return r, g, b


def _disc(
    pen: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: Colour, outline: Colour | None = None
) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=2)


def _around(
    points: list[tuple[float, float]], x: float, y: float, angle: float, size: float
) -> list[tuple[float, float]]:
    """Points given along a unit axis, turned by `angle`, scaled by `size` and moved to (x, y)."""
    cos, sin = math.cos(angle) * size, math.sin(angle) * size
    return [(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in points]


def _petal(shape: str, width: float) -> list[tuple[float, float]]:
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


def _plant(pen: ImageDraw.ImageDraw, rng: Generator, flower: Flower, x: float, y: float, size: float) -> None:
    green = _shade((62, 132, 52), rng, 12)
    foot = (x + rng.uniform(-0.05, 0.05) * W, W * 1.02)
    pen.line([(x, y), foot], fill=_dark(green), width=max(3, int(size * 0.09)))
    _leaves(pen, rng, flower.leaves, x, (y + size * 0.75 + foot[1]) / 2, size, green)
    colour = _shade(RGB[flower.colour], rng)
    accent = _shade(RGB[flower.accent], rng, 8)
    FORMS[flower.form](pen, rng, flower, x, y, size, colour, accent)


def _leaves(
    pen: ImageDraw.ImageDraw, rng: Generator, kind: str, x: float, y: float, size: float, green: Colour
) -> None:
    y = min(y, W * 0.86)
    for side in (-1, 1):
        angle = (-0.35 if side > 0 else math.pi + 0.35) + rng.uniform(-0.2, 0.2)
        length = size * rng.uniform(0.95, 1.2)
        if kind == "broad":
            pen.polygon(_around(_petal("rounded", 0.36), x, y, angle, length), fill=green, outline=_dark(green))
        elif kind == "grassy":
            for extra in (-0.75, -0.35, 0.0):
                turned = angle + side * extra
                pen.polygon(
                    _around(
                        [(0, 0.05), (0.6, 0.045), (1.3, 0), (0.6, -0.045), (0, -0.05)],
                        x,
                        y + size * 0.3,
                        turned,
                        length,
                    ),
                    fill=green,
                )
        elif kind == "feathery":
            tip = _around([(1.1, 0)], x, y, angle, length)[0]
            pen.line([(x, y), tip], fill=green, width=3)
            for u in (0.25, 0.45, 0.65, 0.85, 1.0):
                for v in (-0.28, 0.28):
                    twig = _around([(u, 0), (u + 0.2, v)], x, y, angle, length)
                    pen.line(twig, fill=green, width=3)
        else:  # toothed
            upper = [
                (u, 0.32 * (0.6 if i % 2 else 1.25) * math.sin(math.pi * u / 1.1))
                for i, u in enumerate(np.linspace(0, 1.1, 10))
            ]
            lower = [(u, -v) for u, v in reversed(upper)]
            pen.polygon(_around([*upper, *lower], x, y, angle, length), fill=green, outline=_dark(green, 0.6))


def _open(pen, rng, flower, x, y, size, colour, accent) -> None:
    petals = PETALS[flower.count]
    width = {"three": 0.52, "four": 0.58, "five": 0.46, "six": 0.40, "many": 0.17}[flower.count]
    if flower.shape == "narrow":
        width = max(width * 0.75, 0.13)
    start = rng.uniform(0, 2 * math.pi)
    squash = rng.uniform(0.85, 1.0)
    for i in range(petals):
        outline = _petal(flower.shape, width)
        points = _around(outline, 0, 0, start + 2 * math.pi * i / petals, size)
        pen.polygon([(x + px, y + py * squash) for px, py in points], fill=colour, outline=_dark(colour))
    r = size * (0.30 if flower.count == "many" else 0.22)
    _disc(pen, x, y, r, accent, _dark(accent))


def _bell(pen, rng, flower, x, y, size, colour, accent) -> None:
    for dx, dy, s in ((-0.62, 0.05, 0.75), (0.62, 0.05, 0.75), (0.0, 0.35, 0.95)):
        bx, by, r = x + dx * size, y + dy * size, size * s * 0.55
        pen.line([(x, y - size * 0.5), (bx, by - r)], fill=(70, 110, 60), width=4)
        points = [
            (-0.35, -1),
            (0.35, -1),
            (0.62, 0.1),
            (1.0, 0.9),
            (0.5, 0.62),
            (0, 0.95),
            (-0.5, 0.62),
            (-1.0, 0.9),
            (-0.62, 0.1),
        ]
        pen.polygon([(bx + u * r, by + v * r) for u, v in points], fill=colour, outline=_dark(colour))
        pen.line(
            [(bx - r * 0.9, by + r * 0.75), (bx, by + r * 0.8), (bx + r * 0.9, by + r * 0.75)],
            fill=accent,
            width=7,
        )


def _cup(pen, rng, flower, x, y, size, colour, accent) -> None:
    for dx, lean in ((-0.42, -0.16), (0.42, 0.16), (0.0, 0.0)):
        points = [(dx * 0.3, 0.85), (dx - 0.36, 0.1), (dx + lean, -0.85), (dx + 0.36, 0.1)]
        shade = colour if dx == 0 else _dark(colour, 0.86)
        pen.polygon([(x + u * size, y + v * size) for u, v in points], fill=shade, outline=_dark(colour))
    pen.pieslice((x - size * 0.4, y + size * 0.25, x + size * 0.4, y + size * 1.0), 0, 180, fill=accent)


def _spike(pen, rng, flower, x, y, size, colour, accent) -> None:
    for row in range(8):
        v = row / 7
        half = size * (0.14 + 0.36 * v)
        cy = y - size * 1.05 + v * size * 2.0
        shade = accent if row < 2 else colour
        for dx in (-0.9, 0.9, 0.0):
            _disc(
                pen, x + dx * half * 0.75, cy + rng.uniform(-2, 2), size * (0.10 + 0.09 * v), shade, _dark(shade)
            )


def _umbel(pen, rng, flower, x, y, size, colour, accent) -> None:
    for i in range(9):
        angle = math.pi * (1.08 + 0.84 * i / 8)
        px, py = x + math.cos(angle) * size * 1.1, y + size * 0.25 + math.sin(angle) * size * 0.62
        pen.line([(x, y + size * 0.7), (px, py)], fill=(82, 128, 62), width=2)
        for _ in range(5):
            jx, jy = rng.uniform(-0.17, 0.17, 2) * size
            _disc(pen, px + jx, py + jy, size * 0.10, colour, _dark(colour, 0.85))
    _disc(pen, x, y - size * 0.32, size * 0.2, accent)


def _globe(pen, rng, flower, x, y, size, colour, accent) -> None:
    pen.pieslice((x - size * 0.6, y - size * 0.1, x + size * 0.6, y + size * 1.0), 0, 180, fill=accent)
    for i in range(46):
        angle, r = 2.4 * i, size * 0.72 * math.sqrt(i / 46)
        px, py = x + r * math.cos(angle), y + r * math.sin(angle)
        shade = colour if i % 3 else _dark(colour, 0.82)
        _disc(pen, px, py, size * 0.13, shade)


FORMS = {"open": _open, "bell": _bell, "cup": _cup, "spike": _spike, "umbel": _umbel, "globe": _globe}


def _fill(pen: ImageDraw.ImageDraw, top: Colour, bottom: Colour) -> None:
    """A vertical gradient over the whole image."""
    for i in range(24):
        t = i / 23
        r, g, b = (int(a + (c - a) * t) for a, c in zip(top, bottom, strict=True))
        pen.rectangle((0, i * W / 24, W, (i + 1) * W / 24), fill=(r, g, b))


def _meadow(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, _shade((150, 196, 130), rng, 6), _shade((70, 140, 60), rng, 8))
    for _ in range(40):
        x, y = rng.uniform(0, W), rng.uniform(W * 0.3, W)
        pen.line(
            [(x, y), (x + rng.uniform(-8, 8), y - rng.uniform(14, 36))],
            fill=_shade((92, 164, 74), rng, 12),
            width=2,
        )


def _snow(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, _shade((196, 210, 226), rng, 5), _shade((236, 240, 248), rng, 4))
    for _ in range(26):
        _disc(pen, rng.uniform(0, W), rng.uniform(0, W), rng.uniform(2, 4), (255, 255, 255))
    pen.ellipse((-W * 0.3, W * 0.72, W * 0.7, W * 1.3), fill=(222, 230, 242))


def _forest(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, _shade((34, 62, 38), rng, 5), _shade((22, 40, 24), rng, 5))
    for _ in range(6):
        x, w = rng.uniform(0, W), rng.uniform(7, 17)
        pen.rectangle((x, 0, x + w, W), fill=_shade((66, 48, 34), rng, 8))


def _desert(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, _shade((226, 208, 168), rng, 6), _shade((214, 176, 116), rng, 6))
    for level in (0.55, 0.72, 0.88):
        y = W * (level + rng.uniform(-0.05, 0.05))
        shift = rng.uniform(-0.3, 0.3) * W
        pen.ellipse((shift - W * 0.4, y, shift + W * 1.2, y + W * 0.9), fill=_shade((204, 160, 98), rng, 7))


def _pond(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, _shade((92, 150, 160), rng, 6), _shade((36, 92, 116), rng, 6))
    for _ in range(16):
        x, y = rng.uniform(-20, W), rng.uniform(0, W)
        pen.line([(x, y), (x + rng.uniform(20, 60), y)], fill=_shade((140, 190, 198), rng, 8), width=2)
    for _ in range(3):
        x, y = rng.uniform(0, W), rng.uniform(W * 0.5, W)
        pen.ellipse((x, y, x + 34, y + 14), fill=(56, 120, 70))


def _dusk(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, _shade((84, 58, 112), rng, 6), _shade((230, 138, 92), rng, 8))
    _disc(pen, rng.uniform(0, W), W * rng.uniform(0.7, 0.95), W * 0.12, (252, 206, 130))


def _brick(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    pen.rectangle((0, 0, W, W), fill=_shade((186, 172, 158), rng, 5))
    shift = rng.uniform(0, 40)
    for row in range(11):
        for column in range(-1, 6):
            x = column * 44 + (22 if row % 2 else 0) - shift
            pen.rectangle((x, row * 18 + 2, x + 40, row * 18 + 16), fill=_shade((156, 78, 60), rng, 9))


def _sky(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, _shade((112, 172, 232), rng, 5), _shade((190, 220, 246), rng, 5))
    for _ in range(3):
        x, y = rng.uniform(0, W), rng.uniform(0, W * 0.8)
        for _ in range(4):
            _disc(pen, x + rng.uniform(-22, 22), y + rng.uniform(-7, 7), rng.uniform(9, 17), (246, 250, 254))


def _rocks(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    pen.rectangle((0, 0, W, W), fill=_shade((120, 120, 122), rng, 6))
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
        pen.rectangle((x, W * 0.08, x + 25, W), fill=_shade((170, 138, 100), rng, 7), outline=(116, 90, 62))
    for level in (0.25, 0.7):
        pen.rectangle((0, W * level, W, W * level + 12), fill=(146, 116, 82))


def _night(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    _fill(pen, _shade((14, 18, 44), rng, 4), _shade((34, 38, 72), rng, 4))
    for _ in range(24):
        _disc(pen, rng.uniform(0, W), rng.uniform(0, W), rng.uniform(1, 2.4), (220, 222, 240))
    _disc(pen, rng.uniform(0, W), W * rng.uniform(0.05, 0.25), W * 0.09, (236, 232, 206))


def _autumn(pen: ImageDraw.ImageDraw, rng: Generator) -> None:
    pen.rectangle((0, 0, W, W), fill=_shade((118, 78, 44), rng, 6))
    for _ in range(48):
        x, y, angle = rng.uniform(0, W), rng.uniform(0, W), rng.uniform(0, 6.3)
        leaf = _around(_petal("pointed", 0.42), x, y, angle, rng.uniform(16, 28))
        pen.polygon(leaf, fill=_shade(((196, 104, 38), (170, 62, 34), (202, 152, 58))[rng.integers(3)], rng, 10))


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
