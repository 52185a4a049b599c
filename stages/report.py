"""Stage report: one self-contained HTML page of everything the pipeline found, and the paper's Fig. 6 and 7.

python -m stages.report
"""

import csv
from collections.abc import Iterator

from ltgc.data.roots import image_file, image_root
from ltgc.evaluation.comparison import control, read_results
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.asking import ASK, AskMetrics
from ltgc.pipeline.artifacts.dataset import CLASSES, FINDINGS, MANIFEST, ClassRecord, Finding, ImageRecord
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import (
    ATTEMPTS,
    CLASS_QUALITY,
    CONTAMINATED,
    Attempt,
    ClassQuality,
    Contamination,
)
from ltgc.pipeline.artifacts.results import COMPARE, COST, FIG6, FIG7, LOOPS, PAIRED, QUALITY, REPORT, SCORES_PLOT
from ltgc.pipeline.artifacts.runs import PREDICTIONS, Prediction
from ltgc.pipeline.by_class import ByClass
from ltgc.pipeline.terminal import console
from ltgc.report import answers, page, provenance, selection
from ltgc.report.inputs import Inputs


def main() -> None:
    section = params.load("data", "methods", "seeds")
    results = read_results(section.methods, section.seeds)
    comparison = files.read_json(COMPARE)
    root = image_root(section.data)
    contaminated = files.read_csv(CONTAMINATED, Contamination)
    near = {found.test for found in contaminated}
    inputs = Inputs(
        params=params.PARAMS.read_text(encoding="utf-8"),
        source=section.data.source,
        seeds=section.seeds,
        classes=files.read_csv(CLASSES, ClassRecord),
        photos=selection.originals(files.each_csv(MANIFEST, ImageRecord), root),
        findings=files.read_csv(FINDINGS, Finding),
        existing=ByClass(EXISTING, ExistingDescription),
        extended=ByClass(EXTENDED, ExtendedDescription),
        templates=files.read_jsonl(TEMPLATES, ClassTemplate),
        attempts=ByClass(ATTEMPTS, Attempt),
        comparison=comparison,
        paired=files.read_json(PAIRED),
        asked=files.read_record(ASK, AskMetrics),
        results=results,
        predictions={
            method: [files.read_csv(PREDICTIONS / method / f"{seed}.csv", Prediction) for seed in section.seeds]
            for method in answers.pair(comparison, control(comparison)) or ()
            if method in results.runs
        },
        loops=files.read_json(LOOPS),
        cost=files.read_json(COST),
        scores=score_rows(),
        quality=files.read_json(QUALITY),
        class_quality=files.read_jsonl(CLASS_QUALITY, ClassQuality),
        contaminated=contaminated,
        test_photos={i.path: image_file(root, i) for i in files.each_csv(MANIFEST, ImageRecord) if i.path in near},
        rerun=provenance.collect(),
    )
    html = page.page(inputs)
    files.write_bytes(FIG6, page.fig6(inputs))
    files.write_bytes(FIG7, page.fig7(inputs))
    files.write_text(REPORT, html)
    console.print(f"{REPORT}: {len(html.encode()) / 1e6:.1f} MB")


def score_rows() -> Iterator[dict[str, str]]:
    with SCORES_PLOT.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


if __name__ == "__main__":
    stage.run(main)
