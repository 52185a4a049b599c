"""Stage ask: a vision model names the class of test images from the list of all classes (§4.3, Table 3).

With ask.way: tags it says what it sees, and the LLM names the class of that text (graphs/classify.py).

python -m stages.ask
"""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import NamedTuple

from graphs import classify, prompts
from graphs.class_names import Names
from graphs.state import ClassifyContext, ClassifyState
from ltgc.clients import budget, server
from ltgc.clients.call_metrics import Calls, call_metrics
from ltgc.clients.chat import Chat
from ltgc.clients.store import Store
from ltgc.data import images
from ltgc.data.roots import image_file, image_root
from ltgc.evaluation.asking import ask_metrics, images_wanted, sample_images
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.asking import ANSWERS, ASK, Answer
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, SYNONYMS, ClassRecord, ImageRecord, Synonym
from ltgc.pipeline.artifacts.replies import CALLS, STORE
from ltgc.pipeline.concurrency import run_all
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.servers import ChatSettings
from ltgc.pipeline.terminal import console

KEPT = 300  # characters of a reply in answers/lmm.jsonl; the store has all of it


class Asked(NamedTuple):
    """What came of one image."""

    answer: Answer
    calls: Calls  # of the vision model
    llm_calls: Counter[str]
    down: str | None  # the section whose server, or whose image, is to blame that there is no answer


def main() -> None:
    settings = params.load("data.source", "data.root", "data.images", "servers", "llm", "vision", "ask")
    classes = files.read_csv(CLASSES, ClassRecord)
    test = [image for image in files.each_csv(MANIFEST, ImageRecord) if image.split == "test"]
    asked = sample_images(test, images_wanted(settings), settings.ask.seed)
    names = Names(classes, files.read_csv(SYNONYMS, Synonym))

    models = [settings.vision] if settings.ask.way == "image" else [settings.vision, settings.llm]
    with Store(STORE / "ask", models, budget.load()) as store:
        answered = asyncio.run(ask_all(settings, asked, classes, names, store)) if asked else []

    answers = [one.answer for one in answered]
    scores = ask_metrics(answers, classes)
    files.write_jsonl(ANSWERS, answers)
    files.write_json(ASK, scores.model_dump())
    summary = call_metrics(one.calls for one in answered)
    if settings.ask.way == "tags":
        summary["llm"] = call_metrics(Calls(one.llm_calls, Counter()) for one in answered)
    files.write_json(CALLS / "ask.json", summary)
    if asked:
        console.print(
            f"ask: {scores.all} % of {scores.images} test images named, {scores.refused} refusals and "
            f"{scores.no_class} answers without one class counted wrong"
        )


async def ask_all(
    settings: Params, asked: list[ImageRecord], classes: list[ClassRecord], names: Names, store: Store
) -> list[Asked]:
    root, words = image_root(settings.data), prompts.load("classify", "tags", "classify_tags")
    decoding = asyncio.Semaphore(images.DECODED_AT_ONCE)
    at_once = settings.vision.concurrency + images.DECODED_AT_ONCE  # each holds its image
    slugs = {c.label: c.slug for c in classes}
    sections: dict[str, ChatSettings] = {"vision": settings.vision}
    if settings.ask.way == "tags":
        sections["llm"] = settings.llm
    with server.running(**sections) as servers:
        async with AsyncExitStack() as open_chats:
            chats = [await open_chats.enter_async_context(Chat(each, store)) for each in servers]
            class_list = prompts.class_list([c.name for c in classes])
            context = ClassifyContext(chats[0], words, class_list, names, *chats[1:])

            async def one(image: ImageRecord) -> Asked:
                try:
                    async with decoding:
                        url = await asyncio.to_thread(images.data_url, image_file(root, image))
                except (images.BadImage, OSError):
                    bad = Calls(Counter(), Counter(["bad_image"]))
                    return Asked(record(image, reason="bad_image"), bad, Counter(), "vision")
                start = ClassifyState(slug=slugs[image.label], image_url=url)
                end = await classify.graph.ainvoke(start, context=context)
                reply = end["reply"]
                answer = record(image, reply.text, end["label"], end["reason"])
                failed = reply.failure and reply.failure != "refused"
                last = "llm" if "tags" in end else "vision"
                return Asked(answer, Calls.of(end), end["llm_counts"], last if failed else None)

            answered = await run_all("ask", asked, one, store.tally, at_once)
        # A refusal is a wrong answer; a server that is down has not answered.
        for each in servers:
            failed = {a.answer.path: a.answer.reason or "" for a in answered if a.down == each.name}
            each.check_failures(failed, len(asked), "answer")
    return answered


def record(
    image: ImageRecord, reply: str = "", prediction: int | None = None, reason: str | None = None
) -> Answer:
    return Answer(
        path=image.path, label=image.label, reply=reply[:KEPT].strip(), prediction=prediction, reason=reason
    )


if __name__ == "__main__":
    stage.run(main)
