"""Drawing a flower in a scene, 64 x 64 px: as a photo (noise, light, odd framing) or as a painted image."""

import math

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from embedded.wildflowers.flower import Flower
from embedded.wildflowers.scenery import SCENERY
from embedded.wildflowers.shapes import SCALE, Colour, W, around, dark, disc, petal, shade

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


def _plant(pen: ImageDraw.ImageDraw, rng: Generator, flower: Flower, x: float, y: float, size: float) -> None:
    green = shade((62, 132, 52), rng, 12)
    foot = (x + rng.uniform(-0.05, 0.05) * W, W * 1.02)
    pen.line([(x, y), foot], fill=dark(green), width=max(3, int(size * 0.09)))
    _leaves(pen, rng, flower.leaves, x, (y + size * 0.75 + foot[1]) / 2, size, green)
    colour = shade(RGB[flower.colour], rng)
    accent = shade(RGB[flower.accent], rng, 8)
    FORMS[flower.form](pen, rng, flower, x, y, size, colour, accent)


def _leaves(
    pen: ImageDraw.ImageDraw, rng: Generator, kind: str, x: float, y: float, size: float, green: Colour
) -> None:
    y = min(y, W * 0.86)
    for side in (-1, 1):
        angle = (-0.35 if side > 0 else math.pi + 0.35) + rng.uniform(-0.2, 0.2)
        length = size * rng.uniform(0.95, 1.2)
        if kind == "broad":
            pen.polygon(around(petal("rounded", 0.36), x, y, angle, length), fill=green, outline=dark(green))
        elif kind == "grassy":
            for extra in (-0.75, -0.35, 0.0):
                turned = angle + side * extra
                pen.polygon(
                    around(
                        [(0, 0.05), (0.6, 0.045), (1.3, 0), (0.6, -0.045), (0, -0.05)],
                        x,
                        y + size * 0.3,
                        turned,
                        length,
                    ),
                    fill=green,
                )
        elif kind == "feathery":
            tip = around([(1.1, 0)], x, y, angle, length)[0]
            pen.line([(x, y), tip], fill=green, width=3)
            for u in (0.25, 0.45, 0.65, 0.85, 1.0):
                for v in (-0.28, 0.28):
                    twig = around([(u, 0), (u + 0.2, v)], x, y, angle, length)
                    pen.line(twig, fill=green, width=3)
        else:  # toothed
            upper = [
                (u, 0.32 * (0.6 if i % 2 else 1.25) * math.sin(math.pi * u / 1.1))
                for i, u in enumerate(np.linspace(0, 1.1, 10))
            ]
            lower = [(u, -v) for u, v in reversed(upper)]
            pen.polygon(around([*upper, *lower], x, y, angle, length), fill=green, outline=dark(green, 0.6))


def _open(pen, rng, flower, x, y, size, colour, accent) -> None:
    petals = PETALS[flower.count]
    width = {"three": 0.52, "four": 0.58, "five": 0.46, "six": 0.40, "many": 0.17}[flower.count]
    if flower.shape == "narrow":
        width = max(width * 0.75, 0.13)
    start = rng.uniform(0, 2 * math.pi)
    squash = rng.uniform(0.85, 1.0)
    for i in range(petals):
        outline = petal(flower.shape, width)
        points = around(outline, 0, 0, start + 2 * math.pi * i / petals, size)
        pen.polygon([(x + px, y + py * squash) for px, py in points], fill=colour, outline=dark(colour))
    r = size * (0.30 if flower.count == "many" else 0.22)
    disc(pen, x, y, r, accent, dark(accent))


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
        pen.polygon([(bx + u * r, by + v * r) for u, v in points], fill=colour, outline=dark(colour))
        pen.line(
            [(bx - r * 0.9, by + r * 0.75), (bx, by + r * 0.8), (bx + r * 0.9, by + r * 0.75)],
            fill=accent,
            width=7,
        )


def _cup(pen, rng, flower, x, y, size, colour, accent) -> None:
    for dx, lean in ((-0.42, -0.16), (0.42, 0.16), (0.0, 0.0)):
        points = [(dx * 0.3, 0.85), (dx - 0.36, 0.1), (dx + lean, -0.85), (dx + 0.36, 0.1)]
        shade = colour if dx == 0 else dark(colour, 0.86)
        pen.polygon([(x + u * size, y + v * size) for u, v in points], fill=shade, outline=dark(colour))
    pen.pieslice((x - size * 0.4, y + size * 0.25, x + size * 0.4, y + size * 1.0), 0, 180, fill=accent)


def _spike(pen, rng, flower, x, y, size, colour, accent) -> None:
    for row in range(8):
        v = row / 7
        half = size * (0.14 + 0.36 * v)
        cy = y - size * 1.05 + v * size * 2.0
        shade = accent if row < 2 else colour
        for dx in (-0.9, 0.9, 0.0):
            disc(pen, x + dx * half * 0.75, cy + rng.uniform(-2, 2), size * (0.10 + 0.09 * v), shade, dark(shade))


def _umbel(pen, rng, flower, x, y, size, colour, accent) -> None:
    for i in range(9):
        angle = math.pi * (1.08 + 0.84 * i / 8)
        px, py = x + math.cos(angle) * size * 1.1, y + size * 0.25 + math.sin(angle) * size * 0.62
        pen.line([(x, y + size * 0.7), (px, py)], fill=(82, 128, 62), width=2)
        for _ in range(5):
            jx, jy = rng.uniform(-0.17, 0.17, 2) * size
            disc(pen, px + jx, py + jy, size * 0.10, colour, dark(colour, 0.85))
    disc(pen, x, y - size * 0.32, size * 0.2, accent)


def _globe(pen, rng, flower, x, y, size, colour, accent) -> None:
    pen.pieslice((x - size * 0.6, y - size * 0.1, x + size * 0.6, y + size * 1.0), 0, 180, fill=accent)
    for i in range(46):
        angle, r = 2.4 * i, size * 0.72 * math.sqrt(i / 46)
        px, py = x + r * math.cos(angle), y + r * math.sin(angle)
        shade = colour if i % 3 else dark(colour, 0.82)
        disc(pen, px, py, size * 0.13, shade)


FORMS = {"open": _open, "bell": _bell, "cup": _cup, "spike": _spike, "umbel": _umbel, "globe": _globe}
