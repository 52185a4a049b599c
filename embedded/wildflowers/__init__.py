"""Wildflowers-LT: a long-tailed data set that is drawn, so that the truth about every image is known."""

from embedded.wildflowers.dataset import Photo, photos
from embedded.wildflowers.flower import AXES, SCENES, Flower
from embedded.wildflowers.species import Species, load_species

__all__ = ["AXES", "SCENES", "Flower", "Photo", "Species", "load_species", "photos"]
