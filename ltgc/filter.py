"""Detection (§3.1.3, Eq. 2): how well an image shows the features of its class, and what it is held against.

Three scorers, see docs/filter.md:
  cosine       S = cos(image, C_y), accepted at S >= μ - offset
  probability  softmax of CLIP's logits over all class templates, accepted at p_y >= μ
  percentile   S as above, accepted at S >= the μ-th percentile of the S of the class's real training images
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ltgc import images, params
from ltgc.clip import Clip
from ltgc.errors import LTGCError

DECIMALS = 6  # of scores and thresholds, in artifacts and in comparisons
# Images go through CLIP in batches of one fixed size, padded: how requests happened to be gathered then cannot
# change the last bits of a score (a matrix product is summed differently for other shapes).
BATCH = {"cpu": 16, "cuda": 128}


class Filter:
    """Scores images of concurrent graphs against the class feature templates C_y, gathered into batches."""

    def __init__(
        self,
        settings: params.Filter,
        clip: Clip,
        templates: Sequence[str],
        real_images: Mapping[int, Sequence[bytes]],
    ) -> None:
        """templates: C_y for every label, in order; real_images: encoded training images of each class to score.

        Raises LTGCError where the percentile scorer finds no real image of a class.
        """
        self._settings = settings
        self._clip = clip
        self._templates = clip.text_features(templates)  # (classes, D)
        self._batch_size = BATCH.get(clip.device.type, BATCH["cpu"])
        self._waiting: list[tuple[int, bytes, asyncio.Future[float]]] = []
        self._batches: asyncio.Task[None] | None = None
        self._thresholds = {label: self._threshold(label, data) for label, data in real_images.items()}

    async def score(self, label: int, image: bytes) -> tuple[float, float]:
        """(score, threshold) of an encoded image for the class `label`, both rounded; accepted at >=."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((label, image, future))
        if self._batches is None or self._batches.done():
            self._batches = asyncio.create_task(self._run_batches())
        return await future, self._thresholds[label]

    def scores(self, labels: Sequence[int], encoded: Sequence[bytes]) -> list[float]:
        """The score of each encoded image for its label."""
        return [
            score
            for i in range(0, len(encoded), self._batch_size)
            for score in self._batch(labels[i : i + self._batch_size], encoded[i : i + self._batch_size])
        ]

    async def _run_batches(self) -> None:
        """While one batch is in CLIP, in a thread, the next one gathers."""
        while self._waiting:
            batch, self._waiting = self._waiting[: self._batch_size], self._waiting[self._batch_size :]
            labels, encoded, futures = zip(*batch, strict=True)
            try:
                scores = await asyncio.to_thread(self._batch, labels, encoded)
            except Exception as error:
                for future in futures:
                    if not future.done():
                        future.set_exception(error)
                continue
            for future, score in zip(futures, scores, strict=True):
                if not future.done():  # its graph may have been cancelled
                    future.set_result(score)

    def _batch(self, labels: Sequence[int], encoded: Sequence[bytes]) -> list[float]:
        pixels = torch.stack([self._clip.preprocess(images.decode(data)) for data in encoded])  # (B, 3, H, W)
        padded = torch.zeros(self._batch_size, *pixels.shape[1:])
        padded[: len(pixels)] = pixels
        features = self._clip.image_features(padded)  # (batch size, D)
        cosines = (features @ self._templates.T).cpu()  # (batch size, classes)
        rows = torch.arange(len(labels)), torch.tensor(labels)
        return [round(float(score), DECIMALS) for score in self._scored(cosines)[rows]]

    def _scored(self, cosines: Tensor) -> Tensor:
        if self._settings.scorer == "probability":
            return (cosines * self._clip.logit_scale).softmax(dim=1)
        return cosines

    def _threshold(self, label: int, real: Sequence[bytes]) -> float:
        mu = self._settings.threshold
        thresholds: dict[str, Callable[[], float]] = {
            "cosine": lambda: mu - self._settings.offset,
            "probability": lambda: mu,
            "percentile": lambda: self._percentile(label, real),
        }
        return round(thresholds[self._settings.scorer](), DECIMALS)

    def _percentile(self, label: int, real: Sequence[bytes]) -> float:
        if not real:
            raise LTGCError(f"filter.scorer: class {label} has no real image; use cosine or probability")
        # NumPy's linear interpolation: of 4 images the 10th percentile lies 0.3 of the way from the lowest
        # score to the second lowest.
        return float(np.percentile(self.scores([label] * len(real), real), self._settings.threshold))
