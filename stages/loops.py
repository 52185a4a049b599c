"""Stage loops: what the self-reflection and refinement loops did, what it cost, and how right the checks were.

python -m stages.loops
"""

from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from ltgc.clients.costs import COST_FIELDS, cost_rows, cost_summary, stage_cost
from ltgc.data.truth import known_truth
from ltgc.evaluation import loop_metrics
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, REAL_SCORES, Attempt, RealScore
from ltgc.pipeline.artifacts.replies import CALLS
from ltgc.pipeline.artifacts.results import COST, COST_PLOT, LOOPS, SCORES_PLOT
from ltgc.pipeline.terminal import console

CALLED = ("calls", "vision_calls")  # the second with filter.scorer: ask
TOKENS = ("prompt_tokens", "completion_tokens", "vision_prompt_tokens", "vision_completion_tokens")
LOOP_STAGES = ("describe", "extend", "templates", "generate")


def main() -> None:
    section = params.load(
        "data.source", "extend.target", "llm.model", "vision.model", "t2i.model", "t2i.backend", "prices"
    )
    classes = files.read_csv(CLASSES, ClassRecord)
    templates = files.read_jsonl(TEMPLATES, ClassTemplate)

    # The others are read one by one, and again where they are needed again: as lists they take gigabytes.
    def attempts() -> Iterator[Attempt]:
        return files.each_jsonl(ATTEMPTS, Attempt)

    def real() -> Iterator[RealScore]:
        return files.each_csv(REAL_SCORES, RealScore)

    existing = files.each_jsonl(EXISTING, ExistingDescription)
    extended = files.each_jsonl(EXTENDED, ExtendedDescription)
    summary: dict[str, Any] = {
        "describe": loop_metrics.describe(existing),
        "extend": loop_metrics.extend(extended, classes, section.extend.target),
        "templates": loop_metrics.templates(templates),
        "generate": loop_metrics.generate(attempts(), real()),
    }
    for name in LOOP_STAGES:
        # Calls, tokens and what else the stage itself counted
        summary[name] = files.read_json(CALLS / f"{name}.json") | summary[name]
    if truth := known_truth(section.data.source):
        described = files.read_jsonl(EXISTING, ExistingDescription)
        added = files.read_jsonl(EXTENDED, ExtendedDescription)
        summary |= loop_metrics.checks(attempts(), added, described, truth)

    asked = {name: summary[name] for name in LOOP_STAGES} | {"ask": files.read_json(CALLS / "ask.json")}
    costs = {name: stage_cost(section, name, calls) for name, calls in asked.items()}
    if "llm" in asked["ask"]:  # ask.way: tags
        costs["ask"] += stage_cost(section, "ask_llm", asked["ask"]["llm"])
    files.write_json(COST, cost_summary(costs))
    files.write_csv(COST_PLOT, cost_rows(costs), COST_FIELDS)
    files.write_json(LOOPS, summary)
    files.write_csv(SCORES_PLOT, loop_metrics.score_rows(attempts(), real()), loop_metrics.SCORE_FIELDS)
    console.print(table(summary))


def table(summary: dict[str, Any]) -> Table:
    """One row a loop: what was asked, what was kept, what was dropped and why, and what it cost."""
    table = Table("", title="Loops", caption=_quality(summary))
    for heading in ("asked", "kept", "dropped", "calls", "tokens"):
        table.add_column(heading, justify="left" if heading == "dropped" else "right")
    for name, asked, kept, dropped in (
        ("describe", "asked", "kept", summary["describe"]["dropped"]),
        ("extend", "asked", "kept", summary["extend"]["dropped"]),
        ("templates", "classes", "llm", summary["templates"]["class_name"]),
        (
            "generate",
            "descriptions",
            "accepted",
            {"rejected": summary["generate"]["rejected"]} | summary["generate"]["failed"],
        ),
    ):
        loop = summary[name]
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        calls, tokens = (sum(loop.get(key, 0) for key in keys) for keys in (CALLED, TOKENS))
        numbers = (loop[asked], loop[kept], reasons, calls, tokens)
        table.add_row(name, *(escape(n) if isinstance(n, str) else f"{n:,}" for n in numbers))
    return table


def _quality(summary: dict[str, Any]) -> str | None:
    """How right the two checks were, where the truth is known."""
    checks = []
    for name in ("filter", "repetition_check"):
        if name in summary:
            numbers = {key: summary[name][key] for key in ("precision", "recall")}
            text = ", ".join(f"{key} {'–' if value is None else value}" for key, value in numbers.items())
            checks.append(f"{name.replace('_', ' ')}: {text}")
    return "\n".join(checks) or None


if __name__ == "__main__":
    stage.run(main)
