"""How long a stage takes, and how much of it is spent inside training steps and forward passes."""

from __future__ import annotations

import time
from types import TracebackType

import psutil


class Stopwatch:
    """Adds up the seconds spent inside its `with` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds += time.monotonic() - self._started


# Training steps with the loading of their images, and the forward passes of validation and testing.
steps = Stopwatch()


def process_seconds() -> float:
    """Since this process started, the imports included."""
    return time.time() - psutil.Process().create_time()
