"""What an image is meant to show: what the filter holds it against."""

from typing import NamedTuple


class Subject(NamedTuple):
    label: int
    features: str | None = None  # of the description that was drawn, or that a photo was given; None: it has none
    source: int | str | None = None  # which of the class's descriptions that was: its index, or its photo's path
