"""The sections of params.yaml about the loops that describe, extend and sum up, and about asking."""

from typing import Literal

from ltgc.pipeline.settings.base import Count, Positive, Section


class DescribeSettings(Section):
    tries: Positive


class ExtendSettings(Section):
    target: Count
    max_rounds: Positive
    max_stalled: Positive
    repetition_check: bool
    source: Literal["llm", "class_name"]


class TemplatesSettings(Section):
    source: Literal["llm", "class_name"]
    tries: Positive


class AskSettings(Section):
    way: Literal["image", "tags"]
    max_images: Count | None
    seed: int
