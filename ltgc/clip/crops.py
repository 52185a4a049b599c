"""Random crops and flips of training images, taken on the device from images that are at CLIP's size already."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_CROP = 0.7  # of the image's side: the subject still fills most of it, half of the area is left


class Crops(NamedTuple):
    """Where images are cropped, one row an image: (B,) each."""

    side: Tensor  # of the crop, as a fraction of the image's, in [SMALLEST_CROP, 1)
    flipped: Tensor  # bool: left and right change places
    left: Tensor  # of the room that the crop leaves across, the fraction left of it, in [0, 1)
    top: Tensor  # of the room that it leaves down, the fraction above it, in [0, 1)


def crops(randoms: Tensor) -> Crops:
    """The crops that random numbers (B, 4) in [0, 1) stand for: of side, flip, left and top."""
    side, flip, left, top = randoms.unbind(1)
    return Crops(SMALLEST_CROP + (1 - SMALLEST_CROP) * side, flip < 0.5, left, top)


def augment(pixels: Tensor, randoms: Tensor) -> Tensor:
    """Each image cropped, resized back and flipped as `crops(randoms)` says, as one resampling.

    (B, 3, H, W) uint8 -> (B, 3, H, W) float32 in [0, 255], on the device. randoms: (B, 4) in [0, 1).
    """
    side, flipped, left, top = crops(randoms)
    flip = torch.where(flipped, -1.0, 1.0)
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
