"""The calls of a stage, counted for metrics/calls/<stage>.json."""

from collections import Counter
from collections.abc import Iterable
from typing import Any


def call_metrics(counts: Iterable[Counter[str]], *always: str) -> dict[str, Any]:
    """The counts of all graphs of a stage, for metrics/calls/<stage>.json; always: named also where 0.

    What the artifact needed is counted, whether it was paid for today or came from the store, so that a rerun
    writes the same file.
    """
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    summary: dict[str, Any] = dict.fromkeys(("calls", "prompt_tokens", "completion_tokens", *always), 0)
    summary |= {name: total[name] for name in sorted(total) if "/" not in name}
    summary["failures"] = {n.partition("/")[2]: total[n] for n in sorted(total) if n.startswith("failures/")}
    return summary
