"""Stage templates: the LLM sums up each class's most distinctive features in Template 2 (§3.1.3).

python -m stages.templates
"""

import asyncio
from collections import Counter, defaultdict

from graphs import parse, template
from graphs.state import TemplateContext, TemplateState
from ltgc import artifacts, budget, params, progress, server, stage
from ltgc.artifacts import ClassRecord, ClassTemplate, ExistingDescription, ExtendedDescription
from ltgc.llm import Chat
from ltgc.params import Params
from ltgc.store import Store


def main() -> None:
    settings = params.load("llm", "templates")
    classes = artifacts.read_csv(artifacts.CLASSES, ClassRecord)
    descriptions: dict[int, list[str]] = defaultdict(list)
    for existing in artifacts.read_jsonl(artifacts.EXISTING, ExistingDescription):
        if existing.description is not None:
            descriptions[existing.label].append(existing.description)
    for extended in artifacts.read_jsonl(artifacts.EXTENDED, ExtendedDescription):
        if (
            extended.kept and extended.features is not None
        ):  # more than the class's name (extend.source: class_name)
            descriptions[extended.label].append(extended.description)

    with Store(artifacts.STORE / "templates", budget.load()) as store:
        if settings.templates.source == "class_name":
            summed_up = [(record(c, [], "asked_not_to"), Counter[str]()) for c in classes]
        else:
            summed_up = asyncio.run(summarize_all(settings, classes, descriptions, store))

    artifacts.write_jsonl(artifacts.TEMPLATES, [template for template, _ in summed_up])
    rejected = Counter(rejected_replies=sum(v for _, n in summed_up for k, v in n.items() if "failures/" in k))
    summary = progress.metrics([*(counts for _, counts in summed_up), rejected], "rejected_replies")
    artifacts.write_json(artifacts.CALLS / "templates.json", summary)


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

            summed_up = await progress.run_all("templates", classes, one, store.tally)
        failed = {found.class_name: found.reason or "" for found, _ in summed_up if found.source == "class_name"}
        llm.check_failures(failed, len(classes), "class feature template, for which its name stands in")
    return summed_up


def record(c: ClassRecord, features: list[str], reason: str | None) -> ClassTemplate:
    return ClassTemplate(
        label=c.label,
        class_name=c.name,
        template=parse.template(c.name, features),
        features=features,
        source="llm" if features else "class_name",
        reason=reason,
    )


if __name__ == "__main__":
    stage.run(main)
