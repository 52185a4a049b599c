"""Generated images: every attempt, what was accepted and rejected, and how good the set is."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from ltgc.pipeline.files import Record

ATTEMPTS = Path("generated/attempts.jsonl")
ACCEPTED = Path("generated/accepted")
REJECTED = Path("generated/rejected")
REAL_SCORES = Path("generated/real_scores.csv")
CLASS_QUALITY = Path("generated/quality.jsonl")
CONTAMINATED = Path("generated/contaminated.csv")
DROPPED = Path("generated/dropped.csv")


Verdict = Literal["accepted", "refined", "rejected", "failed"]


class Attempt(Record):
    """One drawing of one description (generated/attempts.jsonl; §3.1.3, Fig. 5).

    verdict: "accepted" (score reached the threshold), "refined" (below it; the next attempt refines it),
    "rejected" (below it and no round left), "failed" (no usable image or refinement; see reason). A person may
    decide otherwise (review.csv); reason says so.
    """

    id: str  # "<slug>/<index>-<round>", e.g. "0012-aquilegia-pubescens/0007-1"
    label: int
    class_name: str
    index: int  # ExtendedDescription.index of the description it began with
    round: int  # 0 the first drawing, r after r refinements
    prompt: str  # what was drawn
    seed: int
    image: str | None  # what ltgc.data.images reads: "generated/accepted/0012-aquilegia-pubescens.tar/0007-1.png"
    score: float | None  # S, as the scorer defines it, rounded to 6 decimals
    threshold: float | None  # what the score was held against (per class for the percentile scorer)
    verdict: Verdict
    refines: str | None  # id of the attempt whose prompt this one refines
    reason: str | None
    # Of a drawing that starts from a photo (t2i.start_strengths); otherwise not written.
    photo: str | None = Field(default=None, exclude_if=lambda photo: photo is None)  # ImageRecord.path
    strength: float | None = Field(default=None, exclude_if=lambda strength: strength is None)
    # Of the scorer `ask`: feature -> whether the vision model sees it. Left out of the file where there is none.
    answers: dict[str, bool] | None = Field(default=None, exclude_if=lambda answers: answers is None)


def attempt_id(slug: str, index: int, round: int) -> str:
    return f"{slug}/{index:04d}-{round}"


def attempt_image(id: str, verdict: Verdict) -> str:
    """Where the image of an attempt lies: in the shard of its class, among the accepted or the rejected ones."""
    slug, _, name = id.partition("/")
    return ((ACCEPTED if verdict == "accepted" else REJECTED) / f"{slug}.tar" / f"{name}.png").as_posix()


class RealScore(Record):
    """What CLIP's detection says of a real training image (generated/real_scores.csv), to set μ by looking."""

    label: int
    class_name: str
    image: str  # ImageRecord.path
    score: float  # as Attempt.score
    threshold: float


class ClassQuality(Record):
    """The generated images of one class beside its original ones (generated/quality.jsonl)."""

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
