"""Artifacts of a whole data set, written as if every stage had run: for what a stage needs in memory.

python benchmarks/filled_world.py inat2018 FOLDER    # photos in FOLDER/photos, the rest in FOLDER/project
"""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from instant_world import SHAPES, Shape, class_name, feature, ppm, take_photos

from ltgc.clip.detection import REAL_IMAGES
from ltgc.data import shards
from ltgc.data.images import content_hash
from ltgc.data.splits import shot_group
from ltgc.evaluation import quality
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import (
    CLASSES,
    FINDINGS,
    LICENSES,
    MANIFEST,
    SYNONYMS,
    ClassRecord,
    Finding,
    ImageRecord,
    PhotoLicense,
    Synonym,
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
    DROPPED,
    REAL_SCORES,
    REJECTED,
    Attempt,
    Contamination,
    RealScore,
    Verdict,
    attempt_id,
    attempt_image,
)
from ltgc.pipeline.artifacts.replies import CALLS
from ltgc.pipeline.artifacts.results import QUALITY

REFINED = 4  # one description in so many is drawn twice
DROPPED_TOO = 10  # one description in so many is dropped


def fill(shape: Shape, folder: Path) -> None:
    project, counts = folder / "project", shape.counts(shape.classes)
    classes = [
        ClassRecord(
            label=label,
            name=(name := class_name(label)),
            slug=class_slug(label, name),
            train=count,
            val=shape.val,
            test=shape.test,
            shot=shot_group(count),
        )
        for label, count in enumerate(counts)
    ]
    tail = [c for c in classes if c.train < shape.target]
    photos = take_photos(folder / "photos", counts, shape.val, shape.test)
    manifest = (
        ImageRecord(path=path, label=y, class_name=class_name(y), split=split, hash=content_hash(data))
        for path, y, split, data in photos
    )
    files.write_records_csv(project / MANIFEST, manifest, ImageRecord)
    files.write_records_csv(project / CLASSES, classes, ClassRecord)
    for path, model in ((FINDINGS, Finding), (SYNONYMS, Synonym), (LICENSES, PhotoLicense)):
        files.write_records_csv(project / path, [], model)
    files.write_jsonl(project / EXISTING, (existing(c, k) for c in tail for k in range(c.train)))
    files.write_jsonl(project / EXTENDED, (d for c in tail for d in extended(c, shape.target)))
    files.write_jsonl(project / TEMPLATES, map(template, classes))
    with files.replaced_file(project / ATTEMPTS) as file:
        for c in tail:
            attempts = [a for d in extended(c, shape.target) if d.kept for a in chain(c, d)]
            file.writelines(map(files.json_line, attempts))
            for root in (ACCEPTED, REJECTED):
                own = [a for a in attempts if root in Path(a.image or "").parents]
                shards.write(project / root / f"{c.slug}.tar", members(own))
    files.write_records_csv(
        project / REAL_SCORES, (real(c, k) for c in tail for k in range(min(c.train, REAL_IMAGES))), RealScore
    )
    for path in (CONTAMINATED, DROPPED):
        files.write_records_csv(project / path, [], Contamination)
    files.write_jsonl(project / CLASS_QUALITY, [])
    files.write_json(project / QUALITY, quality.summary([], 0, 0))
    for stage in ("describe", "extend", "templates", "generate", "ask"):
        files.write_json(
            project / CALLS / f"{stage}.json", {"calls": 1, "prompt_tokens": 1, "completion_tokens": 1}
        )


def words(key: str) -> tuple[str, str]:
    """Features and scene."""
    return ", ".join(feature(f"{key}{i}") for i in range(3)), f"in {feature(key)}"


def existing(c: ClassRecord, k: int) -> ExistingDescription:
    features, scene = words(f"{c.name} photo {k}")
    return ExistingDescription(
        label=c.label,
        class_name=c.name,
        image=f"train/{c.name}/{k:04d}.ppm",
        description=f"A photo of the class {c.name}, {features}, {scene}.",
        features=features,
        scene=scene,
        kept=True,
        reason=None,
        replies=1,
    )


def extended(c: ClassRecord, target: int) -> Iterator[ExtendedDescription]:
    wanted = target - c.train
    for index in range(wanted + wanted // DROPPED_TOO):
        features, scene = words(f"{c.name} {index}")
        yield ExtendedDescription(
            label=c.label,
            class_name=c.name,
            index=index,
            round=1 + index // 20,
            description=f"A photo of the class {c.name}, {features}, {scene}.",
            features=features,
            scene=scene,
            kept=index < wanted,
            reason=None if index < wanted else "repeats",
        )


def template(c: ClassRecord) -> ClassTemplate:
    features = [feature(f"{c.name} {i}") for i in range(3)]
    text = f"A photo of the class {c.name} with {', '.join(features)}."
    return ClassTemplate(
        label=c.label, class_name=c.name, template=text, features=features, source="llm", reason=None
    )


def chain(c: ClassRecord, d: ExtendedDescription) -> Iterator[Attempt]:
    verdicts: list[Verdict] = ["refined", "accepted"] if d.index % REFINED == 0 else ["accepted"]
    for round, verdict in enumerate(verdicts):
        id = attempt_id(c.slug, d.index, round)
        yield Attempt(
            id=id,
            label=c.label,
            class_name=c.name,
            index=d.index,
            round=round,
            prompt=d.description,
            seed=d.index,
            image=attempt_image(id, verdict),
            score=0.25 if verdict == "accepted" else -0.25,
            threshold=0.0,
            verdict=verdict,
            refines=attempt_id(c.slug, d.index, 0) if round else None,
            reason=None,
        )


def members(attempts: list[Attempt]) -> Iterator[tuple[str, bytes]]:
    for a in attempts:
        name = Path(a.image or "").name
        yield name, ppm(a.class_name, a.id)
        yield f"{Path(name).stem}.json", a.model_dump_json().encode()


def real(c: ClassRecord, k: int) -> RealScore:
    return RealScore(
        label=c.label, class_name=c.name, image=f"train/{c.name}/{k:04d}.ppm", score=0.2, threshold=0.0
    )


if __name__ == "__main__":
    fill(SHAPES[sys.argv[1]], Path(sys.argv[2]))
