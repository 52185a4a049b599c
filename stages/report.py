"""Stage report: one self-contained HTML page of everything the pipeline found.

python -m stages.report
"""

from ltgc import artifacts, compare, data, params, report, stage
from ltgc.artifacts import (
    Attempt,
    ClassRecord,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
    ImageRecord,
)


def main() -> None:
    section = params.load("data", "methods", "seeds")
    html = report.page(
        report.Inputs(
            params=params.PARAMS.read_text(encoding="utf-8"),
            source=section.data.source,
            seeds=section.seeds,
            image_root=data.image_root(section.data),
            classes=artifacts.read_csv(artifacts.CLASSES, ClassRecord),
            manifest=artifacts.read_csv(artifacts.MANIFEST, ImageRecord),
            existing=artifacts.read_jsonl(artifacts.EXISTING, ExistingDescription),
            extended=artifacts.read_jsonl(artifacts.EXTENDED, ExtendedDescription),
            templates=artifacts.read_jsonl(artifacts.TEMPLATES, ClassTemplate),
            attempts=artifacts.read_jsonl(artifacts.ATTEMPTS, Attempt),
            comparison=artifacts.read_json(artifacts.COMPARE),
            results=compare.read_results(section.methods, section.seeds),
            loops=artifacts.read_json(artifacts.LOOPS),
        )
    )
    artifacts.write_text(artifacts.REPORT, html)
    stage.console.print(f"{artifacts.REPORT}: {len(html.encode()) / 1e6:.1f} MB")


if __name__ == "__main__":
    stage.run(main)
