"""The page: one self-contained HTML file that fetches nothing.

Class names and model replies are untrusted: Jinja escapes every one of them, and the page's own
Content-Security-Policy allows no request and no script but the page's own, by its hash. Everything can be read
without that script; it sorts, filters and unfolds.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ltgc.data.roots import image_file
from ltgc.evaluation.comparison import METRICS, Comparison, Results, control
from ltgc.pipeline.artifacts.asking import AskMetrics
from ltgc.pipeline.artifacts.dataset import ClassRecord, Finding, ImageRecord
from ltgc.pipeline.artifacts.descriptions import ClassTemplate, ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import Attempt, ClassQuality, Contamination
from ltgc.pipeline.artifacts.runs import Prediction
from ltgc.report import figures, sections, thumbnails
from ltgc.report.provenance import Rerun
from ltgc.report.style import method_name
from ltgc.report.thumbnails import Thumbnails

TEMPLATES = Path(__file__).parent / "templates"
CONTAMINATED_SHOWN = 60


@dataclass(frozen=True)
class Inputs:
    """Everything the page shows, as the stages wrote it."""

    params: str  # params.yaml, verbatim
    source: str
    seeds: list[int]
    image_root: Path
    classes: list[ClassRecord]
    manifest: list[ImageRecord]
    findings: list[Finding]
    existing: list[ExistingDescription]
    extended: list[ExtendedDescription]
    templates: list[ClassTemplate]
    attempts: list[Attempt]
    comparison: Comparison
    paired: Comparison  # differences to the control, seed by seed
    asked: AskMetrics  # the vision model, asked directly
    results: Results
    predictions: Mapping[str, list[list[Prediction]]]  # method -> seed; the methods that ran
    loops: Mapping[str, Any]
    cost: Mapping[str, Mapping[str, Any]]
    scores: list[dict[str, str]]  # plots/scores.csv
    quality: Mapping[str, Any]
    class_quality: list[ClassQuality]
    contaminated: list[Contamination]
    rerun: Rerun


def page(inputs: Inputs) -> str:
    """The HTML of the report. Raises LTGCError naming an image that is not there or cannot be read."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": "{:,}".format,
        "words": lambda reason: reason.replace("_", " "),
        "method": method_name,
    }
    shown = sections.classes_shown(inputs.classes)
    accuracy = sections.mean_accuracy(inputs.results.accuracies)
    drawn = sections.generated(inputs.attempts)
    thumbs = Thumbnails()
    fold_outs = sections.fold_outs(
        shown,
        sections.originals(inputs.manifest, inputs.image_root),
        drawn,
        inputs.existing,
        inputs.extended,
        inputs.templates,
        inputs.attempts,
        inputs.class_quality,
        thumbs,
        thumbnails.BUDGET,
    )
    thumbs.allow(thumbnails.BUDGET // 20)
    script, style = (_asset(name) for name in ("report.js", "report.css"))
    return environment.get_template("report.html.j2").render(
        inputs=inputs,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
        metrics=METRICS,
        rows=sections.comparison_rows(inputs.comparison),
        control=control(inputs.comparison),
        verdict=sections.verdict(inputs.comparison),
        shots=sections.shot_rows(inputs.classes),
        findings=sections.findings(inputs.findings),
        counts_figure=figures.counts(inputs.classes),
        accuracy_figure=figures.accuracy(inputs.classes, accuracy) if accuracy else None,
        scores_figure=figures.scores(inputs.scores),
        accuracy=accuracy,
        gains={c.label: sections.gain(accuracy, c.label) for c in inputs.classes},
        drawn={label: len(own) for label, own in drawn.items()},
        steps=sections.flow(inputs.loops),
        rounds=sections.rounds(inputs.attempts),
        confusions=sections.confusions(inputs.classes, inputs.predictions),
        fold_outs=fold_outs,
        shown={c.label for c in shown},
        descriptions_shown=sections.DESCRIPTIONS_SHOWN,
        contaminated=_pairs(inputs, thumbs),
        thumbnails=thumbs,
    )


def fig6(inputs: Inputs) -> bytes:
    """Original and generated images of tail classes, as PNG."""
    of_class = sections.originals(inputs.manifest, inputs.image_root)
    drawn = sections.generated(inputs.attempts)
    tail = [c for c in sections.classes_shown(inputs.classes) if c.label in drawn][: figures.FIG6_ROWS]
    count = figures.FIG6_IMAGES
    return figures.fig6(
        [
            (c, sections.spaced(of_class.get(c.label, []), count), sections.spaced(drawn[c.label], count))
            for c in tail
        ]
    )


def fig7(inputs: Inputs) -> bytes:
    """Drawings before and after refinement, as PNG."""
    return figures.fig7(sections.mended_chains(inputs.attempts, inputs.classes)[: figures.FIG7_COLUMNS])


def _pairs(inputs: Inputs, thumbs: Thumbnails) -> Sequence[tuple[Contamination, str | None, str | None]]:
    shown = inputs.contaminated[:CONTAMINATED_SHOWN]
    paths = {found.test for found in shown}
    test = {image.path: image_file(inputs.image_root, image) for image in inputs.manifest if image.path in paths}
    return [(found, thumbs.uri(found.image), thumbs.uri(test[found.test])) for found in shown]


def _asset(name: str) -> Markup:
    """A file of this package that goes into the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
