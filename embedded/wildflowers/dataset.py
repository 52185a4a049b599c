"""The photos that were taken of the species: a long-tailed training split, balanced validation and test splits."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL.PngImagePlugin import PngInfo

from embedded.wildflowers.draw import draw
from embedded.wildflowers.flower import Flower
from embedded.wildflowers.species import Species, load_species

VAL, TEST = 12, 40  # images a class, balanced
TRUTH = "truth"  # the PNG text chunk that tells what was drawn; nothing that decides reads it


def training_flower(species: Species, rng: Generator) -> Flower:
    """What a training photo shows: of a rare species only its commonest variant in its first two scenes.

    That is the gap that LTGC is meant to close: val and test show every variant and every scene.
    """
    if species.train < 20:
        return species.sample(rng, species.scenes[:2], common_only=True)
    if species.train <= 100:
        return species.sample(rng, species.scenes)
    return species.sample(rng)


def prepare(root: Path, out: Path, seed: int) -> list[tuple[str, str, str]]:
    """Draw the data set of `root`/species.yaml below `out`; return (relative path, class name, split) rows."""
    rows = []
    for label, species in enumerate(load_species(root)):
        for split, count in (("train", species.train), ("val", VAL), ("test", TEST)):
            folder = Path(split, species.name.lower().replace(" ", "-"))
            (out / folder).mkdir(parents=True)
            rng = np.random.default_rng([seed, label, {"train": 0, "val": 1, "test": 2}[split]])
            for number in range(count):
                flower = training_flower(species, rng) if split == "train" else species.sample(rng)
                path = folder / f"{number:03d}.png"
                save(flower, rng, out / path)
                rows.append((path.as_posix(), species.name, split))
    return rows


def save(flower: Flower, rng: Generator, path: Path, style: str = "photo") -> None:
    """Draw `flower` to a PNG file that carries its own truth."""
    draw(flower, rng, style).save(path, pnginfo=truth_chunk(flower))


def truth_chunk(flower: Flower) -> PngInfo:
    info = PngInfo()
    info.add_text(TRUTH, json.dumps(asdict(flower)))
    return info
