"""Detection (§3.1.3, Eq. 2): how well an image shows the features of its class, and what it is held against.

Four scorers, see docs/models.md (a fifth, `ask`, is in graphs/features.py):
  contrast     margins, ltgc/clip/contrast.py, accepted at S >= 0
  cosine       S = cos(image, C_y), accepted at S >= μ - offset
  probability  softmax of CLIP's logits over all class templates, accepted at p_y >= μ
  percentile   S = cos(image, C_y), accepted at S >= the μ-th percentile of S over the class's real training images
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ltgc.clip.encoder import Clip
from ltgc.clip.subject import Score, Subject
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


M = TypeVar("M")


class Scorer(Protocol[M]):
    """Makes measures of images, and scores of measures."""

    def measures(self, features: Tensor, subjects: Sequence[Subject]) -> list[M]:
        """features: (B, D) unit features, the first of them those of the subjects' images."""
        ...

    def calibrate(self, real: Sequence[tuple[Subject, M]]) -> None: ...

    def score(self, subject: Subject, measures: M) -> tuple[float, float]:
        """The score and its threshold."""
        ...


class Absolute:
    """The scorers that look at no description: a cosine or a probability, against a threshold."""

    def __init__(self, settings: FilterSettings, clip: Clip, texts: Sequence[str]) -> None:
        self._settings = settings
        self._logit_scale = clip.logit_scale
        self._texts = clip.text_features(texts)  # (classes, D)
        self._real: dict[int, list[float]] = {}

    def measures(self, features: Tensor, subjects: Sequence[Subject]) -> list[float]:
        cosines = (features @ self._texts.T).cpu()  # (B, classes)
        if self._settings.scorer == "probability":
            cosines = (cosines * self._logit_scale).softmax(dim=1)
        return cosines[torch.arange(len(subjects)), torch.tensor([s.label for s in subjects])].tolist()

    def calibrate(self, real: Sequence[tuple[Subject, float]]) -> None:
        self._real = {}
        for subject, measure in real:
            self._real.setdefault(subject.label, []).append(round(measure, DECIMALS))

    def score(self, subject: Subject, measures: float) -> tuple[float, float]:
        mu = self._settings.threshold
        thresholds: dict[str, Callable[[], float]] = {
            "cosine": lambda: mu - self._settings.offset,
            "probability": lambda: mu,
            "percentile": lambda: self._percentile(subject.label),
        }
        return measures, thresholds[self._settings.scorer]()

    def _percentile(self, label: int) -> float:
        if label not in self._real:
            raise LTGCError(f"filter.scorer: class {label} has no real image; use cosine or probability")
        # NumPy's linear interpolation: of 4 images the 10th percentile lies 0.3 of the way from the lowest
        # score to the second lowest.
        return float(np.percentile(self._real[label], self._settings.threshold))


class Filter(Generic[M]):
    """Scores images of concurrent graphs, gathered into batches."""

    def __init__(self, settings: FilterSettings, clip: Clip, scorer: Scorer[M]) -> None:
        self._clip = clip
        self._scorer = scorer
        self._batch_size = BATCH.get(clip.device.type, BATCH["cpu"])
        self._network = Batcher(self._measures, self._batch_size, settings.wait)
        # Images are decoded while others are in the network, and wait for it as the few bytes that it needs.
        self._decoders = ThreadPoolExecutor(thread_name_prefix="decode")

    async def measure(self, subject: Subject, image: bytes | images.Reference) -> M:
        """What the scorer measures of an encoded image, or of an image file.

        Raises BadImage; LTGCError of a file that is bad or missing, and where CLIP's features are not numbers.
        """
        pixels = await asyncio.get_running_loop().run_in_executor(self._decoders, self._pixels, image)
        return await self._network((subject, pixels))

    def calibrate(self, real: Sequence[tuple[Subject, M]]) -> None:
        """Set what scores are held against, by the measures of real images.

        Raises LTGCError where the percentile scorer finds no real image of a class, when that class is scored.
        """
        self._scorer.calibrate(real)

    def judge(self, subject: Subject, measures: M) -> tuple[float, float]:
        """(score, threshold), both rounded; accepted at >=."""
        score, threshold = self._scorer.score(subject, measures)
        return round(score, DECIMALS), round(threshold, DECIMALS)

    async def score(self, subject: Subject, image: bytes) -> Score:
        """`judge` of an encoded image."""
        return Score(*self.judge(subject, await self.measure(subject, image)))

    def _pixels(self, image: bytes | images.Reference) -> Tensor:
        """(3, H, W) uint8"""
        decoded = images.decode(image) if isinstance(image, bytes) else images.required(image)
        return self._clip.pixels(decoded)

    def _measures(self, batch: Sequence[tuple[Subject, Tensor]]) -> list[M]:
        pixels = torch.zeros(self._batch_size, *batch[0][1].shape, dtype=torch.uint8)  # (B, 3, H, W)
        torch.stack([image for _, image in batch], out=pixels[: len(batch)])
        features = self._clip.image_features(self._clip.normalise(pixels))  # (B, D)
        if not features[: len(batch)].isfinite().all():
            raise LTGCError("clip.model: the score of an image is not a number; its weights must be broken")
        return self._scorer.measures(features, [subject for subject, _ in batch])


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
