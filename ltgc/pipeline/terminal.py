"""The consoles that everything prints on."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

# Names, paths and what servers say may hold sequences that a terminal obeys.
CONTROL = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}")


class PlainConsole(Console):
    """Prints no control characters but its own."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(text.translate(CONTROL), **options)


console = PlainConsole(stderr=True, highlight=False)


def output(width: int = 120) -> Console:
    """The console of stdout; of `width` characters where that is not a terminal: a log has no 80 columns."""
    return PlainConsole(width=None if sys.stdout.isatty() else width)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
