"""Every file that stages hand to one another: its path, its schema, and how it is written.

Text artifacts are JSON Lines, JSON or CSV so that git and people can diff them. Every write is atomic:
a file appears whole under its name or not at all.
"""

import csv
import json
import os
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ltgc.errors import LTGCError

# Paths, relative to the repository root. dvc.yaml names the same ones; a test holds the two together.
DRAWN_IMAGES = Path("data/images")
MANIFEST = Path("data/manifest.csv")
CLASSES = Path("data/classes.csv")
FINDINGS = Path("data/findings.csv")
EXISTING = Path("descriptions/existing.jsonl")
EXTENDED = Path("descriptions/extended.jsonl")
TEMPLATES = Path("descriptions/templates.jsonl")
ATTEMPTS = Path("generated/attempts.jsonl")
ACCEPTED = Path("generated/accepted")
REJECTED = Path("generated/rejected")
REAL_SCORES = Path("generated/real_scores.csv")
CLASS_QUALITY = Path("generated/quality.jsonl")
CONTAMINATED = Path("generated/contaminated.csv")
DROPPED = Path("generated/dropped.csv")
STORE = Path("store")
CALLS = Path("metrics/calls")
MODELS = Path("models")
CURVES = Path("plots/curves")
RUN_METRICS = Path("metrics/runs")
PREDICTIONS = Path("predictions")
PER_CLASS = Path("plots/per_class")
ANSWERS = Path("predictions/lmm.jsonl")
ASK = Path("metrics/lmm.json")
COMPARE = Path("metrics/compare.json")
PAIRED = Path("metrics/paired.json")
COMPARE_PLOT = Path("plots/compare.csv")
PER_CLASS_PLOT = Path("plots/per_class.csv")
LOOPS = Path("metrics/loops.json")
COST = Path("metrics/cost.json")
SCORES_PLOT = Path("plots/scores.csv")
COST_PLOT = Path("plots/cost.csv")
QUALITY = Path("metrics/quality.json")
FIG6 = Path("plots/fig6.png")
FIG7 = Path("plots/fig7.png")
REPORT = Path("report/index.html")

Split = Literal["train", "val", "test"]
Shot = Literal["many", "medium", "few"]


class Record(BaseModel):
    """One line of an artifact. Unknown fields are errors: a stale artifact is noticed, not misread."""

    model_config = ConfigDict(extra="forbid")


class ImageRecord(Record):
    """One image of the data set (data/manifest.csv)."""

    path: str  # relative to the image root (ltgc.data.image_root)
    label: int  # 0-based, the row of the class in data/classes.csv
    class_name: str
    split: Split


class ClassRecord(Record):
    """One class (data/classes.csv). Shot groups by M_y: many > 100, medium 20-100, few < 20 (§4.1)."""

    label: int
    name: str  # what prompts and reports say; untrusted text, never a path
    slug: str  # what paths say
    train: int  # M_y, the number of training images
    val: int
    test: int
    shot: Shot
    context: str | None = None  # the wider taxonomy, for prompts: "Plantae > ... > Asteraceae"; untrusted text


class Finding(Record):
    """What prepare noticed about one file (data/findings.csv).

    kind: "bad" (an image that cannot be used: left out), "converted" (used, but something of it is lost: CMYK,
    more than 8 bits, more than one frame), "near_duplicate" (a test image that nearly is a training image),
    "skipped" (no image of the data set: hidden, or another kind of file).
    """

    kind: Literal["bad", "converted", "near_duplicate", "skipped"]
    path: str  # relative to the image root, like ImageRecord.path
    reason: str
    split: Split | None = None  # None: of no split, or left out before splits were drawn
    class_name: str | None = None
    other: str | None = None  # of a near duplicate: the path of its twin in the training split


class ExistingDescription(Record):
    """What the vision model said of one tail image (§3.1.1)."""

    label: int
    class_name: str
    image: str  # ImageRecord.path
    description: str | None  # Template 1, markup removed; None where no reply was usable
    features: str | None
    scene: str | None
    kept: bool
    reason: str | None  # why not kept: "not_in_template", "wrong_class", "empty", "refused", ...
    replies: int  # how many replies it took


class ExtendedDescription(Record):
    """One description the LLM added to a class, kept or dropped (§3.1.2)."""

    label: int
    class_name: str
    index: int  # position in the order of arrival within the class, dropped ones included, from 0
    round: int  # which question of the number check brought it, from 1
    description: str  # Template 1, markup removed (the raw text where it could not be parsed)
    features: str | None
    scene: str | None
    kept: bool
    reason: str | None  # why dropped: "not_in_template", "wrong_class", "duplicate", "repeats", "over_target"


class ClassTemplate(Record):
    """The class feature template C_y (§3.1.3): Template 2, distinctive features and no scene."""

    label: int
    class_name: str
    template: str
    features: list[str]
    source: Literal["llm", "class_name"]
    reason: str | None  # why the class name stands in for an LLM's answer: "asked_not_to", "not_in_template"


Verdict = Literal["accepted", "refined", "rejected", "failed"]


class Attempt(Record):
    """One drawing of one description (generated/attempts.jsonl; §3.1.3, Fig. 5).

    verdict: "accepted" (score reached the threshold), "refined" (below it; the next attempt refines it),
    "rejected" (below it and no round left), "failed" (no usable image or refinement; see reason).
    """

    id: str  # "<slug>/<index>-<round>", e.g. "0012-aquilegia-pubescens/0007-1"
    label: int
    class_name: str
    index: int  # ExtendedDescription.index of the description it began with
    round: int  # 0 the first drawing, r after r refinements
    prompt: str  # what was drawn
    seed: int
    image: str | None  # what ltgc.images reads: "generated/accepted/0012-aquilegia-pubescens.tar/0007-1.png"
    score: float | None  # S, as the scorer defines it, rounded to 6 decimals
    threshold: float | None  # what the score was held against (per class for the percentile scorer)
    verdict: Verdict
    refines: str | None  # id of the attempt whose prompt this one refines
    reason: str | None


class RealScore(Record):
    """What CLIP's detection says of a real training image (generated/real_scores.csv), to set μ by looking."""

    label: int
    class_name: str
    image: str  # ImageRecord.path
    score: float  # as Attempt.score
    threshold: float


class ClassQuality(Record):
    """The generated images of one class beside its original ones (generated/quality.jsonl; ltgc.quality)."""

    label: int
    class_name: str
    original: int  # images of the training split
    generated: int  # accepted images
    # Mean pairwise cosine distance in CLIP's feature space; None of fewer than two images.
    diversity_original: float | None
    diversity_generated: float | None
    # Distance (CMMD) to the originals; None where one side has fewer than two images.
    gap_generated: float | None
    gap_validation: float | None  # of the class's validation images: what real photos come to


class Contamination(Record):
    """A generated image that is nearly a test image (generated/contaminated.csv, generated/dropped.csv)."""

    image: str  # Attempt.image
    label: int
    class_name: str
    test: str  # ImageRecord.path of the test image
    test_class: str
    distance: int  # bits of 64 in which their perceptual hashes differ
    cosine: float  # of their CLIP features


class Run(Record):
    """What one training run did (models/<method>/<seed>/run.json)."""

    method: str
    seed: int
    skipped: str | None  # why the method could not run; None where it did
    steps: int
    original: int  # images in D_o, the training split
    generated: int  # images in D_g, whether or not the method draws from it
    images_seen: int  # drawn in all steps together; a mixed pair counts as two
    val_accuracy: float | None  # percent, at the end; None without a validation split


class RunMetrics(Record):
    """Test metrics of one run in percent (metrics/runs/<method>/<seed>.json; §4.1).

    All None where the run was skipped; a shot group's is None where no class is in the group.
    """

    all: float | None = None  # top-1 over all test images
    many: float | None = None  # mean per-class accuracy of the shot group
    medium: float | None = None
    few: float | None = None
    harmonic_mean: float | None = None  # of the per-class accuracies; 0 where one of them is 0
    worst_class: float | None = None
    ece: float | None = None  # expected calibration error, 15 bins
    skipped: str | None = None


class Prediction(Record):
    """What one run says of one test image (predictions/<method>/<seed>.csv)."""

    path: str  # ImageRecord.path
    label: int
    prediction: int
    confidence: float  # probability of the predicted class


class ClassAccuracy(Record):
    """Test accuracy of one class in one run (plots/per_class/<method>/<seed>.csv)."""

    label: int
    class_name: str
    train: int
    shot: Shot
    accuracy: float  # percent


class Answer(Record):
    """What the vision model said when it was asked for the class of a test image (predictions/lmm.jsonl)."""

    path: str  # ImageRecord.path
    label: int
    reply: str  # its first 300 characters; untrusted text
    prediction: int | None
    reason: str | None  # why there is none: "refused", "unknown_class", "several_classes", "http_500", ...


class AskMetrics(Record):
    """How well the vision model names test images when asked directly (metrics/lmm.json; Table 3), in percent."""

    images: int  # that it was asked about
    of: int  # test images in all
    all: float | None  # None where nothing was asked
    many: float | None
    medium: float | None
    few: float | None
    refused: int
    no_class: int  # other answers without one class: unknown_class, several_classes, a request that failed


def slug(label: int, name: str) -> str:
    """A path component for a class: its label, then what ASCII letters and digits its name has.

    The label makes it unique; the name only makes it readable, so any name is safe ("/", "..", emoji).
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")
    return f"{label:04d}-{words[:40].rstrip('-')}".rstrip("-")


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) so that `path` holds either all of it or what it held before."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either all of it or what it held before, also after a power cut."""
    write_chunks(path, [data])


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """`write_bytes` of all `chunks`, which need not fit into memory together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named by thread and not by process: what a killed run left behind is overwritten by the next.
    part = path.with_name(f".{path.name}.{threading.current_thread().name}.part")
    with part.open("wb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` last over a power cut."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    write_text(path, "".join(r.model_dump_json() + "\n" for r in records))


def write_csv(path: Path, rows: Iterable[dict[str, Any]], fields: Sequence[str]) -> None:
    """Write `rows` under the header `fields` (written even when there are no rows)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


R = TypeVar("R", bound=Record)


def write_records_csv(path: Path, records: Sequence[Record], model: type[Record]) -> None:
    write_csv(path, (r.model_dump() for r in records), list(model.model_fields))


def read_jsonl(path: Path, model: type[R]) -> list[R]:
    _exists(path)
    with path.open(encoding="utf-8") as file:
        return list(_validated(path, model, file))


def read_csv(path: Path, model: type[R]) -> list[R]:
    _exists(path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = enumerate(csv.DictReader(file), 2)
        # CSV has no null: an empty cell is None.
        return [_validate(path, n, model, {key: value or None for key, value in row.items()}) for n, row in rows]


def read_json(path: Path) -> Any:
    _exists(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise LTGCError(f"{path}: not JSON ({error}); run `dvc repro` to make it again") from error


def read_record(path: Path, model: type[R]) -> R:
    """One record, written by `write_json`."""
    try:
        return model.model_validate(read_json(path))
    except ValidationError as error:
        raise LTGCError(_bad_line(path, 1, model, error)) from error


def _exists(path: Path) -> None:
    if not path.exists():
        raise LTGCError(f"{path}: not there; run `dvc repro` to make it")


def _validated(path: Path, model: type[R], lines: Iterable[str]) -> Iterator[R]:
    for number, line in enumerate(lines, 1):
        try:
            yield model.model_validate_json(line)
        except ValidationError as error:
            raise LTGCError(_bad_line(path, number, model, error)) from error


def _validate(path: Path, number: int, model: type[R], row: dict[str, Any]) -> R:
    try:
        return model.model_validate(row)
    except ValidationError as error:
        raise LTGCError(_bad_line(path, number, model, error)) from error


def _bad_line(path: Path, number: int, model: type[Record], error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the line"
    return f"{path}, line {number}: {where}: {first['msg']} (expected a {model.__name__})"
