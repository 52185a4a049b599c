"""What a run draws: the training set, the indices and λ of every step, and one step's batch (§3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from ltgc import mixing
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
    """What every step of a run draws: indices into the training set, crops, and λ. Tensors, (steps, B, ...)."""

    i: Tensor
    crops: Tensor  # (steps, B, 1 or 2, 4) float32 in [0, 1): the draws of `pixels.augment` for x_i and x_j
    j: Tensor | None = None
    lam: Tensor | None = None

    def to(self, device: torch.device) -> Plan:
        return self._each(lambda tensor: tensor.to(device))

    def part(self, index: int, parts: int) -> Plan:
        """Part `index` (from 0) of each step's batch: what a process, or a step of accumulation, takes of it."""
        size = self.i.shape[1]
        return self._each(lambda tensor: tensor[:, size * index // parts : size * (index + 1) // parts])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Plan:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(t) for k, t in tensors.items() if isinstance(t, Tensor)})

    def indices(self, step: int) -> Tensor:
        """The images that `step` (from 0) reads: those of x_i, then those of x_j. (B,) or (2 B,) int64."""
        return self.i[step] if self.j is None else torch.cat([self.i[step], self.j[step]])

    def draws(self, step: int) -> Tensor:
        """The draws of `pixels.augment` for the images of `indices(step)`, (B or 2 B, 4)."""
        return self.crops[step].transpose(0, 1).flatten(0, 1)

    @property
    def images_seen(self) -> int:
        return self.i.numel() * (1 if self.j is None else 2)


def make_plan(recipe: Recipe, data: TrainingSet, settings: Train) -> Plan:
    """Draw a whole run ahead, on the CPU, from torch's global generator: 24 bytes an image seen."""
    shape = (settings.steps, settings.batch_size)

    def indices(draw: Draw) -> Tensor:
        part = data.part(draw.data)
        return part.start + draw.sampling(data.labels[part], math.prod(shape)).view(shape)

    i = indices(recipe.i)
    if recipe.j is None:
        return Plan(i, _draw_crops(*shape, sides=1))
    j, lam = indices(recipe.j), mixing.draw_lambda(settings.beta, shape)
    return Plan(i, _draw_crops(*shape, sides=2), j, lam)


def _draw_crops(steps: int, batch_size: int, sides: int) -> Tensor:
    return torch.rand(steps, 4, sides, batch_size).permute(0, 3, 2, 1)


def batch(plan: Plan, step: int, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """What the network sees at `step` (from 0): pixels (B, 3, H, W) in [0, 255] and targets.

    images: float (B or 2 B, 3, H, W) in [0, 255], those of `plan.indices(step)`, augmented; labels: (N,) of the
    whole training set.
    Targets are labels (B,), or soft targets (B, classes) where the plan mixes (Eq. 3, 4).
    """
    i = plan.i[step]
    if plan.j is None or plan.lam is None:
        return images, labels[i]
    j, lam = plan.j[step], plan.lam[step]
    x_i, x_j = images.chunk(2)
    return mixing.mix(x_i, x_j, lam), mixing.mix_labels(labels[i], labels[j], lam, classes)
