"""What every run is trained from: the data set, the drawings, the texts of the classes, and CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ltgc.classifier.features import Features, Rows, clip_features
from ltgc.clip import pixels
from ltgc.clip.class_texts import class_texts
from ltgc.clip.encoder import Clip
from ltgc.data.images import ImageFile
from ltgc.data.roots import image_file
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord, Split
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, DROPPED, Attempt, Contamination
from ltgc.pipeline.settings.training import GeneratedSettings
from ltgc.training.transfer import drawings_weight

Labelled = tuple[ImageFile, int]  # an image and its label


class Inputs:
    """Artifacts are read, and images decoded, when they are first asked for, and kept for the runs that follow."""

    def __init__(self, clip: Clip, image_root: Path) -> None:
        self.clip = clip
        self._image_root = image_root
        self._pixels: dict[tuple[Labelled, ...], pixels.Pixels] = {}
        self._features: dict[tuple[Labelled, ...], Features] = {}

    @cached_property
    def classes(self) -> list[ClassRecord]:
        return files.read_csv(CLASSES, ClassRecord)

    @cached_property
    def templates(self) -> list[ClassTemplate]:
        return files.read_jsonl(TEMPLATES, ClassTemplate)

    @cached_property
    def descriptions(self) -> list[ExistingDescription | ExtendedDescription]:
        existing = files.read_jsonl(EXISTING, ExistingDescription)
        return [*existing, *files.read_jsonl(EXTENDED, ExtendedDescription)]

    @cached_property
    def _photos(self) -> dict[Split, list[Labelled]]:
        photos: dict[Split, list[Labelled]] = {"train": [], "val": [], "test": []}
        for image in files.each_csv(MANIFEST, ImageRecord):
            photos[image.split].append((image_file(self._image_root, image), image.label))
        return photos

    def photos(self, split: Split) -> list[Labelled]:
        return self._photos[split]

    def drawings(self, settings: GeneratedSettings) -> list[Labelled]:
        """D_g: accepted drawings that are not nearly test images, up to train.generated.per_class."""
        labels = [label for _, label in self.accepted]
        kept = keep_generated(labels, [c.train for c in self.classes], settings)
        return [self.accepted[position] for position in kept]

    @property
    def accepted(self) -> list[Labelled]:
        return self._drawings[0]

    def strengths(self, images: Sequence[Labelled]) -> Tensor:
        """(N,) float32: of drawings that start from a photo, how far each may have gone from it; of others 0."""
        return torch.tensor([self._drawings[1].get(file.path, 0.0) for file, _ in images])

    @cached_property
    def _drawings(self) -> tuple[list[Labelled], dict[str, float]]:
        """The accepted drawings, and by their paths the strengths of those that start from a photo."""
        dropped = {drawing.image for drawing in files.read_csv(DROPPED, Contamination)}
        drawings, strengths = [], {}
        for attempt in files.each_jsonl(ATTEMPTS, Attempt):
            if attempt.verdict == "accepted" and attempt.image and attempt.image not in dropped:
                drawings.append((ImageFile(attempt.image), attempt.label))
                if attempt.strength:
                    strengths[attempt.image] = attempt.strength
        return drawings, strengths

    @cached_property
    def texts(self) -> dict[str, str]:
        """Path of an image -> what was said of the photo, or told to the image model."""
        said = {
            f"{self._image_root}/{d.image}": d.description
            for d in self.descriptions
            if isinstance(d, ExistingDescription) and d.description
        }
        return said | {a.image: a.prompt for a in files.each_jsonl(ATTEMPTS, Attempt) if a.image}

    @cached_property
    def drawings_weight(self) -> float:
        """How much the accepted drawings are worth, in [0, 1], by the training split alone (transfer.py)."""
        photos = self.photos("train")
        features, labels = self.features(photos + self.accepted)
        original, drawn = torch.arange(len(labels)).tensor_split([len(photos)])
        texts = self.clip.text_features(class_texts("templates", self.classes, self.templates))
        return drawings_weight(
            (Rows(features, original), labels[original]),
            (Rows(features, drawn), labels[drawn]),
            texts,
            self.clip.logit_scale,
        )

    @cached_property
    def unvalidated(self) -> int:
        """How many classes have no validation image: where there are any, validation decides nothing."""
        return len(self.classes) - len({label for _, label in self.photos("val")})

    def features(self, images: Sequence[Labelled]) -> tuple[Features, Tensor]:
        """Unit features (N, D) by CLIP before training, and labels (N,) int64, on the CPU."""
        key = tuple(images)
        pixels, labels = self.load(images)
        if key not in self._features:
            self._features[key] = clip_features(self.clip, pixels)
        return self._features[key], labels

    def load(self, images: Sequence[Labelled]) -> tuple[pixels.Pixels, Tensor]:
        """Pixels and labels (N,) int64, on the CPU, of N images."""
        key = tuple(images)
        if key not in self._pixels:
            self._pixels[key] = pixels.load([file for file, _ in images], self.clip)
        return self._pixels[key], torch.tensor([label for _, label in images], dtype=torch.int64)


def keep_generated(labels: Sequence[int], counts: Sequence[int], settings: GeneratedSettings) -> list[int]:
    """Which drawings are trained on: the positions of the first of each class, up to per_class with its photos.

    labels: of the drawings in order; counts: photos of each class. With "head", up to the most photos of a class.
    """
    if settings.per_class is None:
        return list(range(len(labels)))
    limit = max(counts) if settings.per_class == "head" else settings.per_class
    totals, kept = list(counts), []
    for position, label in enumerate(labels):
        if totals[label] < limit:
            totals[label] += 1
            kept.append(position)
    return kept
