"""What an image is meant to show, and what the filter says of it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple


class Subject(NamedTuple):
    label: int
    features: str | None = None  # of the description that was drawn, or that a photo was given; None: it has none
    source: int | str | None = None  # which of the class's descriptions that was: its index, or its photo's path


@dataclass(frozen=True)
class Score:
    score: float | None  # S; None: the models that were asked gave none
    threshold: float | None  # accepted at S >= threshold
    answers: dict[str, bool] | None = None  # of the scorer `ask`: feature -> whether the image shows it
    reason: str | None = None  # why there is no score
    counts: Counter[str] = field(default_factory=Counter)  # calls and tokens
    failures: Counter[str] = field(default_factory=Counter)  # replies that could not be used, by reason
