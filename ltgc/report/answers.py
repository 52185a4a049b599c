"""What the page opens with: did the drawings help, where, and what did they cost."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ltgc.evaluation.comparison import Comparison
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.report.style import OURS


class Pair(NamedTuple):
    """The two methods that the page is about."""

    ours: str
    control: str


def pair(comparison: Comparison, control: str | None) -> Pair | None:
    """Our recipe, or BalanceMix where it did not run, and the control, the best method without drawings."""
    ours = next((method for method in OURS if method in comparison), None)
    return None if control is None or ours is None else Pair(ours, control)


def answers(
    pair: Pair | None,
    paired: Comparison,
    classes: Sequence[ClassRecord],
    accuracy: Mapping[str, Mapping[int, float]],
) -> dict[str, Any] | None:
    """Ours against the control; None where one of them did not run.

    `helped`: (words, points, margin, whether the interval leaves out 0) over all and on few-shot classes;
    `better`, `worse`: classes by what they gain and lose, points; `most`, `least`: the two ends of them.
    """
    if pair is None or pair.ours not in paired:
        return None
    helped = []
    for metric, words in (("few", "few-shot classes"), ("all", "all test images")):
        value = paired[pair.ours][metric]
        if value["mean"] is not None:
            margin = value.get("margin")
            helped.append((words, value["mean"], margin, margin is not None and abs(value["mean"]) > margin))
    ours, theirs = (accuracy.get(method, {}) for method in pair)
    gains = sorted(
        (ours[c.label] - theirs[c.label], c.name) for c in classes if {c.label} <= ours.keys() & theirs.keys()
    )
    return {
        "helped": helped,
        "better": sum(gain > 0 for gain, _ in gains),
        "worse": sum(gain < 0 for gain, _ in gains),
        "most": gains[-1] if gains and gains[-1][0] > 0 else None,
        "least": gains[0] if gains and gains[0][0] < 0 else None,
    }
