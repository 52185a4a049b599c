"""Which classes, images and refinements the page and the paper's figures show."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ltgc.data.images import ImageFile
from ltgc.data.roots import image_file
from ltgc.evaluation.loop_metrics import refinement_chains
from ltgc.pipeline.artifacts.dataset import ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.drawings import Attempt
from ltgc.report.inputs import Made

T = TypeVar("T")

CLASSES_SHOWN = 60  # fold-outs: the page of a large data set stays small


def rarest(classes: Sequence[ClassRecord]) -> list[ClassRecord]:
    """At most CLASSES_SHOWN, those with the fewest training images first: generated content is for these."""
    return sorted(classes, key=lambda c: (c.train, c.label))[:CLASSES_SHOWN]


def filled(inputs: Made) -> list[ClassRecord]:
    """The classes that something was written or drawn for; all of them where nothing was."""
    labels = {e.label for e in inputs.extended} | {a.label for a in inputs.attempts}
    return [c for c in inputs.classes if c.label in labels] or inputs.classes


def by_label(records: Iterable[Any]) -> dict[int, list[Any]]:
    of_class: dict[int, list[Any]] = defaultdict(list)
    for record in records:
        of_class[record.label].append(record)
    return of_class


def originals(manifest: Sequence[ImageRecord], image_root: Path) -> dict[int, list[ImageFile]]:
    """label -> training images."""
    return {
        label: [image_file(image_root, image) for image in own]
        for label, own in by_label(image for image in manifest if image.split == "train").items()
    }


def accepted(attempts: Sequence[Attempt]) -> dict[int, list[Attempt]]:
    """label -> accepted drawings."""
    return by_label(a for a in attempts if a.verdict == "accepted" and a.image is not None)


def refused(attempts: Sequence[Attempt]) -> dict[int, list[list[Attempt]]]:
    """label -> refinement chains whose first drawing scored too low, or that the image model refused to draw."""
    of_class: dict[int, list[list[Attempt]]] = defaultdict(list)
    for chain in refinement_chains(attempts):
        if len(chain) > 1 or any(below_threshold(attempt) for attempt in chain):
            of_class[chain[0].label].append(chain)
    return of_class


def mended(attempts: Sequence[Attempt], classes: Sequence[ClassRecord]) -> list[list[Attempt]]:
    """Refinements that ended well (Fig. 7): one of each class, rarest classes first, then the second of each."""
    of_class: dict[int, list[list[Attempt]]] = defaultdict(list)
    for chain in refinement_chains(attempts):
        if len(chain) > 1 and chain[-1].verdict == "accepted" and chain[0].score is not None:
            of_class[chain[0].label].append(chain)
    order = [c.label for c in sorted(classes, key=lambda c: (c.train, c.label))]
    most = max(map(len, of_class.values()), default=0)
    return [of_class[label][turn] for turn in range(most) for label in order if turn < len(of_class[label])]


def below_threshold(attempt: Attempt) -> bool:
    return attempt.score is not None and attempt.threshold is not None and attempt.score < attempt.threshold


def spaced(values: Sequence[T], count: int) -> list[T]:
    """At most `count` of `values`, evenly spaced: the first ones alone would show one scene."""
    if len(values) <= count:
        return list(values)
    return [values[i * len(values) // count] for i in range(count)]
