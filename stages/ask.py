"""Stage ask: a vision model names the class of test images from the list of all classes (§4.3, Table 3).

python -m stages.ask
"""

import asyncio
from collections import Counter

from graphs import classify, prompts
from graphs.state import ClassifyContext, ClassifyState
from ltgc import artifacts, ask, budget, data, images, params, progress, server, stage
from ltgc.artifacts import Answer, ClassRecord, ImageRecord
from ltgc.llm import Chat
from ltgc.params import Params
from ltgc.store import Store

KEPT = 300  # characters of a reply in predictions/lmm.jsonl; the store has all of it


def main() -> None:
    settings = params.load("data.source", "data.root", "data.images", "vision", "ask")
    classes = artifacts.read_csv(artifacts.CLASSES, ClassRecord)
    test = [image for image in artifacts.read_csv(artifacts.MANIFEST, ImageRecord) if image.split == "test"]
    asked = ask.sample(test, ask.wanted(settings), settings.ask.seed)
    names = ask.Names(classes, ask.read_synonyms(settings.data.root))

    with Store(artifacts.STORE / "ask", budget.load()) as store:
        answered = asyncio.run(ask_all(settings, asked, classes, names, store)) if asked else []

    answers = [answer for answer, _ in answered]
    scores = ask.metrics(answers, classes)
    artifacts.write_jsonl(artifacts.ANSWERS, answers)
    artifacts.write_json(artifacts.ASK, scores.model_dump())
    artifacts.write_json(artifacts.CALLS / "ask.json", progress.metrics(counts for _, counts in answered))
    if asked:
        stage.console.print(
            f"ask: {scores.all} % of {scores.images} test images named, {scores.refused} refusals and "
            f"{scores.no_class} answers without one class counted wrong"
        )


async def ask_all(
    settings: Params, asked: list[ImageRecord], classes: list[ClassRecord], names: ask.Names, store: Store
) -> list[tuple[Answer, Counter[str]]]:
    root = data.image_root(settings.data)
    slugs = {c.label: c.slug for c in classes}
    class_list = prompts.class_list([c.name for c in classes])
    with server.running(vision=settings.vision) as (vision,):
        async with Chat(vision, store) as chat:
            contexts = {n: ClassifyContext(chat.of(slug), class_list, names) for n, slug in slugs.items()}

            async def one(image: ImageRecord) -> tuple[Answer, Counter[str], bool]:
                try:
                    url = await asyncio.to_thread(images.data_url, root / image.path)
                except (images.BadImage, OSError):
                    return record(image, reason="bad_image"), Counter({"failures/bad_image": 1}), True
                start = ClassifyState(image_url=url, counts=Counter())
                end = await classify.graph.ainvoke(start, context=contexts[image.label])
                reply = end["reply"]
                answer = record(image, reply.text, end["label"], end["reason"])
                return answer, end["counts"], bool(reply.failure and reply.failure != "refused")

            answered = await progress.run_all("ask", asked, one, store.tally)
        # A refusal is a wrong answer; a server that is down has not answered.
        failed = {answer.path: answer.reason or "" for answer, _, down in answered if down}
        vision.check_failures(failed, len(asked), "answer")
    return [(answer, counts) for answer, counts, _ in answered]


def record(
    image: ImageRecord, reply: str = "", prediction: int | None = None, reason: str | None = None
) -> Answer:
    return Answer(
        path=image.path, label=image.label, reply=reply[:KEPT].strip(), prediction=prediction, reason=reason
    )


if __name__ == "__main__":
    stage.run(main)
