"""The consoles that everything prints on."""

import sys

from rich.console import Console

console = Console(stderr=True, highlight=False)


def output(width: int = 120) -> Console:
    """The console of stdout; of `width` characters where that is not a terminal: a log has no 80 columns."""
    return Console(width=None if sys.stdout.isatty() else width)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
