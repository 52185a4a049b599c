"""Species, what distinguishes them, and the photos that were taken of them."""

import json
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import numpy as np
import yaml
from numpy.random import Generator
from PIL.PngImagePlugin import PngInfo

from embedded.wildflowers.draw import draw

AXES: dict[str, tuple[str, ...]] = {
    "form": ("open", "bell", "cup", "spike", "umbel", "globe"),
    "count": ("one", "three", "four", "five", "six", "many"),  # petals of an open flower, else "one"
    "shape": ("rounded", "pointed", "notched", "narrow"),  # of an open flower's petals
    "colour": ("white", "yellow", "orange", "red", "pink", "purple", "blue"),
    "accent": ("yellow", "black", "green", "white", "brown"),  # centre, rim, base, tip, middle or collar
    "leaves": ("broad", "grassy", "feathery", "toothed"),
}
SCENES = (
    "meadow",
    "snow",
    "forest",
    "desert",
    "pond",
    "dusk",
    "brick",
    "sky",
    "rocks",
    "fence",
    "night",
    "autumn",
)

UNSEEN = 0.02  # probability of a feature that a species never shows: eyes are at times wrong
VAL, TEST = 12, 40  # images a class, balanced
TRUTH = "truth"  # the PNG text chunk that tells what was drawn; nothing that decides reads it


@dataclass(frozen=True)
class Flower:
    """One flower in one place: a value on every axis, and a scene."""

    form: str
    count: str
    shape: str
    colour: str
    accent: str
    leaves: str
    scene: str


@dataclass(frozen=True)
class Species:
    name: str
    train: int  # training images, M_y
    sibling: str
    features: dict[str, dict[str, float]]  # axis -> value -> probability
    scenes: tuple[str, ...]  # where it was photographed, commonest first

    def shows(self, flower: Flower) -> bool:
        """Whether the flower could be of this species: no axis has a value that the species never shows.

        Count and shape are of an open flower's petals; on other forms they are not drawn.
        """
        unseen = () if flower.form == "open" else ("count", "shape")
        return all(getattr(flower, a) in values for a, values in self.features.items() if a not in unseen)

    def likelihood(self, flower: Flower) -> float:
        """The probability of the flower's features, a value that the species never shows counting as UNSEEN."""
        drawn = [a for a in self.features if flower.form == "open" or a not in ("count", "shape")]
        return prod(self.features[a].get(getattr(flower, a), UNSEEN) for a in drawn)

    def sample(self, rng: Generator, scenes: tuple[str, ...] = SCENES, common_only: bool = False) -> Flower:
        """A random flower of the species; `common_only` takes the first variant of every feature."""
        features = {
            axis: next(iter(values)) if common_only else str(rng.choice(list(values), p=list(values.values())))
            for axis, values in self.features.items()
        }
        return Flower(**features, scene=str(rng.choice(scenes)))


def load_species(root: Path) -> list[Species]:
    """The species of `root`/species.yaml."""
    entries = yaml.safe_load((root / "species.yaml").read_text(encoding="utf-8"))
    return [
        Species(
            name=entry["name"],
            train=entry["train"],
            sibling=entry["sibling"],
            features={axis: entry[axis] for axis in AXES},
            scenes=tuple(entry["scenes"]),
        )
        for entry in entries
    ]


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
