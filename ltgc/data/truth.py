"""What is known of drawn data sets and no model is told: read to score the loops, never by a decision."""

from importlib import import_module
from typing import Protocol, cast

SOURCES = {"wildflowers": "embedded.truth"}  # data.source -> the module that tells the truth about it


class DrawingTruth(Protocol):
    """The truth about the drawings of one data set."""

    def represents(self, image: bytes, class_name: str) -> bool | None:
        """Whether the drawing represents the class; None: not known."""

    def describes(self, text: str, class_name: str) -> bool:
        """Whether the class could show every feature that a description names."""


class Truth(DrawingTruth, Protocol):
    """The truth about one data set."""

    def repeats(self, existing: list[str], extended: list[str]) -> list[bool]:
        """For each description of `extended`, in order: does it repeat an earlier one of either list?"""


def known_truth(source: str) -> Truth | None:
    """The truth about a data source; None where it is not known."""
    return cast(Truth, import_module(SOURCES[source])) if source in SOURCES else None
