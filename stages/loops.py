"""Stage loops: what the self-reflection and refinement loops did, what it cost, and how right the checks were.

python -m stages.loops
"""

from importlib import import_module
from typing import Any

from rich.markup import escape
from rich.table import Table

from ltgc import artifacts, budget, loops, params, stage
from ltgc.artifacts import (
    Attempt,
    ClassRecord,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
    RealScore,
)

# Sources that know the truth about what is drawn: the module that tells it (ltgc.loops.Truth).
TRUTH = {"wildflowers": "embedded.truth"}
SEEING = ("describe", "ask")  # stages that ask the vision model
LOOPS = ("describe", "extend", "templates", "generate")


def main() -> None:
    section = params.load(
        "data.source", "extend.target", "llm.model", "vision.model", "t2i.model", "t2i.backend", "prices"
    )
    classes = artifacts.read_csv(artifacts.CLASSES, ClassRecord)
    existing = artifacts.read_jsonl(artifacts.EXISTING, ExistingDescription)
    extended = artifacts.read_jsonl(artifacts.EXTENDED, ExtendedDescription)
    templates = artifacts.read_jsonl(artifacts.TEMPLATES, ClassTemplate)
    attempts = artifacts.read_jsonl(artifacts.ATTEMPTS, Attempt)
    real = artifacts.read_csv(artifacts.REAL_SCORES, RealScore)

    summary: dict[str, Any] = {
        "describe": loops.describe(existing),
        "extend": loops.extend(extended, classes, section.extend.target),
        "templates": loops.templates(templates),
        "generate": loops.generate(attempts, real),
    }
    for name in LOOPS:
        # Calls, tokens and what else the stage itself counted
        summary[name] = artifacts.read_json(artifacts.CALLS / f"{name}.json") | summary[name]
    if section.data.source in TRUTH:
        truth = import_module(TRUTH[section.data.source])
        summary["filter"] = loops.filter_quality(attempts, truth)
        summary["repetition_check"] = loops.repetition_quality(extended, existing, truth)

    asked = {name: summary[name] for name in LOOPS} | {"ask": artifacts.read_json(artifacts.CALLS / "ask.json")}
    # What the artifacts needed, whether it was paid for in this run or lay in the stores.
    costs = {
        name: budget.priced(
            section.prices,
            chat_model=section.vision.model if name in SEEING else section.llm.model,
            t2i_model=section.t2i.billed_as,
            calls=calls["calls"],
            prompt_tokens=calls["prompt_tokens"],
            completion_tokens=calls["completion_tokens"],
            images=calls.get("drawn", 0),
        )
        for name, calls in asked.items()
    }
    artifacts.write_json(artifacts.COST, budget.summary(costs))
    artifacts.write_csv(artifacts.COST_PLOT, budget.plot_rows(costs), budget.PLOT_FIELDS)
    artifacts.write_json(artifacts.LOOPS, summary)
    artifacts.write_csv(artifacts.SCORES_PLOT, loops.score_rows(attempts, real), loops.SCORE_FIELDS)
    stage.console.print(table(summary))


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
        tokens = loop.get("prompt_tokens", 0) + loop.get("completion_tokens", 0)
        numbers = (loop[asked], loop[kept], reasons, loop.get("calls", 0), tokens)
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
