"""Wildflowers-LT: a long-tailed data set that is drawn, so that the truth about every image is known."""

from embedded.wildflowers.world import AXES, SCENES, Flower, Species, load_species, prepare

__all__ = ["AXES", "SCENES", "Flower", "Species", "load_species", "prepare"]
