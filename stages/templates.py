"""Stage templates: the LLM sums up each class's most distinctive features in Template 2 (§3.1.3).

python -m stages.templates
"""

import asyncio
from collections import Counter, defaultdict

from graphs import prompts, review, template
from graphs.parse.template_2 import class_template
from graphs.state import TemplateContext, TemplateState
from ltgc.clients import budget, server
from ltgc.clients.call_metrics import Calls, call_metrics
from ltgc.clients.chat import Chat
from ltgc.clients.store import Store
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
from ltgc.pipeline.artifacts.replies import CALLS, STORE
from ltgc.pipeline.concurrency import run_all
from ltgc.pipeline.params import Params


def main() -> None:
    settings = params.load("servers", "llm", "templates")
    classes = files.read_csv(CLASSES, ClassRecord)
    descriptions: dict[int, list[str]] = defaultdict(list)
    for existing in files.each_jsonl(EXISTING, ExistingDescription):
        if existing.kept and existing.description is not None:
            descriptions[existing.label].append(existing.description)
    for extended in files.each_jsonl(EXTENDED, ExtendedDescription):
        # More than the class's name, which is all that extend.source: class_name gives. And nothing of feedback:
        # with it the question would be another one, and paid for again.
        if extended.kept and extended.features is not None and not extended.feedback:
            descriptions[extended.label].append(extended.description)

    verdicts = review.load()
    with Store(STORE / "templates", [settings.llm], budget.load()) as store:
        if settings.templates.source == "class_name":
            names = [verdicts.template(c) or class_template(c, [], "asked_not_to") for c in classes]
            summed_up = [(name, Calls(Counter(), Counter())) for name in names]
        else:
            summed_up = asyncio.run(summarize_all(settings, classes, descriptions, verdicts, store))

    files.write_jsonl(TEMPLATES, [template for template, _ in summed_up])
    verdicts.say_unused("template")
    calls = [calls for _, calls in summed_up]
    rejected = Counter(rejected_replies=sum(one.failures.total() for one in calls))
    summary = call_metrics([*calls, Calls(rejected, Counter())], "rejected_replies")
    files.write_json(CALLS / "templates.json", summary)


async def summarize_all(
    settings: Params,
    classes: list[ClassRecord],
    descriptions: dict[int, list[str]],
    verdicts: review.Review,
    store: Store,
) -> list[tuple[ClassTemplate, Calls]]:
    words = prompts.load("summarize", "again")
    with server.running(llm=settings.llm) as (llm,):
        async with Chat(llm, store) as chat:
            context = TemplateContext(chat, words, settings.templates.tries)

            async def one(c: ClassRecord) -> tuple[ClassTemplate, Calls]:
                if written := verdicts.template(c):
                    return written, Calls(Counter(), Counter())
                start = TemplateState(class_record=c, descriptions=descriptions[c.label])
                end = await template.graph.ainvoke(start, context=context)
                return end["template"], Calls.of(end)

            summed_up = await run_all("templates", classes, one, store.tally)
        failed = {
            found.class_name: found.reason or ""
            for found, _ in summed_up
            if found.source == "class_name" and found.reason != "rejected_in_review"
        }
        llm.check_failures(failed, len(classes), "class feature template, for which its name stands in")
    return summed_up


if __name__ == "__main__":
    stage.run(main)
