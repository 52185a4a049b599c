"""What a run draws: the training set, the indices and λ of every step, and one step's batch (§3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ltgc import mixing, pixels
from ltgc.methods import Draw, Recipe
from ltgc.params import Train
from ltgc.pixels import Pixels


@dataclass(frozen=True)
class TrainingSet:
    """D_o and D_g in one: the first `original` images are D_o, the rest D_g."""

    pixels: Pixels  # N images
    labels: Tensor  # (N,) int64 on the CPU
    original: int

    def part(self, data: Literal["original", "generated", "both"]) -> slice:
        cut, end = self.original, len(self.labels)
        return {"original": slice(0, cut), "generated": slice(cut, end), "both": slice(0, end)}[data]


@dataclass(frozen=True)
class Plan:
    """What every step of a run draws: indices into the training set, and λ. All (steps, B)."""

    i: Tensor
    j: Tensor | None = None
    lam: Tensor | None = None

    def to(self, device: torch.device) -> Plan:
        j, lam = (None if t is None else t.to(device) for t in (self.j, self.lam))
        return Plan(self.i.to(device), j, lam)

    def indices(self, step: int) -> Tensor:
        """The images that `step` (from 0) reads: those of x_i, then those of x_j. (B,) or (2 B,) int64."""
        return self.i[step] if self.j is None else torch.cat([self.i[step], self.j[step]])

    @property
    def images_seen(self) -> int:
        return self.i.numel() * (1 if self.j is None else 2)


def make_plan(recipe: Recipe, data: TrainingSet, settings: Train) -> Plan:
    """Draw a whole run ahead, on the CPU, from torch's global generator: 8 bytes an image seen."""
    shape = (settings.steps, settings.batch_size)

    def indices(draw: Draw) -> Tensor:
        part = data.part(draw.data)
        return part.start + draw.sampling(data.labels[part], math.prod(shape)).view(shape)

    i = indices(recipe.i)
    if recipe.j is None:
        return Plan(i)
    return Plan(i, indices(recipe.j), mixing.draw_lambda(settings.beta, shape))


def batch(plan: Plan, step: int, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """What the network sees at `step` (from 0): pixels (B, 3, H, W) in [0, 255] and targets.

    images: uint8 (B or 2 B, 3, H, W), those of `plan.indices(step)`; labels: (N,) of the whole training set.
    Targets are labels (B,), or soft targets (B, classes) where the plan mixes (Eq. 3, 4).
    """
    i = plan.i[step]
    if plan.j is None or plan.lam is None:
        return pixels.augment(images), labels[i]
    j, lam = plan.j[step], plan.lam[step]
    x_i, x_j = pixels.augment(images).chunk(2)
    return mixing.mix(x_i, x_j, lam), mixing.mix_labels(labels[i], labels[j], lam, classes)
