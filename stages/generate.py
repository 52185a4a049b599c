"""Stage generate: draw each description; what does not fit is detected, and the LLM refines it (§3.1.3, Fig. 5).

python -m stages.generate
"""

import asyncio
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from graphs import prompts, refine, review
from graphs.features import FAILED, FeatureQuestions
from graphs.state import RefineContext, RefineState, Scorer
from ltgc.clients import budget, server
from ltgc.clients.call_metrics import Calls, call_metrics
from ltgc.clients.chat import Chat
from ltgc.clients.diffusers_painter import DiffusersPainter
from ltgc.clients.openai_painter import OpenAIPainter
from ltgc.clients.start import Start, start_of
from ltgc.clients.store import Store
from ltgc.clip.class_texts import class_texts
from ltgc.clip.contrast import Contrast, Descriptions, real_subjects
from ltgc.clip.detection import Absolute, Filter, real_images
from ltgc.clip.detection import Scorer as Measurer
from ltgc.clip.encoder import Clip
from ltgc.clip.subject import Subject
from ltgc.clip.weights import load_clip
from ltgc.data import shards
from ltgc.data.images import ImageFile
from ltgc.data.roots import image_file, image_root
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import ACCEPTED, ATTEMPTS, REAL_SCORES, REJECTED, Attempt, RealScore
from ltgc.pipeline.artifacts.replies import CALLS, STORE
from ltgc.pipeline.by_class import ByClass
from ltgc.pipeline.concurrency import run_all, run_each
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.clip import FilterSettings
from ltgc.pipeline.settings.servers import ServerSettings
from ltgc.pipeline.terminal import console


def main() -> None:
    settings = params.load(
        "data.source", "data.root", "data.images", "servers", "llm", "vision", "t2i", "clip", "filter"
    )
    descriptions = ByClass(EXTENDED, ExtendedDescription)
    kept = Counter(d.label for d in descriptions if d.kept)

    # Images are written beside their folders as they come, packed into shards, and moved there at the end.
    # Attempts are written as they come, too: as objects, those of iNaturalist 2018 would take a gigabyte.
    with (
        files.replaced_file(ATTEMPTS) as attempts,
        files.replaced_folder(ACCEPTED) as accepted,
        files.replaced_folder(REJECTED) as rejected,
    ):
        folders = {ACCEPTED: accepted, REJECTED: rejected}
        calls: list[Calls] = []
        real: list[RealScore] = []
        asked = [settings.llm, settings.t2i, *([settings.vision] if settings.filter.scorer == "ask" else [])]
        with Store(STORE / "generate", asked, budget.load()) as store:
            if kept:
                calls, real = asyncio.run(
                    generate_all(settings, descriptions, kept, Output(folders, attempts), store)
                )
        attempts.flush()
        pack(ByClass(Path(attempts.name), Attempt), folders)

    files.write_records_csv(REAL_SCORES, real, RealScore)
    summary = call_metrics(calls, "drawings", "texts_cut")
    files.write_json(CALLS / "generate.json", summary)


async def generate_all(
    settings: Params,
    descriptions: ByClass[ExtendedDescription],
    kept: Counter[int],
    output: "Output",
    store: Store,
) -> tuple[list[Calls], list[RealScore]]:
    """Draw the descriptions that were kept, so many of each class; what that took, and what real images score."""
    classes = files.read_csv(CLASSES, ClassRecord)
    slugs = {c.label: c.slug for c in classes}
    start = starts(settings)
    words, verdicts = prompts.load("refine", "ask_features"), review.load()
    sections: dict[str, ServerSettings] = {"llm": settings.llm}
    if settings.t2i.backend == "openai":
        sections["t2i"] = settings.t2i
    if settings.filter.scorer == "ask":
        sections["vision"] = settings.vision
    with server.running(**sections) as running:
        servers = dict(zip(sections, running, strict=True))
        t2i = servers.get("t2i")
        painter: OpenAIPainter | DiffusersPainter
        painter = OpenAIPainter(t2i, store) if t2i else DiffusersPainter(settings.t2i, store)
        scorer: Scorer
        texts_cut, real = 0, list[RealScore]()
        async with AsyncExitStack() as stack:
            if "vision" in servers:
                seeing = await stack.enter_async_context(Chat(servers["vision"], store))
                scorer = make_questions(settings.filter, seeing, words, classes)
            else:
                scorer, texts_cut, real = await make_filter(settings, classes, set(kept), descriptions, store)
            chat = await stack.enter_async_context(Chat(servers["llm"], store))
            await stack.enter_async_context(painter)
            context = RefineContext(chat, words, verdicts, painter, scorer, settings.filter.max_refinements)

            counts: Counter[str] = Counter(texts_cut=texts_cut)
            failures: Counter[str] = Counter()
            failed: list[Attempt] = []

            async def one(description: ExtendedDescription) -> list[Attempt]:
                state = RefineState(
                    slug=slugs[description.label], description=description, start=start(description)
                )
                end = await refine.graph.ainvoke(state, context=context)
                output.write_images(end["attempts"], end["images"])
                counts.update(end["counts"])
                failures.update(end["failures"])
                return end["attempts"]

            def take(chain: list[Attempt]) -> None:
                output.write_attempts(chain)
                failed.extend(attempt for attempt in chain[-1:] if attempt.verdict == "failed")

            drawn = (description for description in descriptions if description.kept)
            await run_each("generate", drawn, kept.total(), one, take, store.tally)
        verdicts.say_unused("drawing")
        if cut := counts["prompts_cut"]:
            console.print(f"{cut:,} prompts were cut: {settings.t2i.model} does not read them to the end")
        # Where there is an image, its questions or its refinement failed.
        undrawn, unseen, unrefined = (
            {attempt.id: attempt.reason or "" for attempt in failed if blame(attempt) == name}
            for name in ("t2i", "vision", "llm")
        )
        painter.check_failures(undrawn, kept.total(), "image")
        if unseen:
            servers["vision"].check_failures(unseen, kept.total(), "answer")
        servers["llm"].check_failures(unrefined, kept.total(), "refinement")
    return [Calls(counts, failures)], real


def starts(settings: Params) -> Callable[[ExtendedDescription], Start | None]:
    """The photo that each description's drawings start from, and how far they may go; None: from nothing."""
    strengths = settings.t2i.start_strengths
    if not strengths:
        return lambda description: None
    root = image_root(settings.data)
    photos: dict[int, list[tuple[str, ImageFile]]] = defaultdict(list)
    for image in files.each_csv(MANIFEST, ImageRecord):
        if image.split == "train":
            photos[image.label].append((image.path, image_file(root, image)))
    return lambda description: start_of(description.index, photos[description.label], strengths)


def blame(failed: Attempt) -> str:
    """The section of params.yaml whose model gave nothing usable."""
    if failed.image is None:
        return "t2i"
    return "vision" if (failed.reason or "").startswith(FAILED) else "llm"


def make_questions(
    settings: FilterSettings, vision: Chat, words: prompts.Prompts, classes: list[ClassRecord]
) -> FeatureQuestions:
    """The scorer `ask`. It asks about drawings alone: real photos are not scored, as each would be a paid call."""
    templates = {t.label: t.features for t in files.read_jsonl(TEMPLATES, ClassTemplate)}
    return FeatureQuestions(vision, words, classes, templates, settings)


async def make_filter(
    settings: Params,
    classes: list[ClassRecord],
    labels: set[int],
    extended: ByClass[ExtendedDescription],
    store: Store,
) -> tuple[Filter[Any], int, list[RealScore]]:
    """The filter, how many class texts CLIP cuts, and what real images of the classes that get drawings score."""
    texts = class_texts(settings.filter.text, classes, files.read_jsonl(TEMPLATES, ClassTemplate))
    clip = load_clip(settings.clip)
    existing = ByClass(EXISTING, ExistingDescription)

    def listed(label: int) -> list[ExistingDescription | ExtendedDescription]:
        # Rounds of feedback are judged by the first lists, too: what was drawn before keeps its verdict.
        added = [d for d in extended.of(label) if d.kept and not d.feedback]
        return [*(d for d in existing.of(label) if d.kept), *added]

    scorer = Filter(settings.filter, clip, make_scorer(settings.filter, clip, texts, classes, listed))
    images = real_images(files.each_csv(MANIFEST, ImageRecord), labels)
    root = image_root(settings.data)
    described = real_subjects(existing)
    subjects = {image.path: described.get(image.path, Subject(image.label)) for image in images}

    async def one(image: ImageRecord) -> Any:
        return await scorer.measure(subjects[image.path], image_file(root, image))

    measures = await run_all("score real images", images, one, store.tally)
    scorer.calibrate([(subjects[image.path], m) for image, m in zip(images, measures, strict=True)])
    real = []
    for image, m in zip(images, measures, strict=True):
        score, threshold = scorer.judge(subjects[image.path], m)
        real.append(
            RealScore(
                label=image.label, class_name=image.class_name, image=image.path, score=score, threshold=threshold
            )
        )
    cut = sum(a != b for a, b in zip(clip.fitting(texts), texts, strict=True))
    return scorer, cut, real


def make_scorer(
    settings: FilterSettings,
    clip: Clip,
    texts: list[str],
    classes: list[ClassRecord],
    descriptions: Descriptions,
) -> Measurer[Any]:
    if settings.scorer != "contrast":
        return Absolute(settings, clip, texts)
    return Contrast(clip, texts, classes, descriptions, settings.threshold)


class Output(NamedTuple):
    """Where drawings and attempts are written as they come."""

    folders: dict[Path, Path]  # ACCEPTED, REJECTED -> what is to replace them
    attempts: BinaryIO

    def write_images(self, attempts: list[Attempt], images: dict[str, bytes]) -> None:
        """The images of one description as files of their own, to be packed."""
        for attempt in attempts:
            if attempt.image is not None:
                shard = Path(attempt.image).parent
                path = self.folders[shard.parent] / shard.stem / Path(attempt.image).name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(images[attempt.id])

    def write_attempts(self, chain: list[Attempt]) -> None:
        self.attempts.writelines(map(files.json_line, chain))


def pack(attempts: ByClass[Attempt], folders: dict[Path, Path]) -> None:
    """Make one shard of each class's images in each folder, each image with its attempt as JSON beside it."""
    for label in attempts.labels:
        drawn = [attempt for attempt in attempts.of(label) if attempt.image]
        for old, new in folders.items():
            if packed := [attempt for attempt in drawn if old in Path(attempt.image or "").parents]:
                slug = packed[0].id.partition("/")[0]
                shards.write(new / f"{slug}.tar", members(new / slug, packed))
                shutil.rmtree(new / slug)


def members(folder: Path, attempts: Iterable[Attempt]) -> Iterator[tuple[str, bytes]]:
    for attempt in attempts:
        image = folder / Path(attempt.image or "").name
        yield image.name, image.read_bytes()
        yield image.with_suffix(".json").name, attempt.model_dump_json().encode()


if __name__ == "__main__":
    stage.run(main)
