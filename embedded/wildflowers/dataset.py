"""The photos that were taken of the species: a long-tailed training split, balanced validation and test splits."""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from PIL.PngImagePlugin import PngInfo

from embedded.wildflowers.draw import draw
from embedded.wildflowers.flower import Flower
from embedded.wildflowers.species import Species, load_species

VAL, TEST = 40, 40  # images a class, balanced
TRUTH = "truth"  # the PNG text chunk that tells what was drawn; nothing that decides reads it


Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Photo(NamedTuple):
    path: str  # unique in the data set
    species: str
    split: Split
    png: bytes


def training_flower(species: Species, rng: Generator) -> Flower:
    """What a training photo shows: of a rare species only its commonest variant in its first two scenes.

    That is the gap that LTGC is meant to close: val and test show every variant and every scene.
    """
    if species.train < 20:
        return species.sample(rng, species.scenes[:2], common_only=True)
    if species.train <= 100:
        return species.sample(rng, species.scenes)
    return species.sample(rng)


def photos(root: Path, seed: int) -> Iterator[Photo]:
    """Draw the data set of `root`/species.yaml."""
    for label, species in enumerate(load_species(root)):
        counts = {"train": species.train, "val": VAL, "test": TEST}
        for number_of_split, split in enumerate(SPLITS):
            rng = np.random.default_rng([seed, label, number_of_split])
            folder = f"{split}/{species.name.lower().replace(' ', '-')}"
            for number in range(counts[split]):
                flower = training_flower(species, rng) if split == "train" else species.sample(rng)
                yield Photo(f"{folder}/{number:03d}.png", species.name, split, encoded(flower, rng))


def encoded(flower: Flower, rng: Generator, style: str = "photo") -> bytes:
    """`flower`, drawn, as a PNG file that carries its own truth."""
    file = io.BytesIO()
    draw(flower, rng, style).save(file, "PNG", pnginfo=truth_chunk(flower))
    return file.getvalue()


def truth_chunk(flower: Flower) -> PngInfo:
    info = PngInfo()
    info.add_text(TRUTH, json.dumps(asdict(flower)))
    return info
