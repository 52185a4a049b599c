"""Texts that are too long for a text encoder, cut where it hurts least."""

import re
from bisect import bisect_left
from collections.abc import Callable

# Where a text that is too long may end, the best places first: between features, words, characters.
CUTS = [re.compile(r"\s*[,;]\s+|\s+(?=with\s)"), re.compile(r"\s+"), re.compile(r"(?<=\S)")]


def shortened(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of `text` that fits and ends before a feature, else before a word or a character."""
    end = "." if text.endswith(".") else ""
    for pattern in CUTS:
        shorter = [text[: match.start()] + end for match in pattern.finditer(text) if match.start()]
        fitting = bisect_left(shorter, True, key=lambda short: not fits(short))
        if fitting:
            return shorter[fitting - 1]
    return ""
