"""What the page is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltgc.evaluation.comparison import Comparison, Results
from ltgc.pipeline.artifacts.asking import AskMetrics
from ltgc.pipeline.artifacts.dataset import ClassRecord, Finding, ImageRecord
from ltgc.pipeline.artifacts.descriptions import ClassTemplate, ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import Attempt, ClassQuality, Contamination
from ltgc.pipeline.artifacts.runs import Prediction
from ltgc.report.provenance import Rerun


@dataclass(frozen=True)
class Made:
    """What the loops began with and made."""

    image_root: Path
    classes: list[ClassRecord]
    manifest: list[ImageRecord]
    existing: list[ExistingDescription]
    extended: list[ExtendedDescription]
    templates: list[ClassTemplate]
    attempts: list[Attempt]
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
    scores: list[dict[str, str]]  # plots/scores.csv
    quality: Mapping[str, Any]
    contaminated: list[Contamination]
    rerun: Rerun
