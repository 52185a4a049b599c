"""CLIP's unit features of images, as it was before training: in memory where they fit, else in a file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ltgc.classifier.network import Classifier
from ltgc.clip.encoder import Clip
from ltgc.clip.pixels import Pixels
from ltgc.pipeline import timing

# Bytes of the features of one set of images, by where they are kept: 131,000 and 2,097,000 images of 512 features.
# At the size of iNaturalist 2018 they are 2.0 GB.
MEMORY_LIMITS = {"cpu": 256 * 1024**2, "cuda": 4 * 1024**3}


class Features(Protocol):
    """`features[rows]`, rows (n,) int64 on the CPU -> (n, D) float32 on the device. A Tensor (N, D) is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


class FileFeatures:
    """Features (images, width) in a file of the working directory, which has no name and ends with the process."""

    def __init__(self, images: int, width: int, device: torch.device) -> None:
        self.shape = (images, width)
        self.device = device
        # Not in /tmp, which may be memory.
        self._file = tempfile.TemporaryFile(dir=".")  # noqa: SIM115 (open as long as this object)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        # Mapped anew each time: what was read counts as memory until it is no longer mapped.
        mapped = np.asarray(np.memmap(self._file, np.float32, "r", shape=self.shape))
        return torch.from_numpy(mapped[rows.numpy()]).to(self.device)

    def __setitem__(self, rows: Tensor, features: Tensor) -> None:
        """Write the features of consecutive rows."""
        self._file.seek(4 * int(rows[0]) * self.shape[1])  # not by a mapping: on a full disk that ends the process
        self._file.write(features.cpu().numpy().tobytes())


@dataclass(frozen=True)
class Rows:
    """Some of the features, without a copy of them."""

    features: Features
    rows: Tensor  # (n,) int64, on the CPU

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.features[self.rows[rows]]


@torch.inference_mode()
def clip_features(clip: Clip, pixels: Pixels) -> Tensor | FileFeatures:
    """Unit features (N, D) float32 of all images, by CLIP's encoder before training."""
    encoder = Classifier(clip.model.visual, torch.empty(0, 0, device=clip.device), 1.0)
    features: Tensor | FileFeatures | None = None
    with timing.steps:
        for part in torch.arange(len(pixels)).split(256):
            found = encoder.features(pixels[part])
            if features is None:  # made once: a list of parts, put together in the end, takes twice the memory
                features = _room(len(pixels), found)
            features[part] = found
    assert features is not None
    return features


def _room(images: int, like: Tensor) -> Tensor | FileFeatures:
    width, device = like.shape[1], like.device
    if 4 * images * width > MEMORY_LIMITS.get(device.type, MEMORY_LIMITS["cpu"]):
        return FileFeatures(images, width, device)
    return like.new_empty(images, width)
