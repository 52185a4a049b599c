"""Existing and extended descriptions, and the class feature templates (§3.1)."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from ltgc.pipeline.artifacts.reasons import ListReason, ReplyReason, RequestReason, ReviewReason
from ltgc.pipeline.files import Record

TemplateReason = Literal["asked_not_to"] | ReplyReason | RequestReason | ReviewReason

EXISTING = Path("descriptions/existing.jsonl")
EXTENDED = Path("descriptions/extended.jsonl")
TEMPLATES = Path("descriptions/templates.jsonl")


class ExistingDescription(Record):
    """What the vision model said of one tail image (§3.1.1)."""

    label: int
    class_name: str
    image: str  # ImageRecord.path
    description: str | None  # Template 1, markup removed; None where no reply was usable
    features: str | None
    scene: str | None
    kept: bool
    reason: Literal["bad_image"] | ReplyReason | RequestReason | ReviewReason | None  # why not kept
    replies: int  # how many replies it took; 0 where a person described it


class ExtendedDescription(Record):
    """One description the LLM added to a class, kept or dropped (§3.1.2)."""

    label: int
    class_name: str
    index: int  # position in the order of arrival within the class, dropped ones included, from 0
    round: int  # which question of the number check brought it, from 1; in each round of feedback anew
    description: str  # Template 1, markup removed (the raw text where it could not be parsed)
    features: str | None
    scene: str | None
    kept: bool
    reason: ReplyReason | RequestReason | ListReason | ReviewReason | None  # why dropped
    # The round of feedback that asked for it (feedback/rivals.jsonl); 0, which is not written: the first list.
    feedback: int = Field(default=0, exclude_if=lambda round: round == 0)


class ClassTemplate(Record):
    """The class feature template C_y (§3.1.3): Template 2, distinctive features and no scene."""

    label: int
    class_name: str
    template: str
    features: list[str]
    source: Literal["llm", "class_name", "review"]  # review: a person
    reason: TemplateReason | None  # why the class name stands in for an LLM's answer
