"""What the page opens with: did the drawings help, where, and what did they cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltgc.evaluation.comparison import Comparison
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.report.style import OURS, RECIPE


def answers(
    comparison: Comparison,
    paired: Comparison,
    control: str | None,
    classes: Sequence[ClassRecord],
    accuracy: Mapping[str, Mapping[int, float]],
) -> dict[str, Any] | None:
    """Our recipe, or BalanceMix where it did not run, against the control, the best method without drawings.

    None where they did not run.

    `helped`: (words, points, margin, whether the interval leaves out 0) over all and on few-shot classes;
    `better`, `worse`: classes by what they gain and lose, points; `most`, `least`: the two ends of them.
    """
    method = next((m for m in (RECIPE, OURS) if m in paired and m in comparison), None)
    if control is None or method is None:
        return None
    helped = []
    for metric, words in (("few", "few-shot classes"), ("all", "all test images")):
        value = paired[method][metric]
        if value["mean"] is not None:
            margin = value.get("margin")
            helped.append((words, value["mean"], margin, margin is not None and abs(value["mean"]) > margin))
    ours, theirs = accuracy.get(method, {}), accuracy.get(control, {})
    gains = sorted(
        (ours[c.label] - theirs[c.label], c.name) for c in classes if {c.label} <= ours.keys() & theirs.keys()
    )
    return {
        "method": method,
        "control": control,
        "helped": helped,
        "better": sum(gain > 0 for gain, _ in gains),
        "worse": sum(gain < 0 for gain, _ in gains),
        "most": gains[-1] if gains and gains[-1][0] > 0 else None,
        "least": gains[0] if gains and gains[0][0] < 0 else None,
    }
