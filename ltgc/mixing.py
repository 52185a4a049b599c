"""Mixing two batches: images and one-hot labels with the same λ, one λ a sample (§3.2, Eq. 3 and 4).

BalanceMix and Mixup mix in the same way; they differ in where x_i and x_j are drawn from (ltgc.methods.METHODS).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def draw_lambda(beta: tuple[float, float], shape: tuple[int, ...]) -> Tensor:
    """λ ~ Beta(a, b), float32 in [0, 1], from torch's global generator."""
    return torch.distributions.Beta(*torch.tensor(beta)).sample(shape)


def mix(a: Tensor, b: Tensor, lam: Tensor) -> Tensor:
    """λ a + (1 - λ) b (Eq. 3, 4). a, b: (B, ...) float; lam: (B,)."""
    lam = lam.view(-1, *[1] * (a.dim() - 1))
    return lam * a + (1 - lam) * b


def mix_labels(a: Tensor, b: Tensor, lam: Tensor, classes: int) -> Tensor:
    """Soft targets (B, classes) float32 of the labels a and b, (B,) int64, mixed as one-hot vectors (Eq. 4)."""
    return mix(F.one_hot(a, classes).float(), F.one_hot(b, classes).float(), lam)
