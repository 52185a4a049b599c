"""Stage generate: draw each description; CLIP detects what does not fit, the LLM refines it (§3.1.3, Fig. 5).

python -m stages.generate
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from graphs import refine
from graphs.state import RefineContext, RefineState, ScoredDrawing
from ltgc.clients import budget, server
from ltgc.clients.call_metrics import call_metrics
from ltgc.clients.chat import Chat
from ltgc.clients.diffusers_painter import DiffusersPainter
from ltgc.clients.openai_painter import OpenAIPainter
from ltgc.clients.store import Store
from ltgc.clip.class_texts import class_texts
from ltgc.clip.detection import Filter, real_images
from ltgc.clip.weights import load_clip
from ltgc.data import shards
from ltgc.data.roots import image_root
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.descriptions import EXTENDED, TEMPLATES, ClassTemplate, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import ACCEPTED, ATTEMPTS, REAL_SCORES, REJECTED, Attempt, RealScore
from ltgc.pipeline.artifacts.replies import CALLS, STORE
from ltgc.pipeline.concurrency import run_all
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.servers import ServerSettings
from ltgc.pipeline.terminal import console


def main() -> None:
    settings = params.load("data.source", "data.root", "data.images", "servers", "llm", "t2i", "clip", "filter")
    classes = files.read_csv(CLASSES, ClassRecord)
    extended = files.read_jsonl(EXTENDED, ExtendedDescription)
    descriptions = [description for description in extended if description.kept]

    # Images are written beside their places as they come, packed into shards, and moved there at the end.
    parts = {place: place.with_name(f".{place.name}.part") for place in (ACCEPTED, REJECTED)}
    for part in parts.values():
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    try:
        with Store(STORE / "generate", budget.load()) as store:
            drawn, real = (
                asyncio.run(generate_all(settings, classes, descriptions, parts, store))
                if descriptions
                else ([], [])
            )
        attempts = [attempt for chain, _ in drawn for attempt in chain]
        attempts.sort(key=lambda attempt: (attempt.label, attempt.index, attempt.round))
        for place, part in parts.items():
            pack([a for a in attempts if a.image and place in Path(a.image).parents], part)
            shutil.rmtree(place, ignore_errors=True)
            part.rename(place)
    finally:
        for part in parts.values():
            shutil.rmtree(part, ignore_errors=True)

    files.write_jsonl(ATTEMPTS, attempts)
    files.write_records_csv(REAL_SCORES, real, RealScore)
    summary = call_metrics((counts for _, counts in drawn), "drawings", "texts_cut")
    files.write_json(CALLS / "generate.json", summary)


async def generate_all(
    settings: Params,
    classes: list[ClassRecord],
    descriptions: list[ExtendedDescription],
    parts: dict[Path, Path],
    store: Store,
) -> tuple[list[tuple[list[Attempt], Counter[str]]], list[RealScore]]:
    slugs = {c.label: c.slug for c in classes}
    servers: dict[str, ServerSettings] = {"llm": settings.llm}
    if settings.t2i.backend == "openai":
        servers["t2i"] = settings.t2i
    with server.running(**servers) as (llm, *t2i):
        labels = {description.label for description in descriptions}
        scorer, real = await make_filter(settings, classes, labels, store)
        draws = OpenAIPainter(t2i[0], store) if t2i else DiffusersPainter(settings.t2i, store)
        async with Chat(llm, store) as chat, draws as painter:
            contexts = {
                label: RefineContext(chat.of(slugs[label]), painter, scorer, settings.filter.max_refinements)
                for label in labels
            }

            async def one(description: ExtendedDescription) -> tuple[list[Attempt], Counter[str]]:
                slug = slugs[description.label]
                start = RefineState(
                    label=description.label,
                    class_name=description.class_name,
                    slug=slug,
                    index=description.index,
                    prompt=description.description,
                    counts=Counter(),
                )
                end = await refine.graph.ainvoke(start, context=contexts[description.label])
                return write(description, slug, end["shots"], parts), end["counts"]

            drawn = await run_all("generate", descriptions, one, store.tally)
        if cut := sum(counts["prompts_cut"] for _, counts in drawn):
            console.print(f"{cut:,} prompts were cut: {settings.t2i.model} reads no such long ones")
        failed = {c[-1].id: c[-1].reason or "" for c, _ in drawn if c[-1].verdict == "failed"}
        unrefined = {name: reason for name, reason in failed.items() if reason.startswith("refinement: ")}
        painter.check_failures({n: r for n, r in failed.items() if n not in unrefined}, len(descriptions), "image")
        llm.check_failures(unrefined, len(descriptions), "refinement")
        drawn.append(([], Counter(texts_cut=scorer.texts_cut)))
    return drawn, real


async def make_filter(
    settings: Params, classes: list[ClassRecord], labels: set[int], store: Store
) -> tuple[Filter, list[RealScore]]:
    """CLIP with the texts of all classes; what real images of the classes that get generated ones score."""
    texts = class_texts(settings.filter.text, classes, files.read_jsonl(TEMPLATES, ClassTemplate))
    scorer = Filter(settings.filter, load_clip(settings.clip), texts)
    images = real_images(files.read_csv(MANIFEST, ImageRecord), labels)
    root = image_root(settings.data)

    async def one(image: ImageRecord) -> float:
        return await scorer.measure(image.label, root / image.path)

    scores = await run_all("score real images", images, one, store.tally)
    real: dict[int, list[float]] = {label: [] for label in labels}
    for image, score in zip(images, scores, strict=True):
        real[image.label].append(score)
    scorer.calibrate(real)
    return scorer, [
        RealScore(
            label=image.label,
            class_name=image.class_name,
            image=image.path,
            score=score,
            threshold=scorer.threshold(image.label),
        )
        for image, score in zip(images, scores, strict=True)
    ]


def write(
    description: ExtendedDescription, slug: str, shots: list[ScoredDrawing], parts: dict[Path, Path]
) -> list[Attempt]:
    """The attempts of one description; their images, accepted or rejected, as files of their own to be packed."""
    attempts: list[Attempt] = []
    for shot in shots:
        name = f"{description.index:04d}-{shot.round}"
        place = ACCEPTED if shot.verdict == "accepted" else REJECTED
        if shot.image is not None:
            path = parts[place] / slug / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(shot.image)
        attempts.append(
            Attempt(
                id=f"{slug}/{name}",
                label=description.label,
                class_name=description.class_name,
                index=description.index,
                round=shot.round,
                prompt=shot.prompt,
                seed=shot.seed,
                image=(place / f"{slug}.tar" / f"{name}.png").as_posix() if shot.image is not None else None,
                score=shot.score,
                threshold=shot.threshold,
                verdict=shot.verdict,
                refines=attempts[-1].id if attempts else None,
                reason=shot.reason,
            )
        )
    return attempts


def pack(attempts: list[Attempt], part: Path) -> None:
    """Make one shard of each class's images below `part`, each with its attempt as JSON beside it."""
    for slug, of_class in groupby(attempts, lambda attempt: attempt.id.partition("/")[0]):
        shards.write(part / f"{slug}.tar", members(part / slug, of_class))
        shutil.rmtree(part / slug)


def members(folder: Path, attempts: Iterable[Attempt]) -> Iterator[tuple[str, bytes]]:
    for attempt in attempts:
        image = folder / Path(attempt.image or "").name
        yield image.name, image.read_bytes()
        yield image.with_suffix(".json").name, attempt.model_dump_json().encode()


if __name__ == "__main__":
    stage.run(main)
