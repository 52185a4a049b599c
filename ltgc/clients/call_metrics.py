"""The calls of a stage, counted for metrics/calls/<stage>.json."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Calls(NamedTuple):
    """What one run of a graph asked for."""

    counts: Counter[str]  # calls, tokens, rounds, drawings, ...
    failures: Counter[str]  # replies and drawings that could not be used, by reason

    @classmethod
    def of(cls, end: Mapping[str, Any]) -> "Calls":
        """From the last state of a graph."""
        return cls(end["counts"], end["failures"])

    def add(self, other: "Calls") -> None:
        self.counts.update(other.counts)
        self.failures.update(other.failures)


def call_metrics(calls: Iterable[Calls], *always: str) -> dict[str, Any]:
    """The calls of all graphs of a stage, for metrics/calls/<stage>.json; always: named also where 0.

    What the artifact needed is counted, whether it was paid for today or was stored, so that a rerun writes the
    same file.
    """
    counts, failures = total = Calls(Counter(), Counter())
    for one in calls:
        total.add(one)
    summary: dict[str, Any] = dict.fromkeys(("calls", "prompt_tokens", "completion_tokens", *always), 0)
    summary |= {name: counts[name] for name in sorted(counts)}
    return summary | {"failures": {reason: failures[reason] for reason in sorted(failures)}}
