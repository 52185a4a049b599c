"""What the page opens with: did the drawings help, where, and what did they cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltgc.evaluation.comparison import Comparison
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.report.style import OURS


def answers(
    comparison: Comparison,
    paired: Comparison,
    control: str | None,
    classes: Sequence[ClassRecord],
    accuracy: Mapping[str, Mapping[int, float]],
) -> dict[str, Any] | None:
    """BalanceMix against the control, the best method without drawings; None where one of them did not run.

    `helped`: (words, points, margin, whether the interval leaves out 0) over all and on few-shot classes;
    `better`, `worse`: classes by what they gain and lose, points; `most`, `least`: the two ends of them.
    """
    if control is None or OURS not in paired or OURS not in comparison:
        return None
    helped = []
    for metric, words in (("few", "few-shot classes"), ("all", "all test images")):
        value = paired[OURS][metric]
        if value["mean"] is not None:
            margin = value.get("margin")
            helped.append((words, value["mean"], margin, margin is not None and abs(value["mean"]) > margin))
    ours, theirs = accuracy.get(OURS, {}), accuracy.get(control, {})
    gains = sorted(
        (ours[c.label] - theirs[c.label], c.name) for c in classes if {c.label} <= ours.keys() & theirs.keys()
    )
    return {
        "control": control,
        "helped": helped,
        "better": sum(gain > 0 for gain, _ in gains),
        "worse": sum(gain < 0 for gain, _ in gains),
        "most": gains[-1] if gains and gains[-1][0] > 0 else None,
        "least": gains[0] if gains and gains[0][0] < 0 else None,
    }
