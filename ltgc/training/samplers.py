"""Which images a run draws, as tensor operations: all indices of all its steps at once.

A stream is a function of the seed alone (torch's global generator), so it is the same on every device and can
be cut into steps, or into the shares of several processes, anywhere.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def uniform(labels: Tensor, draws: int) -> Tensor:
    """Plain sampling: epochs of all images, each in a new order. (N,) labels -> (draws,) indices, int64."""
    epochs = -(-draws // len(labels))
    return torch.cat([torch.randperm(len(labels)) for _ in range(epochs)])[:draws]


def class_balanced(labels: Tensor, draws: int) -> Tensor:
    """Each class that has images equally often: a class uniformly, then one of its images uniformly.

    (N,) labels -> (draws,) indices, int64.
    """
    by_class = labels.argsort(stable=True)
    counts = labels.unique(return_counts=True)[1]  # (classes with images,)
    starts = counts.cumsum(0) - counts
    drawn = torch.randint(len(counts), (draws,))
    # float64: below 1 by more than its rounding at any count, so the offset stays below the count.
    offsets = (torch.rand(draws, dtype=torch.float64) * counts[drawn]).long()
    return by_class[starts[drawn] + offsets]


# How often each image is drawn: (N,) labels -> (N,) shares that sum to 1.
SHARES: dict[Callable[[Tensor, int], Tensor], Callable[[Tensor], Tensor]] = {
    uniform: lambda labels: torch.full((len(labels),), 1 / len(labels)),
    class_balanced: lambda labels: 1 / (len(labels.unique()) * torch.bincount(labels)[labels]),
}
