"""What a run draws: the training set, indices and λ of every step, one step's batch, the class prior (§3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ltgc.clip.pixels import Pixels
from ltgc.pipeline.settings.training import GeneratedSettings, TrainSettings
from ltgc.training import mixing, samplers
from ltgc.training.methods import Recipe, Side


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
    corner: Tensor | None = None  # (steps, B, 2) float32 in [0, 1): where CutMix's box lies; None: Mixup
    weight: Tensor | None = None  # (steps, B, 1 or 2) float32: what the labels of x_i and x_j count; None: 1

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
    def soft(self) -> bool:
        """Whether targets are soft (B, classes)."""
        return self.j is not None or self.weight is not None

    @property
    def images_seen(self) -> int:
        return self.i.numel() * (1 if self.j is None else 2)


def make_plan(recipe: Recipe, data: TrainingSet, settings: TrainSettings) -> Plan:
    """Draw a whole run ahead, on the CPU, from torch's global generator: 24 bytes an image seen."""
    shape = (settings.steps, settings.batch_size)

    def indices(draw: Side) -> Tensor:
        part = data.part(draw.data)
        return part.start + draw.sampling(data.labels[part], math.prod(shape)).view(shape)

    draw_i, draw_j = recipe.sides(settings)
    i = indices(draw_i)
    if draw_j is None:
        return _weighted(Plan(i, _draw_crops(*shape, sides=1)), data, settings)
    j, lam = indices(draw_j), mixing.sample_lambda(settings.beta, shape)
    plan = Plan(i, _draw_crops(*shape, sides=2), j, lam)
    # What is not asked for draws nothing: the numbers above stay what they are without it.
    if settings.mixing.unmixed or settings.mixing.warm_down:
        plan = replace(plan, lam=_leave_unmixed(lam, settings))
    if settings.mixing.kind == "cutmix":
        plan = replace(plan, corner=torch.rand(*shape, 2))
    return _weighted(plan, data, settings)


def _leave_unmixed(lam: Tensor, settings: TrainSettings) -> Tensor:
    """λ, (steps, B), with some steps at 0 or 1: x_i or x_j whole, as often as its mean share when mixed."""
    a, b = settings.beta
    whole = (torch.rand(lam.shape) < a / (a + b)).float()
    unmixed = torch.rand(len(lam)) < settings.mixing.unmixed
    unmixed[max(0, len(lam) - settings.mixing.warm_down) :] = True
    return torch.where(unmixed[:, None], whole, lam)


def _weighted(plan: Plan, data: TrainingSet, settings: TrainSettings) -> Plan:
    if settings.generated.weight == 1:
        return plan
    drawn = torch.stack([plan.i] if plan.j is None else [plan.i, plan.j], -1)  # (steps, B, 1 or 2)
    return replace(plan, weight=torch.where(drawn < data.original, 1.0, settings.generated.weight))


def class_prior(recipe: Recipe, data: TrainingSet, settings: TrainSettings, classes: int) -> Tensor:
    """The share that each class is expected to have in the targets of a run, (classes,) float32, sums to 1.

    This is what a loss that corrects for the class frequencies has to correct: 1 / classes where sampling is
    class-balanced, and for BalanceMix the mean of that and of the drawings' frequencies, weighted by λ.
    """
    weight = torch.ones(len(data.labels))
    weight[data.original :] = settings.generated.weight
    draw_i, draw_j = recipe.sides(settings)
    a, b = settings.beta
    prior = torch.zeros(classes)
    for draw, share in ((draw_i, a / (a + b)), (draw_j, b / (a + b))) if draw_j else ((draw_i, 1.0),):
        part = data.part(draw.data)
        labels = data.labels[part]
        prior.index_add_(0, labels, share * samplers.SHARES[draw.sampling](labels) * weight[part])
    return prior / prior.sum()


def class_counts(recipe: Recipe, data: TrainingSet, classes: int) -> Tensor:
    """How many images of each class the method draws from, (classes,) int64."""
    parts = {draw.data for draw in (recipe.i, recipe.j) if draw}
    return torch.bincount(data.labels[data.part(parts.pop() if len(parts) == 1 else "both")], minlength=classes)


def keep_generated(labels: Sequence[int], counts: Sequence[int], settings: GeneratedSettings) -> list[int]:
    """Which drawings train: the positions of the first of each class, until its photos and they are per_class.

    labels: of the drawings in order; counts: photos of each class. With "head", as many as the largest class has.
    """
    if settings.per_class is None:
        return list(range(len(labels)))
    most = max(counts) if settings.per_class == "head" else settings.per_class
    has, kept = list(counts), []
    for position, label in enumerate(labels):
        if has[label] < most:
            has[label] += 1
            kept.append(position)
    return kept


def _draw_crops(steps: int, batch_size: int, sides: int) -> Tensor:
    return torch.rand(steps, 4, sides, batch_size).permute(0, 3, 2, 1)


def batch(plan: Plan, step: int, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """What the network sees at `step` (from 0): pixels (B, 3, H, W) in [0, 255] and targets.

    images: float (B or 2 B, 3, H, W) in [0, 255], those of `plan.indices(step)`, augmented; labels: (N,) of the
    whole training set.
    Targets are labels (B,), or soft targets (B, classes) where the plan mixes (Eq. 3, 4) or weights labels: a
    one-hot vector is multiplied by its weight before it is mixed, so a row need not sum to 1.
    """
    y_i = labels[plan.i[step]]
    weight = None if plan.weight is None else plan.weight[step]
    if plan.j is None or plan.lam is None:
        return images, y_i if weight is None else weight * F.one_hot(y_i, classes)
    y_j, lam = labels[plan.j[step]], plan.lam[step]
    x_i, x_j = images.chunk(2)
    if plan.corner is None:
        mixed = mixing.mix(x_i, x_j, lam)
    else:
        mixed, lam = mixing.cut(x_i, x_j, lam, plan.corner[step])
    return mixed, mixing.mix_labels(y_i, y_j, lam, classes, weight)
