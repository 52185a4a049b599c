"""Images at CLIP's size: kept in memory where they fit, read by worker processes where not; the crops of training.

Either form is used as `pixels[indices]`: (B,) int64 -> (B, 3, H, W) uint8 on the device.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ltgc.clip.encoder import Clip
from ltgc.data import images
from ltgc.pipeline.errors import LTGCError

MEMORY_LIMIT = 4 * 1024**3  # bytes; about 28,000 images of 224 x 224 px
SMALLEST_CROP = 0.7  # of the image's side: the subject still fills most of it, half of the area is left


class Pixels(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor, /) -> Tensor: ...


class FilePixels:
    """Decodes images when it is asked for them. Holds no pixels and no network: worker processes get a copy."""

    def __init__(self, files: Sequence[images.Reference], clip: Clip) -> None:
        self.files = files
        self.device = clip.device
        self.preprocess = clip.preprocess
        self.cfg: dict[str, Any] = clip.model.visual.preprocess_cfg
        self.frame = FRAMES.get(self.cfg["resize_mode"])
        self.shape = clip.preprocess(Image.new("RGB", (8, 8))).shape  # (3, H, W), of any image
        self.mean, self.std = (torch.tensor(self.cfg[key]).view(3, 1, 1) for key in ("mean", "std"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: Tensor) -> Tensor:
        with ThreadPoolExecutor() as pool:  # Pillow releases the GIL
            return torch.stack(list(pool.map(self.whole, indices.tolist()))).to(self.device)

    def in_memory(self) -> Tensor:
        """All images, (N, 3, H, W) uint8 on the device."""
        pixels = torch.empty(len(self), *self.shape, dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:
            for index, image in enumerate(pool.map(self.whole, range(len(self)))):
                pixels[index] = image
        return pixels.to(self.device)

    def whole(self, index: int) -> Tensor:
        """Image `index` as CLIP sees it, (3, H, W) uint8."""
        # CLIP's own preprocessing, its normalisation undone: exactly the 8-bit values that it resized to.
        normalised = self.preprocess(self._load(index))  # (3, H, W) float32
        return (normalised * self.std + self.mean).mul(255).round().clamp(0, 255).to(torch.uint8)

    def crop(self, index: int, draws: Tensor) -> Tensor:
        """What `augment` makes of `whole`, (3, H, W) uint8, cut from the file's own pixels and resampled once."""
        if self.frame is None:
            raise LTGCError(
                f"clip.model: resizes images by {self.cfg['resize_mode']!r}; those that do not fit in memory can "
                f"be cropped for a CLIP that resizes by one of {', '.join(FRAMES)}"
            )
        x_side, x_flip, left, top = draws.tolist()
        side = SMALLEST_CROP + (1 - SMALLEST_CROP) * x_side
        height, width = self.shape[1:]
        image = self._load(index, shortest=math.ceil(max(height, width) / side))
        frame = self.frame(image.width, image.height)
        size = side * frame[0], side * frame[1]
        x = (image.width - frame[0]) / 2 + left * (frame[0] - size[0])
        y = (image.height - frame[1]) / 2 + top * (frame[1] - size[1])
        filter = Image.Resampling[self.cfg["interpolation"].upper()]
        cut = image.resize((width, height), filter, (x, y, x + size[0], y + size[1]))
        if x_flip < 0.5:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(cut)).permute(2, 0, 1)

    def _load(self, index: int, shortest: int | None = None) -> Image.Image:
        return images.required(self.files[index], shortest)


# open_clip's resize_mode -> width and height, in the middle of an image, of what CLIP sees of it.
FRAMES: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "shortest": lambda width, height: (min(width, height),) * 2,
    "squash": lambda width, height: (width, height),
}


@dataclass(frozen=True)
class _Reads(Dataset[Tensor | LTGCError]):
    """Batches of files, read by worker processes: (indices, draws or None) each."""

    files: FilePixels
    reads: Sequence[tuple[Tensor, Tensor | None]]

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, number: int) -> Tensor | LTGCError:
        indices, draws = self.reads[number]
        try:
            if draws is None:
                return torch.stack([self.files.whole(i) for i in indices.tolist()])
            return torch.stack([self.files.crop(i, d) for i, d in zip(indices.tolist(), draws, strict=True)])
        except LTGCError as error:
            return error  # raised here it would reach the user as a traceback of the worker


def batches(
    pixels: Pixels, reads: Sequence[tuple[Tensor, Tensor | None]], device: torch.device, workers: int
) -> Iterator[Tensor]:
    """For each (indices, draws) the images, (n, 3, H, W) on the device: augmented, or whole where draws is None.

    Images in memory are cropped on the device, float32 in [0, 255]. Files are decoded and cropped, uint8, by
    `workers` processes ahead of the network that consumes them. Raises LTGCError as `load` does.
    """
    if isinstance(pixels, FilePixels):
        on_gpu = device.type == "cuda"
        loader = DataLoader(_Reads(pixels, reads), batch_size=None, num_workers=workers, pin_memory=on_gpu)
        for batch in loader:
            if isinstance(batch, LTGCError):
                raise batch
            yield batch.to(device, non_blocking=True)
        return
    for indices, draws in reads:
        batch = pixels[indices.to(device)]
        yield batch if draws is None else augment(batch, draws.to(device))


def load(files: Sequence[images.Reference], clip: Clip, limit: int = MEMORY_LIMIT) -> Pixels:
    """The images in `files` at CLIP's size; decoded once and kept where they take at most `limit` bytes.

    Raises LTGCError for a file that is missing or not a usable image (at the batch that needs it, if not kept).
    """
    pixels = FilePixels(files, clip)
    return pixels.in_memory() if len(pixels) * pixels.shape.numel() <= limit else pixels


def augment(pixels: Tensor, draws: Tensor) -> Tensor:
    """Random crop resized back and random horizontal flip, as one resampling.

    (B, 3, H, W) uint8 -> (B, 3, H, W) float32 in [0, 255], on the device.
    draws: (B, 4) in [0, 1): of the crop's side, of the flip, of its place from left and from top.
    """
    side = SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[:, 0]
    flip = torch.where(draws[:, 1] < 0.5, -1.0, 1.0)
    x_centre, y_centre = ((1 - side)[:, None] * (2 * draws[:, 2:] - 1)).T  # the image being [-1, 1]
    # As F.affine_grid, which spends more on the matrix product of each point than the sampling takes.
    height, width = pixels.shape[-2:]
    grid = torch.empty(len(pixels), height, width, 2, device=pixels.device)
    grid[..., 0] = (_middles(width, grid.device) * (side * flip)[:, None] + x_centre[:, None])[:, None, :]
    grid[..., 1] = (_middles(height, grid.device) * side[:, None] + y_centre[:, None])[:, :, None]
    return F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)


def _middles(count: int, device: torch.device) -> Tensor:
    """Where `count` pixels in a row have their middles, the row being [-1, 1]."""
    return torch.linspace(-1, 1, count, device=device) * ((count - 1) / count)
