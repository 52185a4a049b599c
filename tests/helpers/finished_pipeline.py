"""A small world of artifacts, written as the stages write them, for tests of what comes after the loops."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml
from PIL import Image, ImageDraw

from helpers.paths import ROOT, link_prompts
from helpers.photo_folders import image_record
from ltgc.data.splits import shot_group
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.asking import ASK, AskMetrics
from ltgc.pipeline.artifacts.dataset import (
    CLASSES,
    FINDINGS,
    MANIFEST,
    ClassRecord,
    Finding,
    ImageRecord,
    class_slug,
)
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import (
    ACCEPTED,
    ATTEMPTS,
    CLASS_QUALITY,
    CONTAMINATED,
    REAL_SCORES,
    REJECTED,
    Attempt,
    ClassQuality,
    Contamination,
    RealScore,
    Verdict,
)
from ltgc.pipeline.artifacts.replies import CALLS
from ltgc.pipeline.artifacts.results import QUALITY
from ltgc.pipeline.artifacts.runs import PER_CLASS, PREDICTIONS, RUN_METRICS, ClassAccuracy, Prediction, RunMetrics

NAMES = ["Field poppy", "Ox-eye daisy", "Bluebell", "Marsh marigold", "Edelweiss", "Aquilegia pubescens"]
COUNTS = [150, 60, 30, 12, 6, 4]
PHOTOS = "photos"
METHODS = ["clip_zero_shot", "clip_finetune", "balancemix"]
SEEDS = [0, 1]
THRESHOLD = 0.25
SCENES = ["in a meadow at dusk", "on a snowy slope", "beside a pond", "against a brick wall"]


def draw(path: Path, colour: tuple[int, int, int], petals: int, size: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (size, size), (90, 130 + petals * 6, 80))
    for petal in range(petals):
        x = size * (petal + 1) // (petals + 1)
        ImageDraw.Draw(image).ellipse((x - size // 6, size // 4, x + size // 6, 3 * size // 4), colour)
    image.save(path)


def build(
    root: Path,
    names: Sequence[str] = NAMES,
    counts: Sequence[int] = COUNTS,
    generated: bool = True,
    size: int = 32,
) -> None:
    """Write every artifact that loops, compare and report read below `root`."""
    random.seed(0)
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values |= {"methods": METHODS, "seeds": SEEDS}
    values["data"] |= {"source": "folder", "root": PHOTOS}
    values["extend"]["target"] = 20 if generated else 0
    link_prompts(root)
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    classes = [
        ClassRecord(
            label=label,
            name=name,
            slug=class_slug(label, name),
            train=train,
            val=0,
            test=5,
            shot=shot_group(train),
        )
        for label, (name, train) in enumerate(zip(names, counts, strict=True))
    ]
    images, existing, extended, templates, attempts, real = [], [], [], [], [], []
    for c in classes:
        colour = random.randrange(256), random.randrange(256), random.randrange(256)
        for number in range(c.train):
            path = f"{c.slug}/{number:04d}.png"
            if c.train < 20 or len(names) < 10:  # a page of hundreds of classes shows the smallest ones
                draw(root / PHOTOS / path, colour, 3, size)
            images.append(image_record(root / PHOTOS, path, c.label, c.name))
        tail = generated and c.train < 20
        templates.append(template(c, "llm" if tail else "class_name"))
        if not tail:
            continue
        own = [image for image in images if image.label == c.label]
        existing += [said_of(image, kept=number > 0) for number, image in enumerate(own)]
        real += [
            RealScore(label=c.label, class_name=c.name, image=own[0].path, score=score, threshold=THRESHOLD)
            for score in (0.2, 0.3)
        ]
        extended += [listed(c, index) for index in range(10)]
        for index in range(5):
            attempts += drawn_chain(root, c, index, colour, size)
    files.write_records_csv(root / MANIFEST, images, ImageRecord)
    files.write_records_csv(root / CLASSES, classes, ClassRecord)
    files.write_jsonl(root / EXISTING, existing)
    files.write_jsonl(root / EXTENDED, extended)
    files.write_jsonl(root / TEMPLATES, templates)
    files.write_jsonl(root / ATTEMPTS, attempts)
    files.write_records_csv(root / REAL_SCORES, real, RealScore)
    measure(root, [c for c in classes if generated and c.train < 20], images)
    for number, stage in enumerate(["describe", "extend", "templates", "generate", "ask"], 1):
        calls = {"calls": 10 * number, "prompt_tokens": 1000 * number, "completion_tokens": 100 * number}
        calls |= {"rounds": 6} if stage == "extend" else {}
        files.write_json(root / CALLS / f"{stage}.json", calls)
    asked = AskMetrics(images=12, of=30, all=55.0, many=60.0, medium=50.0, few=None, refused=1, no_class=0)
    files.write_json(root / ASK, asked.model_dump())
    for number, method in enumerate(METHODS):
        for seed in SEEDS:
            run(root, method, seed, classes, 40.0 + 10 * number + seed)


def measure(root: Path, tail: Sequence[ClassRecord], images: Sequence[ImageRecord]) -> None:
    """What prepare noticed and what quality measured; a drawing of the first class is nearly a test image."""
    bad = Finding(kind="bad", path="0001-oxeye/broken.jpg", reason="truncated or corrupt", split="train")
    files.write_records_csv(root / FINDINGS, [bad], Finding)
    qualities = [
        ClassQuality(
            label=c.label,
            class_name=c.name,
            original=c.train,
            generated=3,
            diversity_original=0.2,
            diversity_generated=0.4,
            gap_generated=1.5,
            gap_validation=None,
        )
        for c in tail
    ]
    found = [
        Contamination(
            image=f"{ACCEPTED}/{c.slug}/0000-0.png",
            label=c.label,
            class_name=c.name,
            test=next(image.path for image in images if image.label == c.label),
            test_class=c.name,
            distance=2,
            cosine=0.98,
        )
        for c in tail[:1]
    ]
    files.write_jsonl(root / CLASS_QUALITY, qualities)
    files.write_records_csv(root / CONTAMINATED, found, Contamination)
    summary = {"classes": len(tail), "generated": 3 * len(tail), "diversity": {"original": 0.2, "generated": 0.4}}
    summary |= {"gap": {"generated": 1.5, "validation": None}, "contaminated": {"found": len(found), "dropped": 0}}
    files.write_json(root / QUALITY, summary)


def template(c: ClassRecord, source: Literal["llm", "class_name"]) -> ClassTemplate:
    return ClassTemplate(
        label=c.label,
        class_name=c.name,
        template=f"A photo of the class {c.name} with {{spurred petals}}{{yellow stamens}}",
        features=["spurred petals", "yellow stamens"],
        source=source,
        reason=None if source == "llm" else "asked_not_to",
    )


def said_of(image: ImageRecord, kept: bool) -> ExistingDescription:
    return ExistingDescription(
        label=image.label,
        class_name=image.class_name,
        image=image.path,
        description=f"A photo of the class {image.class_name}, white petals, in a meadow" if kept else None,
        features="white petals" if kept else None,
        scene="in a meadow" if kept else None,
        kept=kept,
        reason=None if kept else "refused",
        replies=1 if kept else 3,
    )


def listed(c: ClassRecord, index: int) -> ExtendedDescription:
    """Kept, but for the eighth, that repeats, and the ninth, that is a duplicate."""
    scene = SCENES[index % len(SCENES)]
    return ExtendedDescription(
        label=c.label,
        class_name=c.name,
        index=index,
        round=1 + index // 5,
        description=f"A photo of the class {c.name}, {index + 3} petals, {scene}",
        features=f"{index + 3} petals",
        scene=scene,
        kept=index not in (8, 9),
        reason={8: "repeats", 9: "duplicate"}.get(index),
    )


def drawn_chain(root: Path, c: ClassRecord, index: int, colour: tuple[int, int, int], size: int) -> list[Attempt]:
    """0-1: accepted at once; 2: accepted after one refinement; 3: rejected after one; 4: failed, no image."""
    scores: dict[int, list[tuple[float | None, Verdict]]] = {
        2: [(0.21, "refined"), (0.29, "accepted")],
        3: [(0.18, "refined"), (0.22, "rejected")],
        4: [(None, "failed")],
    }
    attempts: list[Attempt] = []
    for number, (score, verdict) in enumerate(scores.get(index, [(0.3 + index / 100, "accepted")])):
        name = f"{c.slug}/{index:04d}-{number}"
        folder = ACCEPTED if verdict == "accepted" else REJECTED
        image = folder / f"{name}.png" if score is not None else None
        if image is not None:
            draw(root / image, colour, index + number + 2, size)
        attempts.append(
            Attempt(
                id=name,
                label=c.label,
                class_name=c.name,
                index=index,
                round=number,
                prompt=f"A photo of the class {c.name}, {['plain', 'horned'][number]} petals, {SCENES[index % 4]}",
                seed=index,
                image=None if image is None else image.as_posix(),
                score=score,
                threshold=None if score is None else THRESHOLD,
                verdict=verdict,
                refines=attempts[-1].id if attempts else None,
                reason="refused" if verdict == "failed" else None,
            )
        )
    return attempts


def run(root: Path, method: str, seed: int, classes: Sequence[ClassRecord], base: float) -> None:
    shots = {c.shot for c in classes}
    metrics = RunMetrics(
        all=base,
        many=base if "many" in shots else None,
        medium=base - 5 if "medium" in shots else None,
        few=base - 10 if "few" in shots else None,
        harmonic_mean=base - 3,
        worst_class=base - 20,
        ece=base / 10,
    )
    files.write_json(root / RUN_METRICS / method / f"{seed}.json", metrics.model_dump())
    rows = [
        ClassAccuracy(
            label=c.label,
            class_name=c.name,
            train=c.train,
            shot=c.shot,
            accuracy=round(max(0.0, min(100.0, base + 20 - 8 * (c.label % 6))), 2),
        )
        for c in classes
    ]
    files.write_records_csv(root / PER_CLASS / method / f"{seed}.csv", rows, ClassAccuracy)
    # Five test images a class; of a tail class two are taken for the first class, with BalanceMix one.
    wrong = 1 if method == "balancemix" else 2
    predictions = [
        Prediction(
            path=f"{c.slug}/test-{number}.png",
            label=c.label,
            prediction=0 if c.train < 20 and number < wrong else c.label,
            confidence=0.9,
        )
        for c in classes
        for number in range(5)
    ]
    files.write_records_csv(root / PREDICTIONS / method / f"{seed}.csv", predictions, Prediction)


def skip(root: Path, method: str, reason: str) -> None:
    """Make `method` one that could not run."""
    for seed in SEEDS:
        files.write_json(root / RUN_METRICS / method / f"{seed}.json", {"skipped": reason})
        files.write_csv(root / PER_CLASS / method / f"{seed}.csv", [], list(ClassAccuracy.model_fields))
