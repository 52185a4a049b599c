"""The embedded text-to-image model: it draws what a prompt says, and guesses what it does not say."""

import io

import numpy as np
from numpy.random import Generator
from PIL import Image

from embedded import rates, words
from embedded.styles import STYLES, restyle
from embedded.wildflowers import AXES, SCENES, Flower
from embedded.wildflowers.dataset import truth_chunk
from embedded.wildflowers.draw import draw


def imagine(prompt: str, rng: Generator) -> Flower:
    """The flower that a prompt brings to mind: its words where it reads them, else anything."""
    said = words.read(prompt)
    chance = rng.random()
    if chance < rates.ASTRAY:
        kept = rng.permutation(sorted(said))[: len(said) // 2]
        said = {str(axis): said[axis] for axis in kept}
    elif said and chance < rates.ASTRAY + rates.IGNORED:
        del said[str(rng.choice(sorted(said)))]
    guess = {axis: str(rng.choice(options)) for axis, options in (AXES | {"scene": SCENES}).items()} | said
    if guess["form"] != "open":
        guess["count"] = "one"
    elif guess["count"] == "one":
        guess["count"] = str(rng.choice(AXES["count"][1:]))
    return Flower(**guess)


def paint(prompt: str, size: tuple[int, int], style: str | None, rng: Generator) -> bytes:
    """A PNG of `size` (width, height) that carries in a text chunk what was drawn. style: a key of STYLES."""
    flower = imagine(prompt, rng)
    image = draw(flower, rng, style="painted")
    if style is not None:
        image = restyle(image, STYLES[style], rng)
    return _png(image, flower, size)


def edit(
    prompt: str, photo: Image.Image, seen: Flower, strength: float,
    size: tuple[int, int], style: str | None, rng: Generator,
) -> bytes:  # fmt: skip
    """The same, from a photo: the more is changed in it, the greater `strength`, in (0, 1].

    seen: what the model takes the photo for. Each of its features and its scene stays with probability
    1 - strength, and else is as the prompt says or brings to mind; light and style are between the two.
    """
    said = imagine(prompt, rng)
    values = {axis: getattr(said if rng.random() < strength else seen, axis) for axis in vars(said)}
    if values["form"] != "open":
        values["count"] = "one"
    elif values["count"] == "one":
        values["count"] = next((f.count for f in (seen, said) if f.form == "open"), "five")
    flower = Flower(**values)
    drawn = draw(flower, rng, style="painted")
    pixels = np.asarray(drawn, dtype=np.float64)
    if style is not None:
        pixels += strength * (np.asarray(restyle(drawn, STYLES[style], rng)) - pixels)
    light = np.asarray(photo.convert("RGB"), dtype=np.float64)
    contrast = (light.std() / max(pixels.std(), 1.0)) ** (1 - strength)
    middle = strength * pixels.mean() + (1 - strength) * light.mean()
    pixels = (pixels - pixels.mean()) * contrast + middle
    return _png(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), flower, size)


def _png(image: Image.Image, flower: Flower, size: tuple[int, int]) -> bytes:
    if image.size != size:
        image = image.resize(size)
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=truth_chunk(flower))
    return file.getvalue()
