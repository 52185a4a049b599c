"""The vision model asked for the class of test images (Table 3)."""

from pathlib import Path

from ltgc.pipeline.files import Record

ANSWERS = Path("answers/lmm.jsonl")
ASK = Path("metrics/lmm.json")


class Answer(Record):
    """What the vision model said when it was asked for the class of a test image (answers/lmm.jsonl)."""

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
