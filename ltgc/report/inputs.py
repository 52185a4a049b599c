"""What the page is made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ltgc.data.images import ImageFile
from ltgc.evaluation.comparison import Comparison, Results
from ltgc.pipeline.artifacts.asking import AskMetrics
from ltgc.pipeline.artifacts.dataset import ClassRecord, Finding
from ltgc.pipeline.artifacts.descriptions import ClassTemplate, ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import Attempt, ClassQuality, Contamination
from ltgc.pipeline.artifacts.runs import Prediction
from ltgc.pipeline.by_class import ByClass
from ltgc.report.provenance import Rerun


@dataclass(frozen=True)
class Made:
    """What the loops began with and made."""

    classes: list[ClassRecord]
    photos: Mapping[int, list[ImageFile]]  # label -> those of the training split
    existing: ByClass[ExistingDescription]
    extended: ByClass[ExtendedDescription]
    templates: list[ClassTemplate]
    attempts: ByClass[Attempt]
    class_quality: list[ClassQuality]


@dataclass(frozen=True)
class Inputs(Made):
    """Everything the page shows, as the stages wrote it."""

    params: str  # params.yaml, verbatim
    source: str
    seeds: list[int]
    findings: list[Finding]
    comparison: Comparison
    paired: Comparison  # differences to the control
    asked: AskMetrics  # the vision model, asked directly
    results: Results
    predictions: Mapping[str, list[list[Prediction]]]  # method -> seed; the methods that ran
    loops: Mapping[str, Any]
    cost: Mapping[str, Mapping[str, Any]]
    scores: Iterable[Mapping[str, str]]  # rows of plots/scores.csv, which are read once
    quality: Mapping[str, Any]
    contaminated: list[Contamination]
    test_photos: Mapping[str, ImageFile]  # Contamination.test -> where it is
    rerun: Rerun
