"""What a run samples: images, crops and λ of all its steps, fixed before the first one (§3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ltgc.clip.crops import CROPS
from ltgc.clip.pixels import Pixels
from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training import mixing
from ltgc.training.methods import Phase, Recipe, Sampling


@dataclass(frozen=True)
class TrainingSet:
    """D_o and D_g in one: the first `original` images are D_o, the others D_g."""

    pixels: Pixels  # N images
    labels: Tensor  # (N,) int64 on the CPU
    original: int
    strengths: Tensor | None = None  # (N,) float32: of drawings that start from a photo; 0: of others; None: all 0

    def images(self, sampling: Sampling) -> Tensor:
        """The images that are sampled from, as indices into the training set, int64."""
        end = len(self.labels)
        ranges = {"original": (0, self.original), "generated": (self.original, end), "both": (0, end)}
        images = torch.arange(*ranges[sampling.data])
        if sampling.strength is None:
            return images
        assert self.strengths is not None
        strengths = self.strengths[images]
        return images[(strengths == 0) | (strengths == torch.tensor(sampling.strength))]

    @property
    def strongest_first(self) -> list[float]:
        """The strengths of the drawings that start from a photo, from the highest on."""
        strengths = [] if self.strengths is None else self.strengths.unique().tolist()
        return sorted((s for s in strengths if s), reverse=True)

    @property
    def drawing(self) -> Tensor:
        """(N,) bool: which images are drawings."""
        return torch.arange(len(self.labels)) >= self.original


@dataclass(frozen=True)
class Plan:
    """The samples of every step of a run: tensors (steps, B, ...), B the size of a batch."""

    i: Tensor  # (steps, B) int64: the images x_i, as indices into the training set
    crops: Tensor  # (steps, B, 1 or 2, 4) float32: the crops of x_i and x_j (ltgc/clip/crops.py)
    j: Tensor | None = None  # (steps, B) int64: the images x_j; None: nothing is mixed
    lam: Tensor | None = None  # (steps, B) float32: λ of each pair
    corner: Tensor | None = None  # (steps, B, 2) float32 in [0, 1): where CutMix's box lies; None: Mixup
    weight: Tensor | None = None  # (steps, B, 1 or 2) float32: how much the labels of x_i and x_j count; None: 1
    source: Tensor | None = None  # (steps, B) int64: the row of priors.source_priors that x_i is of, or which of a
    # system's samplings; None: unused

    def to(self, device: torch.device) -> Plan:
        return self._map(lambda tensor: tensor.to(device))

    def share(self, index: int, count: int) -> Plan:
        """Share `index` (from 0) of `count` of each batch: what one process, or one accumulation step, takes."""
        size = self.i.shape[1]
        return self._map(lambda tensor: tensor[:, size * index // count : size * (index + 1) // count])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Plan:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(t) for k, t in tensors.items() if isinstance(t, Tensor)})

    def indices(self, step: int) -> Tensor:
        """The images of `step` (from 0): all x_i, then all x_j. (B,) or (2 B,) int64."""
        return self.i[step] if self.j is None else torch.cat([self.i[step], self.j[step]])

    def crops_of(self, step: int) -> Tensor:
        """The crops of `indices(step)`, (B or 2 B, 4)."""
        return self.crops[step].transpose(0, 1).flatten(0, 1)

    @property
    def soft(self) -> bool:
        """Whether targets are soft (B, classes)."""
        return self.j is not None or self.weight is not None

    @property
    def images_seen(self) -> int:
        return self.i.numel() * (1 if self.j is None else 2)


def make_plan(recipe: Recipe, data: TrainingSet, settings: TrainSettings) -> Plan:
    """Sample a whole run ahead, on the CPU, from torch's global generator: 24 bytes an image.

    Options that are off take no random numbers, so that the others stay what they are without the option.
    """
    shape = (settings.steps, settings.batch_size)
    phases = recipe.phases(settings, data.strongest_first)

    def sampled(sampling: Sampling, steps: int) -> Tensor:
        images = data.images(sampling)
        samples = sampling.sampler.sample(data.labels[images], data.drawing[images], steps * settings.batch_size)
        return images[samples].view(steps, settings.batch_size)

    indices = [
        torch.cat([sampled(phase.samplings[k], phase.steps) for phase in phases])
        for k in range(len(phases[0].samplings))
    ]
    lam = mixing.sample_lambda(settings.beta, shape) if len(indices) == 2 else None
    randoms = torch.rand(settings.steps, 4, len(indices), settings.batch_size).permute(0, 3, 2, 1)
    crops = CROPS[settings.crops](randoms)
    if lam is None:
        source = _sources(indices[0], phases, data) if settings.generated.adjust else None
        return Plan(indices[0], crops, weight=_weights(indices, data, settings), source=source)
    if settings.mixing.unmixed or settings.mixing.warm_down:
        lam = _leave_unmixed(lam, settings)
    corner = torch.rand(*shape, 2) if settings.mixing.kind == "cutmix" else None
    return Plan(indices[0], crops, indices[1], lam, corner, _weights(indices, data, settings))


def _leave_unmixed(lam: Tensor, settings: TrainSettings) -> Tensor:
    """λ, (steps, B), with some steps at 0 or 1: x_i or x_j whole, as often as its mean share when mixed."""
    a, b = settings.beta
    whole = (torch.rand(lam.shape) < a / (a + b)).float()
    unmixed = torch.rand(len(lam)) < settings.mixing.unmixed
    unmixed[max(0, len(lam) - settings.mixing.warm_down) :] = True
    return torch.where(unmixed[:, None], whole, lam)


def _sources(i: Tensor, phases: list[Phase], data: TrainingSet) -> Tensor:
    """(steps, B): 0 for a drawing, 1 + the phase of the step for a photo."""
    phase = torch.repeat_interleave(torch.tensor([phase.steps for phase in phases]))
    return torch.where(i < data.original, 1 + phase[:, None], 0)


def _weights(indices: list[Tensor], data: TrainingSet, settings: TrainSettings) -> Tensor | None:
    """How much each label counts: a photo's 1, a drawing's train.generated.weight."""
    if settings.generated.weight == 1:
        return None
    return torch.where(torch.stack(indices, -1) < data.original, 1.0, settings.generated.weight)
