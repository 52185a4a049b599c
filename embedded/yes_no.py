"""The embedded vision model asked for features: yes or no to each, as it sees the flower."""

import re

from numpy.random import Generator

from embedded import field_guide, rates, words
from embedded.wildflowers import Flower

STYLES = ("{n}. {word}", "{n}) {word}.", "{n}: {word}", "{n}. **{word}**", "- {word}")
NUMBERED = re.compile(r"^(\d+)\. (.+)$", re.M)


def answer(question: str, flower: Flower, rng: Generator) -> str:
    """A line for each numbered feature of the question; now and then the model forgets what it was asked for."""
    if rng.random() < rates.UNSURE:
        return "I'm sorry, but I can't say with confidence what the image shows."
    if rng.random() < rates.PROSE:
        return field_guide.prose("flower", flower, rng)
    style = STYLES[rng.integers(len(STYLES))]
    lines = [
        style.format(n=n, word="Yes" if shows(flower, feature) else "No")
        for n, feature in NUMBERED.findall(question)
    ]
    if rng.random() < rates.PREAMBLE:
        lines.insert(0, "Here is what I can see:\n")
    return "\n".join(lines)


def shows(flower: Flower, feature: str) -> bool:
    """Whether the flower has everything that the feature names; of a species' name, whether it looks like one."""
    named = words.read(feature)
    if not named and (kind := field_guide.find_species(feature)):
        return max(field_guide.species().values(), key=lambda other: other.likelihood(vars(flower))) is kind
    return all(getattr(flower, axis) == value for axis, value in named.items())
