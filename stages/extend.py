"""Stage extend: an LLM lists features and scenes that tail classes lack, with self-reflection (§3.1.2).

python -m stages.extend
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from graphs import feedback, prompts, reflect, review
from graphs.parse.repeats import CHARACTERS_A_TOKEN
from graphs.parse.template_2 import template_text
from graphs.state import ReflectContext, ReflectState
from ltgc.clients import budget, server
from ltgc.clients.call_metrics import Calls, call_metrics
from ltgc.clients.chat import Chat
from ltgc.clients.store import Store
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.artifacts.descriptions import EXISTING, EXTENDED, ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.feedback import Feedback
from ltgc.pipeline.artifacts.replies import CALLS, STORE
from ltgc.pipeline.concurrency import run_each
from ltgc.pipeline.params import Params


def main() -> None:
    settings = params.load("servers", "llm", "extend")
    classes = files.read_csv(CLASSES, ClassRecord)
    existing: dict[int, list[str]] = defaultdict(list)
    for record in files.each_jsonl(EXISTING, ExistingDescription):
        if record.kept and record.description is not None:
            existing[record.label].append(record.description)
    tail = [c for c in classes if c.train < settings.extend.target]
    rounds = feedback.load({c.name for c in tail})

    verdicts = review.load()
    calls = Calls(Counter(), Counter())
    # Class by class, as they come: as objects, the 600,000 descriptions of iNaturalist 2018 take a gigabyte.
    with (
        files.replaced_file(EXTENDED) as output,
        Store(STORE / "extend", [settings.llm], budget.load()) as store,
    ):

        def write(records: list[ExtendedDescription]) -> None:
            output.writelines(map(files.json_line, verdicts.extended(records)))

        if settings.extend.source == "class_name":
            for c in tail:
                write(bare_names(c, settings.extend.target, rounds[c.name]))
        elif tail:
            calls = asyncio.run(extend_all(settings, tail, existing, rounds, store, write))
    verdicts.say_unused("extended")
    summary = call_metrics(
        [calls],
        "rounds",
        "stalled_classes",
        "invented_entries",
        "repetition_checks",
        "unusable_repetition_checks",
    )
    files.write_json(CALLS / "extend.json", summary)


async def extend_all(
    settings: Params,
    tail: list[ClassRecord],
    existing: dict[int, list[str]],
    rounds: dict[str, list[Feedback]],
    store: Store,
    write: Callable[[list[ExtendedDescription]], None],
) -> Calls:
    """Extend the lists of `tail`; what was asked for that. write: is given the records of each class, in order."""
    bounds, words = settings.extend, prompts.load("extend", "repetition_check")
    calls, failed = Calls(Counter(), Counter()), dict[str, str]()
    with server.running(llm=settings.llm) as (llm,):
        async with Chat(llm, store) as chat:
            context = ReflectContext(
                chat=chat,
                prompts=words,
                target=bounds.target,
                max_rounds=bounds.max_rounds,
                max_stalled=bounds.max_stalled,
                repetition_check=bounds.repetition_check,
                check_characters=CHARACTERS_A_TOKEN * settings.llm.max_tokens,
            )

            async def one(c: ClassRecord) -> dict[str, Any]:
                start = ReflectState(class_record=c, existing=existing[c.label])
                end = await reflect.graph.ainvoke(start, context=context)
                for asked in rounds[c.name]:
                    end = await reflect.graph.ainvoke(reflect.next_round(end, asked), context=context)
                return end

            def take(end: dict[str, Any]) -> None:
                c = end["class_record"]
                calls.add(Calls.of(end))
                calls.counts["stalled_classes"] += end["stalled"] >= bounds.max_stalled
                if not any(entry.kept for entry in end["extended"]):
                    failed[c.name] = why_nothing(end)
                write(sorted(end["extended"], key=lambda record: record.index))

            await run_each("extend", tail, len(tail), one, take, store.tally)
        llm.check_failures(failed, len(tail), "description")
    return calls


def why_nothing(end: dict[str, Any]) -> str:
    """The most frequent reason why nothing that the LLM wrote could be used."""
    reasons = Counter(entry.reason for entry in end["extended"]) + end["failures"]
    return reasons.most_common(1)[0][0] if reasons else "empty"


def bare_names(c: ClassRecord, target: int, rounds: list[Feedback]) -> list[ExtendedDescription]:
    """The class's name alone, as often as images are missing: the simple prompt of Fig. 6."""
    missing = [(0, target - c.train), *((asked.round, asked.descriptions) for asked in rounds)]
    return [
        ExtendedDescription(
            label=c.label,
            class_name=c.name,
            index=index,
            feedback=number,
            round=1,
            description=template_text(c.name, []),
            features=None,
            scene=None,
            kept=True,
            reason=None,
        )
        for index, number in enumerate(number for number, count in missing for _ in range(count))
    ]


if __name__ == "__main__":
    stage.run(main)
