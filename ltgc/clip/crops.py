"""Crops and flips of training images, taken on the device from images that are at CLIP's size already.

Crops are rows of four numbers (..., 4), made of random numbers before a run starts, as float32:
  side     of the crop, as a fraction of the image's
  flipped  1: left and right change places
  left     of the room that the crop leaves across, the fraction left of it, in [0, 1)
  top      of the room that it leaves down, the fraction above it, in [0, 1)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_CROP = 0.7  # of the image's side: the subject still fills most of it, half of the area is left
SMALLEST_AREA = 0.08  # of the image, in the first epoch of LIFT+: torchvision's default
EPOCHS = 5  # of LIFT+; its crops change at the end of each


def steady(randoms: Tensor) -> Tensor:
    """Crops of random numbers (steps, ..., 4) in [0, 1): alike in all steps, half of them flipped."""
    side, flip, left, top = randoms.unbind(-1)
    return torch.stack([SMALLEST_CROP + (1 - SMALLEST_CROP) * side, (flip < 0.5).float(), left, top], -1)


def decaying(randoms: Tensor) -> Tensor:
    """Crops of random numbers (steps, ..., 4) in [0, 1): LIFT+'s minimalist data augmentation (Shi et al. 2025).

    The area is uniform between `smallest_area` of the epoch and the whole image. Nothing is flipped.
    """
    side, flip, left, top = randoms.unbind(-1)
    steps = len(randoms)
    smallest = torch.tensor([smallest_area(step * EPOCHS // steps) for step in range(steps)])
    smallest = smallest.view(-1, *[1] * (side.dim() - 1))
    return torch.stack([(smallest + (1 - smallest) * side).sqrt(), torch.zeros_like(flip), left, top], -1)


def smallest_area(epoch: int) -> float:
    """Of a crop in `epoch` (from 0) of EPOCHS, as a share of the image's: the convex schedule of LIFT+."""
    decayed = 1 - math.sqrt(1 - (epoch / (EPOCHS - 1)) ** 2)
    return SMALLEST_AREA + (1 - SMALLEST_AREA) * decayed


CROPS: dict[str, Callable[[Tensor], Tensor]] = {"steady": steady, "decaying": decaying}


def augment(pixels: Tensor, crops: Tensor) -> Tensor:
    """Each image cropped, resized back and flipped, as one resampling.

    (B, 3, H, W) uint8 -> (B, 3, H, W) float32 in [0, 255], on the device. crops: (B, 4), as above.
    """
    side, flipped, left, top = crops.unbind(1)
    flip = 1 - 2 * flipped
    x_centre, y_centre = (1 - side) * (2 * left - 1), (1 - side) * (2 * top - 1)  # the image being [-1, 1]
    # As F.affine_grid, which spends more on the matrix product of each point than the sampling takes.
    height, width = pixels.shape[-2:]
    grid = torch.empty(len(pixels), height, width, 2, device=pixels.device)
    grid[..., 0] = (_middles(width, grid.device) * (side * flip)[:, None] + x_centre[:, None])[:, None, :]
    grid[..., 1] = (_middles(height, grid.device) * side[:, None] + y_centre[:, None])[:, :, None]
    return F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)


def _middles(count: int, device: torch.device) -> Tensor:
    """Where `count` pixels in a row have their middles, the row being [-1, 1]."""
    return torch.linspace(-1, 1, count, device=device) * ((count - 1) / count)
