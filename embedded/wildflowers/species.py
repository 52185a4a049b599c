"""Species: distributions over the features of flowers, and what distinguishes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import yaml
from numpy.random import Generator

from embedded.wildflowers.flower import AXES, SCENES, Flower

UNSEEN = 0.02  # probability of a feature that a species never shows: eyes are at times wrong


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

    def likelihood(self, values: Mapping[str, str]) -> float:
        """The probability of values on some axes, one that the species never shows counting as UNSEEN."""
        unseen = () if values.get("form") == "open" else ("count", "shape")
        drawn = [a for a in self.features if a in values and a not in unseen]
        return prod(self.features[a].get(values[a], UNSEEN) for a in drawn)

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
