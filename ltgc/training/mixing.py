"""Mixing two batches: images and one-hot labels with the same λ, one λ a sample (§3.2, Eq. 3 and 4).

BalanceMix and Mixup mix in the same way; they differ in where x_i and x_j are drawn from (methods.METHODS).
CutMix puts a box of x_j into x_i instead of blending all pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_lambda(beta: tuple[float, float], shape: tuple[int, ...]) -> Tensor:
    """λ ~ Beta(a, b), float32 in [0, 1], from torch's global generator."""
    return torch.distributions.Beta(*torch.tensor(beta)).sample(shape)


def mix(a: Tensor, b: Tensor, lam: Tensor) -> Tensor:
    """λ a + (1 - λ) b (Eq. 3, 4). a, b: (B, ...) float; lam: (B,)."""
    lam = lam.view(-1, *[1] * (a.dim() - 1))
    return lam * a + (1 - lam) * b


def cut(a: Tensor, b: Tensor, lam: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
    """a with a box of b in it, of the image's shape and 1 - λ of its area (CutMix, Yun et al. 2019).

    a, b: (B, C, H, W); lam: (B,); corner: (B, 2) in [0, 1), down and across the room that the box has.
    The box lies whole in the image, where CutMix's own may hang over the edge: λ keeps its distribution.
    Returns the images and their λ (B,): the share of the pixels that are a's.
    """
    size = (1 - lam).sqrt()[:, None]  # of the image's height and width
    start = corner * (1 - size)

    def inside(axis: int, pixels: int) -> Tensor:
        centre = (torch.arange(pixels, device=a.device) + 0.5) / pixels
        return (centre >= start[:, axis, None]) & (centre < (start + size)[:, axis, None])  # (B, pixels)

    box = inside(0, a.shape[2])[:, None, :, None] & inside(1, a.shape[3])[:, None, None, :]  # (B, 1, H, W)
    return torch.where(box, b, a), 1 - box.float().mean((1, 2, 3))


def mix_labels(a: Tensor, b: Tensor, lam: Tensor, classes: int, weight: Tensor | None = None) -> Tensor:
    """Soft targets (B, classes) float32 of the labels a and b, (B,) int64, mixed as one-hot vectors (Eq. 4).

    weight: (B, 2), what each of the two one-hot vectors is multiplied by first; None: 1.
    """
    y_a, y_b = F.one_hot(a, classes).float(), F.one_hot(b, classes).float()
    if weight is not None:
        y_a, y_b = weight[:, :1] * y_a, weight[:, 1:] * y_b
    return mix(y_a, y_b, lam)
