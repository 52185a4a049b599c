"""Stage report: one self-contained HTML page of everything the pipeline found, and the paper's Fig. 6 and 7.

python -m stages.report
"""

import csv

from ltgc import artifacts, compare, data, params, stage
from ltgc.artifacts import (
    AskMetrics,
    Attempt,
    ClassQuality,
    ClassRecord,
    ClassTemplate,
    Contamination,
    ExistingDescription,
    ExtendedDescription,
    Finding,
    ImageRecord,
    Prediction,
)
from ltgc.report import page, rerun
from ltgc.report.names import BASELINE, OURS


def main() -> None:
    section = params.load("data", "methods", "seeds")
    results = compare.read_results(section.methods, section.seeds)
    with artifacts.SCORES_PLOT.open(newline="", encoding="utf-8") as file:
        scores = list(csv.DictReader(file))
    inputs = page.Inputs(
        params=params.PARAMS.read_text(encoding="utf-8"),
        source=section.data.source,
        seeds=section.seeds,
        image_root=data.image_root(section.data),
        classes=artifacts.read_csv(artifacts.CLASSES, ClassRecord),
        manifest=artifacts.read_csv(artifacts.MANIFEST, ImageRecord),
        findings=artifacts.read_csv(artifacts.FINDINGS, Finding),
        existing=artifacts.read_jsonl(artifacts.EXISTING, ExistingDescription),
        extended=artifacts.read_jsonl(artifacts.EXTENDED, ExtendedDescription),
        templates=artifacts.read_jsonl(artifacts.TEMPLATES, ClassTemplate),
        attempts=artifacts.read_jsonl(artifacts.ATTEMPTS, Attempt),
        comparison=artifacts.read_json(artifacts.COMPARE),
        paired=artifacts.read_json(artifacts.PAIRED),
        asked=artifacts.read_record(artifacts.ASK, AskMetrics),
        results=results,
        predictions={
            method: [
                artifacts.read_csv(artifacts.PREDICTIONS / method / f"{seed}.csv", Prediction)
                for seed in section.seeds
            ]
            for method in (BASELINE, OURS)
            if method in results.runs
        },
        loops=artifacts.read_json(artifacts.LOOPS),
        cost=artifacts.read_json(artifacts.COST),
        scores=scores,
        quality=artifacts.read_json(artifacts.QUALITY),
        class_quality=artifacts.read_jsonl(artifacts.CLASS_QUALITY, ClassQuality),
        contaminated=artifacts.read_csv(artifacts.CONTAMINATED, Contamination),
        rerun=rerun.collect(),
    )
    html = page.page(inputs)
    artifacts.write_bytes(artifacts.FIG6, page.fig6(inputs))
    artifacts.write_bytes(artifacts.FIG7, page.fig7(inputs))
    artifacts.write_text(artifacts.REPORT, html)
    stage.console.print(f"{artifacts.REPORT}: {len(html.encode()) / 1e6:.1f} MB")


if __name__ == "__main__":
    stage.run(main)
