"""What can be seen on a real photo without a model, in words: for benchmarks/photo_world.py.

The captions of its CLIP, its vision model and its painter speak of nothing else: what is said of a photo is true.
"""

import colorsys
import re
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from PIL import Image

COLOURS = ("black", "white", "grey", "brown", "red", "orange", "yellow", "green", "blue", "purple", "pink")
PATTERNS = ("plain", "patterned")
LIGHTS = ("bright", "dim")
VIEWS = ("whole", "close")  # of a drawing: a crop
OPTIONS = {"colour": COLOURS, "pattern": PATTERNS, "ground": COLOURS, "light": LIGHTS, "view": VIEWS}
HUES = ((15, "red"), (42, "orange"), (70, "yellow"), (165, "green"), (255, "blue"), (290, "purple"), (345, "pink"))


class Look(NamedTuple):
    colour: str  # of what is in the middle
    pattern: str
    ground: str  # colour of what is around it
    light: str
    view: str


def look(image: Image.Image, view: str = "whole") -> Look:
    """What an RGB image shows, by its colours in the middle and along its edges."""
    pixels = np.asarray(image.resize((48, 48)), dtype=np.float64)
    middle = pixels[15:33, 15:33].reshape(-1, 3)
    edges = np.ones((48, 48), bool)
    edges[6:42, 6:42] = False
    varied = middle.mean(axis=1).std() > 30
    return Look(
        colour_name(np.median(middle, axis=0)),
        PATTERNS[int(varied)],
        colour_name(np.median(pixels[edges], axis=0)),
        LIGHTS[int(pixels.mean() < 125)],
        view,
    )


def colour_name(rgb: np.ndarray) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(*(rgb / 255))
    if value < 0.22:
        return "black"
    if saturation < 0.16:
        return "white" if value > 0.72 else "grey"
    degrees = 360 * hue
    name = next((name for until, name in HUES if degrees < until), "red")
    return "brown" if name in ("red", "orange", "yellow") and (value < 0.55 or saturation < 0.45) else name


def features(seen: Look, said: Collection[str] = OPTIONS) -> str:
    """The features that `said` names; no place."""
    kind = " ".join(getattr(seen, axis) for axis in ("pattern", "colour") if axis in said)
    close = "seen close" if "view" in said and seen.view == "close" else ""
    return ", ".join(part for part in (f"with a {kind} look" if kind else "", close) if part)


def scene(seen: Look, said: Collection[str] = OPTIONS) -> str:
    article = "an" if seen.ground[0] in "aeiou" else "a"
    place = f"on {article} {seen.ground} ground" if "ground" in said else ""
    light = f"in {seen.light} light" if "light" in said else ""
    return " ".join(part for part in (place, light) if part)


def describe(class_name: str, seen: Look) -> str:
    """Template 1."""
    return f"A photo of the class {class_name}, {features(seen)} {scene(seen)}."


def read(text: str) -> dict[str, str]:
    """The values that a description names; what it does not say of the view is "whole"."""
    text = text.lower()
    found = {"view": "close" if "seen close" in text else "whole"}
    for axis, before, after in (("colour", "", "look"), ("ground", "", "ground"), ("light", "in ", "light")):
        if match := re.search(rf"{before}({'|'.join(OPTIONS[axis])}) {after}\b", text):
            found[axis] = match[1]
    if match := re.search(rf"\b({'|'.join(PATTERNS)}) (?:\w+ )?look\b", text):
        found["pattern"] = match[1]
    return found
