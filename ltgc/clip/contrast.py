"""The contrast scorer: an image is judged by margins, and its description by the class's other descriptions.

Three measures, each held against a bound of its own:
  agreement  cos(image, the features that were to be drawn): was the prompt obeyed?
  margin     how well the class's other descriptions fit the image, less the text of any class that fits it best
  consensus  the least share of the class's other descriptions that name a word of this one
The bounds of the first two are low percentiles of what real photos reach with their own descriptions, pooled over
the classes: a few photos say little about a percentile of their own class. Consensus needs no image: of 100
descriptions that a language model gives of a class a wrong feature is in a few, a rare but real variant in more.
Nothing here depends on what else is drawn.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ltgc.clip.encoder import Clip
from ltgc.clip.subject import Subject
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.pipeline.artifacts.descriptions import ExistingDescription, ExtendedDescription

# Texts of a class that an image is held against: with 64 the margin is what it is with all (docs/models.md).
TEXTS = 64
# Of all classes together, or each drawing would cost more with every class, and the texts of iNaturalist 2018
# 1.1 GB at 512 features: of its 8,142 classes 32 a class are left, of ImageNet-LT's 1,000 all 64.
TEXTS_IN_ALL = 2**18
CLASSES_AT_HAND = 64  # whose words are kept: drawings come class by class, up to 1,000 descriptions at once
CONSENSUS = 0.05  # share of the class's other descriptions that have to name a word
# With fewer other descriptions, chance leaves a word of that share unsaid by all of them more than once in twenty.
# With 20 as the least, 26 of 32 right drawings that were refused on real photos had a rare but right colour.
OTHERS = math.ceil(math.log(0.05) / math.log(1 - CONSENSUS))
COMMON = 0.02  # share of the other classes' descriptions that name a word; words below are no shared vocabulary
SMOOTHING = 0.005  # of shares, in logarithms
WORD = re.compile(r"\w[\w-]+|\d")

# label -> the class's descriptions
Descriptions = Callable[[int], Sequence[ExistingDescription | ExtendedDescription]]


class Measures(NamedTuple):
    agreement: float | None  # cosine; None without features
    margin: float  # cosine
    consensus: (
        float | None
    )  # share; None where the class has too few other descriptions, or the words are rare ones


class Bound(NamedTuple):
    lowest: float  # that is accepted
    scale: float  # from there to a typical real photo: makes the measures comparable


class Contrast:
    """The score is the least of the measures, each less its bound and in units of its bound's scale."""

    def __init__(
        self,
        clip: Clip,
        texts: Sequence[str],
        classes: Sequence[ClassRecord],
        descriptions: Descriptions,
        percent: float,
    ) -> None:
        """texts: what stands for each class, C_y, by label. descriptions: those that were kept, of a class.

        percent: of real photos, that may be refused.
        """
        self._clip = clip
        self._percent = percent
        self._names = [c.name for c in classes]
        self._vocabulary = Vocabulary(range(len(texts)), lambda label: _subjects(descriptions(label)))
        most = min(TEXTS, max(1, TEXTS_IN_ALL // len(texts)))
        # Of each class its rows in the features, and which description each row is: the last is C_y.
        self._rows: dict[int, Tensor] = {}
        self._sources: dict[int, list[int | str | None]] = {}
        all_texts: list[str] = []
        for label, text in enumerate(texts):
            own = _spaced(_subjects(descriptions(label)), most)
            self._rows[label] = torch.arange(len(all_texts), len(all_texts) + len(own) + 1)
            self._sources[label] = [*(s.source for s in own), None]
            all_texts += [*(self._text(s) for s in own), text]
        self._features = clip.text_features(all_texts)  # (T, D)
        self._agreement: Bound | None = None
        self._margin: Bound | None = None

    def measures(self, features: Tensor, subjects: Sequence[Subject]) -> list[Measures]:
        """features: (B, D) unit features of images, the first of them those of the subjects.

        B is always the same, whatever the number of subjects: the last bits depend on it.
        """
        cosines = (features @ self._features.T).cpu()  # (B, T)
        prompts = self._prompts(subjects, len(features))
        agreements = (features * prompts).sum(-1).tolist()
        return [
            Measures(
                agreement if subject.features else None,
                self._least_margin(row, subject, agreement),
                self._vocabulary.consensus(subject),
            )
            for row, agreement, subject in zip(cosines, agreements, subjects, strict=False)
        ]

    def _prompts(self, subjects: Sequence[Subject], count: int) -> Tensor:
        """(count, D) text features of what was to be drawn; of C_y where there are no features, and beyond."""
        if not any(subject.features for subject in subjects):
            return self._features[[int(self._rows[s.label][-1]) for s in subjects] + [0] * (count - len(subjects))]
        texts = [self._text(s) if s.features else self._names[s.label] for s in subjects]
        padded = [*texts, *[self._names[0]] * (count - len(texts))]  # one shape, as of the images
        return self._clip.text_features(self._clip.fitting(padded), batch_size=count)

    def _least_margin(self, cosines: Tensor, subject: Subject, agreement: float) -> float:
        """Log-mean-exp (at CLIP's temperature) over the class's texts but its own, less the best of all texts."""
        own = [source is None or source != subject.source for source in self._sources[subject.label]]
        scaled = cosines[self._rows[subject.label]][own] * self._clip.logit_scale
        fits = (float(scaled.logsumexp(0)) - math.log(len(scaled))) / self._clip.logit_scale
        return fits - max(float(cosines.max()), agreement if subject.features else -1.0)

    def calibrate(self, real: Sequence[tuple[Subject, Measures]]) -> None:
        """Set the bounds so that at most `percent` of the real photos fail one of the two that images can fail."""
        agreements = [m.agreement for _, m in real if m.agreement is not None]
        self._agreement = _bound(agreements, self._percent / 2)
        margins = [m.margin for _, m in real]
        # Photos that are all of one look do not forbid another that one in twenty descriptions names.
        highest = math.log(CONSENSUS) / self._clip.logit_scale
        self._margin = _bound(margins, self._percent / 2, highest)

    def score(self, subject: Subject, measures: Measures) -> tuple[float, float]:
        """The score, at least 0 where no measure is below its bound, and that 0."""
        scores = [_units(measures.margin, self._margin), _units(measures.agreement, self._agreement)]
        if measures.consensus is not None:
            scores.append(math.log((measures.consensus + SMOOTHING) / (CONSENSUS + SMOOTHING)))
        return min((score for score in scores if score is not None), default=0.0), 0.0

    def _text(self, subject: Subject) -> str:
        """Template 1 without its scene, which says nothing about the class."""
        return f"A photo of the class {self._names[subject.label]}, {subject.features}."


class Words:
    """The words of a class's descriptions, and how many of them name each."""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self.by_source = {subject.source: _words(subject) for subject in subjects}
        self.counts = Counter(word for words in self.by_source.values() for word in words)


class Vocabulary:
    """How many of a class's descriptions name a word, and of the other classes'."""

    def __init__(self, labels: Iterable[int], subjects: Callable[[int], Sequence[Subject]]) -> None:
        """subjects: the descriptions of a class. They are read again when the class's turn to be drawn comes."""
        self._class = lru_cache(CLASSES_AT_HAND)(lambda label: Words(subjects(label)))
        self._classes = 0  # that have descriptions
        self._shares: dict[str, float] = defaultdict(float)  # summed over the classes
        for label in labels:
            own = self._class(label)
            self._classes += bool(own.by_source)
            for word, count in own.counts.items():
                self._shares[word] += count / len(own.by_source)

    def consensus(self, subject: Subject) -> float | None:
        """The least share of the class's other descriptions that name a word of `subject`.

        Words that other classes' descriptions hardly ever name are left out: a text may be worded as none before.
        None for a photo: what a vision model said wrongly of it is not the photo's fault.
        """
        known = self._class(subject.label)
        own = known.by_source.get(subject.source, frozenset())
        others = len(known.by_source) - bool(own)
        if others < OTHERS or subject.features is None or isinstance(subject.source, str):
            return None
        shares = [
            (known.counts[word] - (word in own)) / others
            for word in _words(subject)
            if self._elsewhere(word, known) >= COMMON
        ]
        return min(shares, default=None)

    def _elsewhere(self, word: str, known: Words) -> float:
        """The mean share of the other classes' descriptions that name the word."""
        here = known.counts[word] / len(known.by_source)
        return (self._shares.get(word, 0.0) - here) / max(1, self._classes - 1)


def real_subjects(existing: Iterable[ExistingDescription]) -> Mapping[str, Subject]:
    """Path of a photo -> the photo with the description that it was given."""
    return {d.image: _subject(d) for d in existing if d.kept and d.features}


def _subject(description: ExistingDescription | ExtendedDescription) -> Subject:
    source = description.index if isinstance(description, ExtendedDescription) else description.image
    return Subject(description.label, description.features, source)


def _subjects(descriptions: Iterable[ExistingDescription | ExtendedDescription]) -> list[Subject]:
    return [_subject(d) for d in descriptions if d.features]


def _words(subject: Subject) -> frozenset[str]:
    return frozenset(WORD.findall((subject.features or "").lower()))


def _spaced(subjects: Sequence[Subject], most: int) -> list[Subject]:
    """At most `most` of them, evenly spaced."""
    count = min(len(subjects), most)
    return [subjects[i * len(subjects) // count] for i in range(count)]


def _bound(real: Sequence[float], percent: float, highest: float = math.inf) -> Bound | None:
    """The percentile of `real`, or `highest` if that is lower; None without real photos."""
    if not real:
        return None
    percentile, median = (float(value) for value in np.percentile(real, [percent, 50]))
    lowest = min(percentile, highest)
    return Bound(lowest, max(median - lowest, 1e-3))


def _units(value: float | None, bound: Bound | None) -> float | None:
    return None if value is None or bound is None else (value - bound.lowest) / bound.scale
