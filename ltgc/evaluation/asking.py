"""Asking the vision model itself for the class of test images (Table 3): which images, and its score."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ltgc.pipeline.artifacts.asking import Answer, AskMetrics
from ltgc.pipeline.artifacts.dataset import ClassRecord, ImageRecord, ShotGroup
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.servers import EMBEDDED

EMBEDDED_IMAGES = 192  # that the embedded server is shown where ask.max_images is null: 11 s


def images_wanted(settings: Params) -> int:
    """How many test images to ask about at most: ask.max_images; where it is null, no paid server is asked."""
    if settings.ask.max_images is None:
        return EMBEDDED_IMAGES if settings.vision.base_url == EMBEDDED else 0
    return settings.ask.max_images


def sample_images(test: Sequence[ImageRecord], most: int, seed: int) -> list[ImageRecord]:
    """At most `most` of the test images, as evenly over the classes as they come, in the order of `test`.

    A larger `most` adds images to those of a smaller one, so that raising it asks about the new ones only.
    """

    def rank(text: str) -> bytes:
        return hashlib.sha256(f"{seed}/ask/{text}".encode()).digest()

    by_class: dict[int, list[ImageRecord]] = defaultdict(list)
    for image in sorted(test, key=lambda image: rank(image.path)):
        by_class[image.label].append(image)
    # The first image of every class, then the second of every class, and so on.
    turns = [(turn, rank(i.class_name), i.path) for images in by_class.values() for turn, i in enumerate(images)]
    chosen = {path for *_, path in sorted(turns)[:most]}
    return [image for image in test if image.path in chosen]


def ask_metrics(answers: Sequence[Answer], classes: Sequence[ClassRecord]) -> AskMetrics:
    """Top-1 in percent: All, and the mean per-class accuracy of the shot groups (§4.1). No answer counts as wrong.

    All weights the accuracy of a class by the number of its test images, so that a sample spread evenly over the
    classes stands for the whole test split. A class that was not asked about counts nowhere.
    """
    right: dict[int, list[bool]] = defaultdict(list)
    for answer in answers:
        right[answer.label].append(answer.prediction == answer.label)
    asked = [c for c in classes if c.label in right]
    accuracy = {c.label: sum(right[c.label]) / len(right[c.label]) for c in asked}

    def group(shot: ShotGroup) -> float | None:
        return _mean({c.label: 1 for c in asked if c.shot == shot}, accuracy)

    return AskMetrics(
        images=len(answers),
        of=sum(c.test for c in classes),
        all=_mean({c.label: c.test for c in asked}, accuracy),
        many=group("many"),
        medium=group("medium"),
        few=group("few"),
        refused=sum(answer.reason == "refused" for answer in answers),
        no_class=sum(answer.prediction is None and answer.reason != "refused" for answer in answers),
    )


def _mean(weights: Mapping[int, int], accuracy: Mapping[int, float]) -> float | None:
    """The weighted mean in percent with two decimals; None over nothing."""
    total = sum(weights.values())
    return round(100 * sum(w * accuracy[label] for label, w in weights.items()) / total, 2) if total else None
