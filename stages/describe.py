"""Stage describe: a vision model describes every training image of a tail class in Template 1 (§3.1.1).

python -m stages.describe
"""

import asyncio
from collections import Counter
from typing import BinaryIO

from graphs import describe, prompts, review
from graphs.state import DescribeContext, DescribeState
from ltgc.clients import budget, server
from ltgc.clients.call_metrics import Calls, call_metrics
from ltgc.clients.chat import Chat
from ltgc.clients.store import Store
from ltgc.data import images
from ltgc.data.roots import image_file, image_root
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.descriptions import EXISTING, ExistingDescription
from ltgc.pipeline.artifacts.replies import CALLS, STORE
from ltgc.pipeline.concurrency import run_each
from ltgc.pipeline.params import Params


def main() -> None:
    settings = params.load(
        "data.source", "data.root", "data.images", "servers", "vision", "describe", "extend.target"
    )
    classes = files.read_csv(CLASSES, ClassRecord)
    few = {c.label: c for c in classes if c.train < settings.extend.target}  # the tail classes
    manifest = files.each_csv(MANIFEST, ImageRecord)
    tail = [image for image in manifest if image.split == "train" and image.label in few]
    tail.sort(key=lambda image: (image.label, image.path))

    verdicts = review.load()
    calls = Calls(Counter(), Counter())
    with (
        files.replaced_file(EXISTING) as output,
        Store(STORE / "describe", [settings.vision], budget.load()) as store,
    ):
        if tail:
            calls = asyncio.run(describe_all(settings, tail, few, verdicts, store, output))
    verdicts.say_unused("existing")
    files.write_json(CALLS / "describe.json", call_metrics([calls]))


async def describe_all(
    settings: Params,
    tail: list[ImageRecord],
    few: dict[int, ClassRecord],
    verdicts: review.Review,
    store: Store,
    output: BinaryIO,
) -> Calls:
    """Describe `tail` and write a record of each, in its order; what was asked for that."""
    root, words = image_root(settings.data), prompts.load("describe", "again")
    total, failed = Calls(Counter(), Counter()), dict[str, str]()
    decoding = asyncio.Semaphore(images.DECODED_AT_ONCE)
    at_once = settings.vision.concurrency + images.DECODED_AT_ONCE  # each holds its image
    with server.running(vision=settings.vision) as (vision,):
        async with Chat(vision, store) as chat:
            context = DescribeContext(chat, words, settings.describe.tries)

            async def one(image: ImageRecord) -> tuple[ExistingDescription, Calls]:
                if written := verdicts.written(image):
                    return written, Calls(Counter(), Counter())
                try:
                    async with decoding:
                        url = await asyncio.to_thread(images.data_url, image_file(root, image))
                except (images.BadImage, OSError):
                    return bad_image(image), Calls(Counter(), Counter(["bad_image"]))
                start = DescribeState(class_record=few[image.label], image=image, image_url=url)
                end = await describe.graph.ainvoke(start, context=context)
                return end["record"], Calls.of(end)

            def take(described: tuple[ExistingDescription, Calls]) -> None:
                record, calls = described
                total.add(calls)
                if not record.kept:
                    failed[record.image] = record.reason or ""
                output.write(files.json_line(verdicts.existing(record)))

            await run_each("describe", tail, len(tail), one, take, store.tally, at_once)
        vision.check_failures(failed, len(tail), "description")
    return total


def bad_image(image: ImageRecord) -> ExistingDescription:
    return ExistingDescription(
        label=image.label,
        class_name=image.class_name,
        image=image.path,
        description=None,
        features=None,
        scene=None,
        kept=False,
        reason="bad_image",
        replies=0,
    )


if __name__ == "__main__":
    stage.run(main)
