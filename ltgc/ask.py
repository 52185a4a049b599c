"""Asking the vision model itself for the class (Table 3): which images, what its answer names, and its score."""

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from graphs import parse
from graphs.parse import Unusable
from ltgc.artifacts import Answer, AskMetrics, ClassRecord, ImageRecord, Shot
from ltgc.errors import LTGCError
from ltgc.params import Params
from ltgc.server import EMBEDDED

EMBEDDED_IMAGES = 192  # that the embedded server is shown where ask.max_images is null: 11 s
SYNONYMS = "synonyms.csv"  # below data.root, if there is one: class_name,synonym

Words = tuple[str, ...]


class Names:
    """The classes by name and synonym, found in what a model says, whatever its case, plurals and punctuation."""

    def __init__(self, classes: Sequence[ClassRecord], synonyms: Iterable[tuple[str, str]] = ()) -> None:
        """synonyms: (class name, another name of it). Raises LTGCError for one that two classes would have."""
        labels = {c.name: c.label for c in classes}
        self._labels: dict[Words, int] = {_words(name): label for name, label in labels.items()}
        self._stems: dict[Words, int] = {}  # asked after the names: "glass" and "glasses" may be two classes
        for class_name, name in [*synonyms, *((name, name) for name in labels)]:
            if class_name not in labels:
                raise LTGCError(f"{SYNONYMS}: {class_name!r} is no class of data/classes.csv")
            if self._labels.setdefault(_words(name), labels[class_name]) != labels[class_name]:
                raise LTGCError(f"{SYNONYMS}: {name!r} is given to {class_name!r} and names another class too")
            self._stems.setdefault(_stem(_words(name)), labels[class_name])
        self._longest = max(map(len, self._labels), default=0)

    def find(self, reply: str) -> int:
        """The label of the one class that the reply names.

        Raises Unusable: "refused", "unknown_class" for a reply without one, "several_classes".
        """
        text = parse.THINKING.sub("", reply[: parse.MAX_REPLY])
        words = _words(text)
        if (label := self._labels.get(words)) is not None:
            return label  # a class may well be called "sorry"
        if parse.refused(text):
            raise Unusable("refused")
        found = set()
        at = 0
        while at < len(words):
            # The longest name that begins here: "rose hip" is not a rose.
            for size in range(min(self._longest, len(words) - at), 0, -1):
                if (label := self._label(words[at : at + size])) is not None:
                    found.add(label)
                    at += size
                    break
            else:
                at += 1
        if len(found) != 1:
            raise Unusable("several_classes" if found else "unknown_class")
        return found.pop()

    def _label(self, words: Words) -> int | None:
        exact = self._labels.get(words)
        return self._stems.get(_stem(words)) if exact is None else exact


def _words(text: str) -> Words:
    return tuple(parse.normalised(text).split())


def _stem(words: Words) -> Words:
    """Alike for the singular and the plural that English makes of it: poppy and poppies, box and boxes."""
    last = re.sub(r"(?<!s|u|i)s$", "", words[-1])
    return (*words[:-1], re.sub(r"y$", "i", last.removesuffix("e")))


def read_synonyms(root: Path) -> list[tuple[str, str]]:
    """(class name, another name of it) of `root`/synonyms.csv; none without the file.

    Raises LTGCError for a file without the columns class_name and synonym.
    """
    path = root / SYNONYMS
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"class_name", "synonym"} <= set(rows.fieldnames or ()):
            raise LTGCError(f"{path}: its first line must be class_name,synonym")
        pairs = [(row["class_name"], row["synonym"]) for row in rows]
    for number, (class_name, synonym) in enumerate(pairs, 2):
        if not class_name or not synonym or not _words(synonym):
            raise LTGCError(f"{path}, line {number}: class_name and synonym must both be there")
    return pairs


def wanted(settings: Params) -> int:
    """How many test images to ask about at most: ask.max_images; where it is null, no paid server is asked."""
    if settings.ask.max_images is None:
        return EMBEDDED_IMAGES if settings.vision.base_url == EMBEDDED else 0
    return settings.ask.max_images


def sample(test: Sequence[ImageRecord], most: int, seed: int) -> list[ImageRecord]:
    """At most `most` of the test images, as evenly over the classes as they come, in the order of `test`.

    A larger `most` adds images to those of a smaller one, so that raising it asks about the new ones only.
    """

    def place(text: str) -> bytes:
        return hashlib.sha256(f"{seed}/ask/{text}".encode()).digest()

    of_class: dict[int, list[ImageRecord]] = defaultdict(list)
    for image in sorted(test, key=lambda image: place(image.path)):
        of_class[image.label].append(image)
    turns = [(turn, place(i.class_name), i.path) for own in of_class.values() for turn, i in enumerate(own)]
    chosen = {path for *_, path in sorted(turns)[:most]}
    return [image for image in test if image.path in chosen]


def metrics(answers: Sequence[Answer], classes: Sequence[ClassRecord]) -> AskMetrics:
    """Top-1 in percent: All, and the mean per-class accuracy of the shot groups (§4.1). No answer is a wrong one.

    All weights the accuracy of a class by its test images, so that an even sample tells of the whole test split.
    A class that was not asked about counts nowhere.
    """
    right: dict[int, list[bool]] = defaultdict(list)
    for answer in answers:
        right[answer.label].append(answer.prediction == answer.label)
    asked = [c for c in classes if c.label in right]
    accuracy = {c.label: sum(right[c.label]) / len(right[c.label]) for c in asked}

    def group(shot: Shot) -> float | None:
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
