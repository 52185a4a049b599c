"""The embedded text-to-image model: it draws what a prompt says, and guesses what it does not say."""

import io

from numpy.random import Generator

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
    if image.size != size:
        image = image.resize(size)
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=truth_chunk(flower))
    return file.getvalue()
