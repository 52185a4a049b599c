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
from ltgc.pipeline.by_class import ByClass
from ltgc.report.inputs import Made

T = TypeVar("T")

CLASSES_SHOWN = 60  # fold-outs: the page of a large data set stays small


def rarest(classes: Sequence[ClassRecord]) -> list[ClassRecord]:
    """At most CLASSES_SHOWN, those with the fewest training images first: generated content is for these."""
    return sorted(classes, key=lambda c: (c.train, c.label))[:CLASSES_SHOWN]


def filled(inputs: Made) -> list[ClassRecord]:
    """The classes that something was written or drawn for; all of them where nothing was."""
    labels = {*inputs.extended.labels, *inputs.attempts.labels}
    return [c for c in inputs.classes if c.label in labels] or inputs.classes


def by_label(records: Iterable[Any]) -> dict[int, list[Any]]:
    of_class: dict[int, list[Any]] = defaultdict(list)
    for record in records:
        of_class[record.label].append(record)
    return of_class


def originals(manifest: Iterable[ImageRecord], image_root: Path) -> dict[int, list[ImageFile]]:
    """label -> training images."""
    of_class: dict[int, list[ImageFile]] = defaultdict(list)
    for image in manifest:
        if image.split == "train":
            of_class[image.label].append(image_file(image_root, image))
    return of_class


def accepted(attempts: Iterable[Attempt]) -> list[Attempt]:
    """The accepted drawings among them."""
    return list(filter(is_accepted, attempts))


def is_accepted(attempt: Attempt) -> bool:
    return attempt.verdict == "accepted" and attempt.image is not None


def refused(attempts: Iterable[Attempt]) -> list[list[Attempt]]:
    """Refinement chains whose first drawing scored too low, or that the image model refused to draw."""
    chains = refinement_chains(attempts)
    return [chain for chain in chains if len(chain) > 1 or any(below_threshold(attempt) for attempt in chain)]


def mended(attempts: ByClass[Attempt], classes: Sequence[ClassRecord], count: int) -> list[list[Attempt]]:
    """At most `count` refinements that ended well (Fig. 7).

    One of each class, rarest classes first, then the second of each.
    """
    of_class: list[list[list[Attempt]]] = []
    for c in sorted(classes, key=lambda c: (c.train, c.label)):
        if len(of_class) < count:
            chains = refinement_chains(attempts.of(c.label))
            ended_well = [chain for chain in chains if _is_mended(chain)]
            of_class += [ended_well] if ended_well else []
    most = max(map(len, of_class), default=0)
    return [chains[turn] for turn in range(most) for chains in of_class if turn < len(chains)][:count]


def _is_mended(chain: Sequence[Attempt]) -> bool:
    return len(chain) > 1 and chain[-1].verdict == "accepted" and chain[0].score is not None


def below_threshold(attempt: Attempt) -> bool:
    return attempt.score is not None and attempt.threshold is not None and attempt.score < attempt.threshold


def spaced(values: Sequence[T], count: int) -> list[T]:
    """At most `count` of `values`, evenly spaced: the first ones alone would show one scene."""
    if len(values) <= count:
        return list(values)
    return [values[i * len(values) // count] for i in range(count)]
