"""Stage describe: a vision model describes every training image of a tail class in Template 1 (§3.1.1).

python -m stages.describe
"""

import asyncio
from collections import Counter

from graphs import describe
from graphs.state import DescribeContext, DescribeState
from ltgc.clients import budget, server
from ltgc.clients.call_metrics import call_metrics
from ltgc.clients.chat import Chat
from ltgc.clients.store import Store
from ltgc.data import images
from ltgc.data.roots import image_root
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.descriptions import EXISTING, ExistingDescription
from ltgc.pipeline.artifacts.replies import CALLS, STORE
from ltgc.pipeline.concurrency import run_all
from ltgc.pipeline.params import Params


def main() -> None:
    settings = params.load(
        "data.source", "data.root", "data.images", "servers", "vision", "describe", "extend.target"
    )
    classes = files.read_csv(CLASSES, ClassRecord)
    manifest = files.read_csv(MANIFEST, ImageRecord)
    few = {c.label: c for c in classes if c.train < settings.extend.target}  # the tail classes
    tail = [image for image in manifest if image.split == "train" and image.label in few]

    with Store(STORE / "describe", budget.load()) as store:
        described = asyncio.run(describe_all(settings, tail, few, store)) if tail else []

    records = sorted((record for record, _ in described), key=lambda record: (record.label, record.image))
    files.write_jsonl(EXISTING, records)
    files.write_json(CALLS / "describe.json", call_metrics(counts for _, counts in described))


async def describe_all(
    settings: Params, tail: list[ImageRecord], few: dict[int, ClassRecord], store: Store
) -> list[tuple[ExistingDescription, Counter[str]]]:
    root = image_root(settings.data)
    with server.running(vision=settings.vision) as (vision,):
        async with Chat(vision, store) as chat:
            contexts = {n: DescribeContext(chat.of(c.slug), settings.describe.tries) for n, c in few.items()}

            async def one(image: ImageRecord) -> tuple[ExistingDescription, Counter[str]]:
                try:
                    url = await asyncio.to_thread(images.data_url, root / image.path)
                except (images.BadImage, OSError):
                    return record(image, reason="bad_image"), Counter({"failures/bad_image": 1})
                start = DescribeState(
                    class_name=image.class_name,
                    context=few[image.label].context,
                    image_url=url,
                    counts=Counter(),
                )
                end = await describe.graph.ainvoke(start, context=contexts[image.label])
                found, replies = end["description"], end["replies"]
                if found is None:
                    return record(image, reason=end["reason"], replies=replies), end["counts"]
                described = record(image, found.text, found.features, found.scene, replies=replies)
                return described, end["counts"]

            described = await run_all("describe", tail, one, store.tally)
        failed = {record.image: record.reason or "" for record, _ in described if not record.kept}
        vision.check_failures(failed, len(tail), "description")
    return described


def record(
    image: ImageRecord,
    description: str | None = None,
    features: str | None = None,
    scene: str | None = None,
    reason: str | None = None,
    replies: int = 0,
) -> ExistingDescription:
    return ExistingDescription(
        label=image.label,
        class_name=image.class_name,
        image=image.path,
        description=description,
        features=features,
        scene=scene,
        kept=reason is None,
        reason=reason,
        replies=replies,
    )


if __name__ == "__main__":
    stage.run(main)
