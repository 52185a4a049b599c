"""How images are sampled, as tensor operations: the indices of all steps of a run at once.

The samples depend on the seed alone (torch's global generator): they are the same on every device, and can be cut
into steps and into the shares of several processes anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampler:
    """sample: (N,) labels and a number of samples -> (samples,) indices, int64.

    frequencies: (N,) labels -> (N,) the expected share of each image in the samples, float32, sums to 1.
    """

    sample: Callable[[Tensor, int], Tensor]
    frequencies: Callable[[Tensor], Tensor]


def _sample_epochs(labels: Tensor, samples: int) -> Tensor:
    epochs = -(-samples // len(labels))
    return torch.cat([torch.randperm(len(labels)) for _ in range(epochs)])[:samples]


def _sample_classes(labels: Tensor, samples: int) -> Tensor:
    by_class = labels.argsort(stable=True)
    counts = labels.unique(return_counts=True)[1]  # (classes with images,)
    starts = counts.cumsum(0) - counts
    sampled = torch.randint(len(counts), (samples,))
    # float64: below 1 by more than its rounding at any count, so the offset stays below the count.
    offsets = (torch.rand(samples, dtype=torch.float64) * counts[sampled]).long()
    return by_class[starts[sampled] + offsets]


# Plain sampling: epochs of all images, each in a new order.
UNIFORM = Sampler(_sample_epochs, lambda labels: torch.full((len(labels),), 1 / len(labels)))

# Every class that has images equally often: a class uniformly, then one of its images uniformly.
CLASS_BALANCED = Sampler(
    _sample_classes, lambda labels: 1 / (len(labels.unique()) * torch.bincount(labels)[labels])
)
