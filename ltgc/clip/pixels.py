"""Images at CLIP's size: kept in memory where they fit, else read by worker processes for each batch.

Either form is used as `pixels[indices]`: (B,) int64 -> (B, 3, H, W) uint8 on the device.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ltgc.clip.crops import augment
from ltgc.clip.encoder import Clip, resized
from ltgc.data import images
from ltgc.pipeline import timing
from ltgc.pipeline.errors import LTGCError

# Bytes of one set of images, by where they are kept: 7,000 and 28,000 of 224 x 224 px.
MEMORY_LIMITS = {"cpu": 1024**3, "cuda": 4 * 1024**3}


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
        self.shape = clip.pixels(Image.new("RGB", (8, 8))).shape  # (3, H, W), of any image

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: Tensor) -> Tensor:
        with ThreadPoolExecutor() as pool:  # Pillow releases the GIL
            return torch.stack(list(pool.map(self.whole, indices.tolist()))).to(self.device)

    def in_memory(self) -> Tensor:
        """All images, (N, 3, H, W) uint8 on the device."""
        pixels = torch.empty(len(self), *self.shape, dtype=torch.uint8, device=self.device)
        with ThreadPoolExecutor() as pool:
            for index, image in enumerate(pool.map(self.whole, range(len(self)))):
                pixels[index] = image
        return pixels

    def whole(self, index: int) -> Tensor:
        """Image `index` as CLIP sees it, (3, H, W) uint8."""
        return resized(self._load(index), self.preprocess)

    def crop(self, index: int, crop: Tensor) -> Tensor:
        """What `augment` makes of `whole`, (3, H, W) uint8, cut from the file's own pixels and resampled once.

        crop: (4,), as ltgc/clip/crops.py has it.
        """
        if self.frame is None:
            raise LTGCError(
                f"clip.model: resizes images by {self.cfg['resize_mode']!r}; those that do not fit in memory can "
                f"be cropped for a CLIP that resizes by one of {', '.join(FRAMES)}"
            )
        side, flipped, left, top = crop.tolist()
        height, width = self.shape[1:]
        image = self._load(index, shortest=math.ceil(max(height, width) / side))
        frame = self.frame(image.width, image.height)
        size = side * frame[0], side * frame[1]
        x = (image.width - frame[0]) / 2 + left * (frame[0] - size[0])
        y = (image.height - frame[1]) / 2 + top * (frame[1] - size[1])
        filter = Image.Resampling[self.cfg["interpolation"].upper()]
        cut = image.resize((width, height), filter, (x, y, x + size[0], y + size[1]))
        if flipped:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(cut)).permute(2, 0, 1)

    def _load(self, index: int, shortest: int | None = None) -> Image.Image:
        return images.required(self.files[index], shortest)


# open_clip's resize_mode -> width and height, in the middle of an image, of what CLIP sees of it.
FRAMES: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "shortest": lambda width, height: (min(width, height),) * 2,
    "squash": lambda width, height: (width, height),
}


Request = tuple[Tensor, Tensor | None]  # indices (n,), their crops (n, 4) or None: whole


@dataclass(frozen=True)
class _Reader(Dataset[Tensor | LTGCError]):
    """Batches of files, read by worker processes."""

    files: FilePixels
    requests: Sequence[Request]

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, number: int) -> Tensor | LTGCError:
        indices, crops = self.requests[number]
        try:
            if crops is None:
                return torch.stack([self.files.whole(i) for i in indices.tolist()])
            return torch.stack([self.files.crop(i, crop) for i, crop in zip(indices.tolist(), crops, strict=True)])
        except LTGCError as error:
            return error  # raised here, it would reach the user as a traceback of the worker


def batches(pixels: Pixels, requests: Sequence[Request], device: torch.device, workers: int) -> Iterator[Tensor]:
    """The images of each request, (n, 3, H, W) on the device.

    Images in memory are cropped on the device, float32 in [0, 255]. Files are decoded and cropped, uint8, by
    `workers` processes ahead of the network that consumes them. Raises LTGCError as `load` does.
    """
    if isinstance(pixels, FilePixels):
        on_gpu = device.type == "cuda"
        loader = DataLoader(_Reader(pixels, requests), batch_size=None, num_workers=workers, pin_memory=on_gpu)
        for batch in loader:
            if isinstance(batch, LTGCError):
                raise batch
            yield batch.to(device, non_blocking=True)
        return
    for indices, crops in requests:
        batch = pixels[indices.to(device)]
        yield batch if crops is None else augment(batch, crops.to(device))


def load(files: Sequence[images.Reference], clip: Clip, limit: int | None = None) -> Pixels:
    """The images in `files` at CLIP's size; decoded once and kept where they take at most `limit` bytes.

    limit: None: that of the device.

    Raises LTGCError for a file that is missing or not a usable image (at the batch that needs it, if not kept).
    """
    pixels = FilePixels(files, clip)
    if limit is None:
        limit = MEMORY_LIMITS.get(clip.device.type, MEMORY_LIMITS["cpu"])
    if len(pixels) * pixels.shape.numel() > limit:
        return pixels
    with timing.steps:  # as where they are loaded batch by batch
        return pixels.in_memory()
