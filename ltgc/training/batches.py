"""The batches of a run: the pixels and targets that its plan says, mixed where it mixes (§3.2, Eq. 3 and 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ltgc.clip import pixels
from ltgc.training import mixing
from ltgc.training.plan import Plan, TrainingSet


class Batch(NamedTuple):
    """What the network sees, and what it should say."""

    pixels: Tensor  # (B, 3, H, W) in [0, 255]
    targets: Tensor  # labels (B,) int64, or soft targets (B, classes)
    source: Tensor | None  # (B,) int64: Plan.source
    i: Tensor  # (B,) int64: the images x_i, as indices into the training set


def batches(
    shares: Sequence[Plan], data: TrainingSet, classes: int, first: int, device: torch.device, workers: int
) -> Iterator[Batch]:
    """Batches, as `batch` gives them, of each share of each step from step `first` (from 0) on.

    workers: as of `pixels.batches`.
    """
    steps = range(first, len(shares[0].i))
    wanted = [(share.indices(step), share.crops_of(step)) for step in steps for share in shares]
    images = pixels.batches(data.pixels, wanted, device, workers)
    labels = data.labels.to(device)
    on_device = [share.to(device) for share in shares]
    for step in steps:
        for share in on_device:
            source = None if share.source is None else share.source[step]
            yield Batch(*batch(share, step, next(images), labels, classes), source, share.i[step])


def batch(plan: Plan, step: int, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """What the network sees at `step` (from 0): pixels (B, 3, H, W) in [0, 255] and targets.

    images: float (B or 2 B, 3, H, W) in [0, 255], those of `plan.indices(step)`, cropped; labels: (N,) of the
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
