"""Images as uint8 tensors at CLIP's size, in memory where they fit, and the augmentation of training.

Either form is used as `pixels[indices]`: (B,) int64 -> (B, 3, H, W) uint8 on the device.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ltgc import images
from ltgc.clip import Clip
from ltgc.errors import LTGCError

MEMORY_LIMIT = 4 * 1024**3  # bytes; about 28,000 images of 224 x 224 px
SMALLEST_CROP = 0.7  # of the image's side: the subject still fills most of it, half of the area is left


class Pixels(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor, /) -> Tensor: ...


class FilePixels:
    """Decodes the images of a batch when it is asked for them, on a thread pool (Pillow releases the GIL)."""

    def __init__(self, paths: Sequence[Path], clip: Clip) -> None:
        self.paths = paths
        self.clip = clip
        mean, std = (clip.model.visual.preprocess_cfg[key] for key in ("mean", "std"))
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        self.pool = ThreadPoolExecutor()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Tensor) -> Tensor:
        decoded = self.pool.map(self._decode, [self.paths[i] for i in indices.tolist()])
        return torch.stack(list(decoded)).to(self.clip.device)

    def in_memory(self) -> Tensor:
        """All images, (N, 3, H, W) uint8 on the device."""
        pixels = torch.empty(len(self), *self.shape, dtype=torch.uint8)
        for index, image in enumerate(self.pool.map(self._decode, self.paths)):
            pixels[index] = image
        return pixels.to(self.clip.device)

    @property
    def shape(self) -> torch.Size:
        """(3, H, W) of any image after CLIP's resizing and cropping."""
        return self.clip.preprocess(Image.new("RGB", (8, 8))).shape

    def _decode(self, path: Path) -> Tensor:
        try:
            image = images.load(path)
        except FileNotFoundError as error:
            raise LTGCError(f"{path}: not there; run `dvc repro` to make it, or mend data.root") from error
        except images.BadImage as error:
            raise LTGCError(f"{path}: {error}; mend or remove it and run `dvc repro`") from error
        # CLIP's own preprocessing, its normalisation undone: exactly the 8-bit values that it resized to.
        normalised = self.clip.preprocess(image)  # (3, H, W) float32
        return (normalised * self.std + self.mean).mul(255).round().clamp(0, 255).to(torch.uint8)


def load(paths: Sequence[Path], clip: Clip, limit: int = MEMORY_LIMIT) -> Pixels:
    """The images at `paths` at CLIP's size; decoded once and kept where they take at most `limit` bytes.

    Raises LTGCError for a file that is missing or not a usable image (at the batch that needs it, if not kept).
    """
    files = FilePixels(paths, clip)
    return files.in_memory() if len(files) * files.shape.numel() <= limit else files


def augment(pixels: Tensor, draws: Tensor) -> Tensor:
    """Random crop resized back and random horizontal flip, as one resampling.

    (B, 3, H, W) uint8 -> (B, 3, H, W) float32 in [0, 255], on the device.
    draws: (B, 4) in [0, 1): of the crop's side, of the flip, of its place from left and from top.
    """
    side = SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[:, 0]
    flip = torch.where(draws[:, 1] < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(pixels), 2, 3, device=pixels.device)
    theta[:, 0, 0] = side * flip
    theta[:, 1, 1] = side
    theta[:, :, 2] = (1 - side)[:, None] * (2 * draws[:, 2:] - 1)  # the crop's centre, the image being [-1, 1]
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)
