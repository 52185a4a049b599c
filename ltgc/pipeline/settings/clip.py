"""The sections of params.yaml about CLIP, its filter, and the quality of the generated set."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ltgc.pipeline.settings.base import Count, Revision, Section


class ClipSettings(Section):
    model: str
    pretrained: str | None
    revision: Revision | None = None


class FilterSettings(Section):
    scorer: Literal["contrast", "cosine", "probability", "percentile", "ask"]
    threshold: float
    offset: float
    wait: Annotated[float, Field(ge=0, le=1)] = 0.005
    tries: Annotated[int, Field(ge=1)] = 3
    max_refinements: Count
    text: Literal["templates", "class_names"]

    @model_validator(mode="after")
    def _threshold_in_range(self) -> "FilterSettings":
        low, high = {
            "contrast": (0.0, 100.0),
            "cosine": (-1.0, 2.0),
            "probability": (0.0, 1.0),
            "percentile": (0.0, 100.0),
            "ask": (0.0, 1.0),
        }[self.scorer]
        if not low <= self.threshold <= high:
            raise ValueError(f"threshold {self.threshold} is outside [{low}, {high}] of the {self.scorer} scorer")
        return self


class QualitySettings(Section):
    duplicate_distance: Annotated[int, Field(ge=0, le=64)]
    duplicate_cosine: float = Field(ge=-1, le=1)
    drop_contaminated: bool
