"""Detection (§3.1.3, Eq. 2): how well an image shows the features of its class, and what it is held against.

Three scorers, see docs/models.md:
  cosine       S = cos(image, C_y), accepted at S >= μ - offset
  probability  softmax of CLIP's logits over all class templates, accepted at p_y >= μ
  percentile   S as above, accepted at S >= the μ-th percentile of the S of the class's real training images
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ltgc.clip.encoder import Clip
from ltgc.data import images
from ltgc.pipeline.artifacts.dataset import ImageRecord
from ltgc.pipeline.batching import Batcher
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.clip import FilterSettings

DECIMALS = 6  # of scores and thresholds, in artifacts and in comparisons
# Images go through CLIP in batches of one fixed size, padded: how requests happened to be gathered then cannot
# change the last bits of a score (a matrix product is summed differently for other shapes). A batch that is not
# full costs as much as a full one, and on a CPU 64 at once gain 10 % at most (docs/models.md).
BATCH = {"cpu": 16, "cuda": 128}
# Real images of a class that are scored: a percentile of 100 is good to 3 points (standard error at the 10th),
# and a class with more of them hardly belongs to the tail.
REAL_IMAGES = 100


class Filter:
    """Scores images of concurrent graphs against the class feature templates C_y, gathered into batches."""

    def __init__(self, settings: FilterSettings, clip: Clip, texts: Sequence[str]) -> None:
        """texts: what stands for each class, C_y, by label."""
        self._settings = settings
        self._clip = clip
        self.texts_cut = sum(a != b for a, b in zip(clip.fitting(texts), texts, strict=True))
        self._texts = clip.text_features(texts)  # (classes, D)
        self._batch_size = BATCH.get(clip.device.type, BATCH["cpu"])
        self._network = Batcher(self._scores, self._batch_size, settings.wait)
        # Images are decoded while others are in the network, and wait for it as the few bytes that it needs.
        self._decoders = ThreadPoolExecutor(thread_name_prefix="decode")
        self._thresholds: dict[int, float] = {}

    async def measure(self, label: int, image: bytes | images.Reference) -> float:
        """The score of an encoded image, or of an image file, for the class `label`, rounded.

        Raises BadImage; LTGCError of a file that is bad or missing, and where the score is not a number.
        """
        pixels = await asyncio.get_running_loop().run_in_executor(self._decoders, self._pixels, image)
        return await self._network((label, pixels))

    def calibrate(self, real: Mapping[int, Sequence[float]]) -> None:
        """Set the threshold of each class of `real`, the scores of its real images.

        Raises LTGCError where the percentile scorer finds no real image of a class.
        """
        self._thresholds = {label: self._threshold(label, scores) for label, scores in real.items()}

    def threshold(self, label: int) -> float:
        return self._thresholds[label]

    async def score(self, label: int, image: bytes) -> tuple[float, float]:
        """(score, threshold) of an encoded image for the class `label`, both rounded; accepted at >=."""
        return await self.measure(label, image), self._thresholds[label]

    def _pixels(self, image: bytes | images.Reference) -> Tensor:
        """(3, H, W) uint8"""
        decoded = images.decode(image) if isinstance(image, bytes) else images.required(image)
        return self._clip.pixels(decoded)

    def _scores(self, batch: Sequence[tuple[int, Tensor]]) -> list[float]:
        labels = torch.tensor([label for label, _ in batch])
        pixels = torch.zeros(self._batch_size, *batch[0][1].shape, dtype=torch.uint8)  # (B, 3, H, W)
        torch.stack([image for _, image in batch], out=pixels[: len(batch)])
        features = self._clip.image_features(self._clip.normalise(pixels))  # (B, D)
        cosines = (features @ self._texts.T).cpu()  # (B, classes)
        scores = self._scored(cosines)[torch.arange(len(batch)), labels]
        if not scores.isfinite().all():
            raise LTGCError("clip.model: the score of an image is not a number; its weights must be broken")
        return [round(score, DECIMALS) for score in scores.tolist()]

    def _scored(self, cosines: Tensor) -> Tensor:
        if self._settings.scorer == "probability":
            return (cosines * self._clip.logit_scale).softmax(dim=1)
        return cosines

    def _threshold(self, label: int, real: Sequence[float]) -> float:
        mu = self._settings.threshold
        thresholds: dict[str, Callable[[], float]] = {
            "cosine": lambda: mu - self._settings.offset,
            "probability": lambda: mu,
            "percentile": lambda: self._percentile(label, real),
        }
        return round(thresholds[self._settings.scorer](), DECIMALS)

    def _percentile(self, label: int, real: Sequence[float]) -> float:
        if not real:
            raise LTGCError(f"filter.scorer: class {label} has no real image; use cosine or probability")
        # NumPy's linear interpolation: of 4 images the 10th percentile lies 0.3 of the way from the lowest
        # score to the second lowest.
        return float(np.percentile(real, self._settings.threshold))


def real_images(manifest: Iterable[ImageRecord], labels: set[int]) -> list[ImageRecord]:
    """Training images of the classes `labels`, at most REAL_IMAGES of each, evenly spaced in the manifest."""
    of_class: dict[int, list[ImageRecord]] = {label: [] for label in sorted(labels)}
    for image in manifest:
        if image.split == "train" and image.label in of_class:
            of_class[image.label].append(image)
    return [found[i] for found in of_class.values() for i in _spread(len(found))]


def _spread(count: int) -> list[int]:
    some = min(count, REAL_IMAGES)
    return [i * count // some for i in range(some)]
