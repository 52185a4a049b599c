"""Stage templates: the LLM sums up each class's most distinctive features in Template 2 (§3.1.3).

python -m stages.templates
"""

import asyncio
from collections import Counter, defaultdict

from graphs import template
from graphs.parse.template_2 import template_text
from graphs.state import TemplateContext, TemplateState
from ltgc.clients import budget, server
from ltgc.clients.call_metrics import call_metrics
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
    for existing in files.read_jsonl(EXISTING, ExistingDescription):
        if existing.description is not None:
            descriptions[existing.label].append(existing.description)
    for extended in files.read_jsonl(EXTENDED, ExtendedDescription):
        if (
            extended.kept and extended.features is not None
        ):  # more than the class's name (extend.source: class_name)
            descriptions[extended.label].append(extended.description)

    with Store(STORE / "templates", budget.load()) as store:
        if settings.templates.source == "class_name":
            summed_up = [(record(c, [], "asked_not_to"), Counter[str]()) for c in classes]
        else:
            summed_up = asyncio.run(summarize_all(settings, classes, descriptions, store))

    files.write_jsonl(TEMPLATES, [template for template, _ in summed_up])
    rejected = Counter(rejected_replies=sum(v for _, n in summed_up for k, v in n.items() if "failures/" in k))
    summary = call_metrics([*(counts for _, counts in summed_up), rejected], "rejected_replies")
    files.write_json(CALLS / "templates.json", summary)


async def summarize_all(
    settings: Params, classes: list[ClassRecord], descriptions: dict[int, list[str]], store: Store
) -> list[tuple[ClassTemplate, Counter[str]]]:
    with server.running(llm=settings.llm) as (llm,):
        async with Chat(llm, store) as chat:

            async def one(c: ClassRecord) -> tuple[ClassTemplate, Counter[str]]:
                start = TemplateState(
                    class_name=c.name, context=c.context, descriptions=descriptions[c.label], counts=Counter()
                )
                context = TemplateContext(chat.of(c.slug), settings.templates.tries)
                end = await template.graph.ainvoke(start, context=context)
                return record(c, end["features"], end["reason"]), end["counts"]

            summed_up = await run_all("templates", classes, one, store.tally)
        failed = {found.class_name: found.reason or "" for found, _ in summed_up if found.source == "class_name"}
        llm.check_failures(failed, len(classes), "class feature template, for which its name stands in")
    return summed_up


def record(c: ClassRecord, features: list[str], reason: str | None) -> ClassTemplate:
    return ClassTemplate(
        label=c.label,
        class_name=c.name,
        template=template_text(c.name, features),
        features=features,
        source="llm" if features else "class_name",
        reason=reason,
    )


if __name__ == "__main__":
    stage.run(main)
