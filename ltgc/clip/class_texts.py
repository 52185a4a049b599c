"""The text that stands for each class: its class feature template C_y, or its bare name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.pipeline.artifacts.descriptions import ClassTemplate
from ltgc.pipeline.errors import LTGCError


def class_texts(
    init: Literal["templates", "class_names"],
    classes: Sequence[ClassRecord],
    templates: Sequence[ClassTemplate],
) -> list[str]:
    """The text that stands for each class at the start, by label: its template C_y, or its bare name.

    Raises LTGCError naming a class without a template.
    """
    if init == "class_names":
        return [f"A photo of the class {c.name}" for c in classes]
    texts = {template.label: template.template for template in templates}
    for c in classes:
        if c.label not in texts:
            raise LTGCError(
                f"descriptions/templates.jsonl: no template of class {c.name!r}; run `dvc repro templates`"
            )
    return [texts[c.label] for c in classes]
