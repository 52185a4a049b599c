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
    """sample: (N,) labels, (N,) bool which images are drawings, number of samples -> (samples,) indices, int64.

    frequencies: labels and drawings as above -> (N,) the expected share of each image in the samples, sums to 1.
    """

    sample: Callable[[Tensor, Tensor, int], Tensor]
    frequencies: Callable[[Tensor, Tensor], Tensor]


def _sample_epochs(labels: Tensor, drawing: Tensor, samples: int) -> Tensor:
    epochs = -(-samples // len(labels))
    return torch.cat([torch.randperm(len(labels)) for _ in range(epochs)])[:samples]


def _sample_classes(labels: Tensor, drawing: Tensor, samples: int) -> Tensor:
    by_class = labels.argsort(stable=True)
    counts = labels.unique(return_counts=True)[1]  # (classes with images,)
    starts = counts.cumsum(0) - counts
    sampled = torch.randint(len(counts), (samples,))
    # float64: below 1 by more than its rounding at any count, so the offset stays below the count.
    offsets = (torch.rand(samples, dtype=torch.float64) * counts[sampled]).long()
    return by_class[starts[sampled] + offsets]


# Plain sampling: epochs of all images, each in a new order.
UNIFORM = Sampler(_sample_epochs, lambda labels, drawing: torch.full((len(labels),), 1 / len(labels)))

# Every class that has images equally often: a class uniformly, then one of its images uniformly.
CLASS_BALANCED = Sampler(
    _sample_classes, lambda labels, drawing: 1 / (len(labels.unique()) * torch.bincount(labels)[labels])
)


def _by_frequency(frequencies: Callable[[Tensor, Tensor], Tensor]) -> Sampler:
    """Each sample on its own, by the expected shares of the images."""

    def sample(labels: Tensor, drawing: Tensor, samples: int) -> Tensor:
        bounds = frequencies(labels, drawing).double().cumsum(0)
        return torch.searchsorted(bounds, torch.rand(samples, dtype=torch.float64) * bounds[-1], right=True)

    return Sampler(sample, frequencies)


def _square_root(labels: Tensor, drawing: Tensor) -> Tensor:
    weights = torch.bincount(labels)[labels].double().rsqrt()
    return weights / weights.sum()


# Every class as often as the square root of its images: between plain and class-balanced.
SQUARE_ROOT = _by_frequency(_square_root)


def domain_balanced(share: float) -> Sampler:
    """Every class equally often; of a class that has photos and drawings, `share` of the samples are drawings.

    Sampled by its images, a class of 4 photos and 76 drawings would be known by drawings and hardly by its photos.
    """

    def frequencies(labels: Tensor, drawing: Tensor) -> Tensor:
        classes = int(labels.max()) + 1
        counts = torch.stack([torch.bincount(labels[of], minlength=classes) for of in (~drawing, drawing)])
        shares = torch.tensor([[1 - share], [share]], dtype=torch.float64).expand(2, classes)
        shares = torch.where(counts.flip(0) == 0, 1.0, shares)  # what has no other is all of its class
        domain = drawing.long()
        weights = shares[domain, labels] / counts[domain, labels]
        return weights / weights.sum()

    return _by_frequency(frequencies)
