"""Stage ask: a vision model names the class of test images from the list of all classes (§4.3, Table 3).

python -m stages.ask
"""

import asyncio
from collections import Counter

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
from ltgc.pipeline.terminal import console

KEPT = 300  # characters of a reply in answers/lmm.jsonl; the store has all of it


def main() -> None:
    settings = params.load("data.source", "data.root", "data.images", "servers", "vision", "ask")
    classes = files.read_csv(CLASSES, ClassRecord)
    test = [image for image in files.each_csv(MANIFEST, ImageRecord) if image.split == "test"]
    asked = sample_images(test, images_wanted(settings), settings.ask.seed)
    names = Names(classes, files.read_csv(SYNONYMS, Synonym))

    with Store(STORE / "ask", [settings.vision], budget.load()) as store:
        answered = asyncio.run(ask_all(settings, asked, classes, names, store)) if asked else []

    answers = [answer for answer, _ in answered]
    scores = ask_metrics(answers, classes)
    files.write_jsonl(ANSWERS, answers)
    files.write_json(ASK, scores.model_dump())
    files.write_json(CALLS / "ask.json", call_metrics(calls for _, calls in answered))
    if asked:
        console.print(
            f"ask: {scores.all} % of {scores.images} test images named, {scores.refused} refusals and "
            f"{scores.no_class} answers without one class counted wrong"
        )


async def ask_all(
    settings: Params, asked: list[ImageRecord], classes: list[ClassRecord], names: Names, store: Store
) -> list[tuple[Answer, Calls]]:
    root, words = image_root(settings.data), prompts.load("classify")
    decoding = asyncio.Semaphore(images.DECODED_AT_ONCE)
    at_once = settings.vision.concurrency + images.DECODED_AT_ONCE  # each holds its image
    slugs = {c.label: c.slug for c in classes}
    with server.running(vision=settings.vision) as (vision,):
        async with Chat(vision, store) as chat:
            context = ClassifyContext(chat, words, prompts.class_list([c.name for c in classes]), names)

            async def one(image: ImageRecord) -> tuple[Answer, Calls, bool]:
                """The answer, what it took, and whether the server or the image is to blame that there is none."""
                try:
                    async with decoding:
                        url = await asyncio.to_thread(images.data_url, image_file(root, image))
                except (images.BadImage, OSError):
                    return record(image, reason="bad_image"), Calls(Counter(), Counter(["bad_image"])), True
                start = ClassifyState(slug=slugs[image.label], image_url=url)
                end = await classify.graph.ainvoke(start, context=context)
                reply = end["reply"]
                answer = record(image, reply.text, end["label"], end["reason"])
                return answer, Calls.of(end), bool(reply.failure and reply.failure != "refused")

            answered = await run_all("ask", asked, one, store.tally, at_once)
        # A refusal is a wrong answer; a server that is down has not answered.
        failed = {answer.path: answer.reason or "" for answer, _, down in answered if down}
        vision.check_failures(failed, len(asked), "answer")
    return [(answer, calls) for answer, calls, _ in answered]


def record(
    image: ImageRecord, reply: str = "", prediction: int | None = None, reason: str | None = None
) -> Answer:
    return Answer(
        path=image.path, label=image.label, reply=reply[:KEPT].strip(), prediction=prediction, reason=reason
    )


if __name__ == "__main__":
    stage.run(main)
