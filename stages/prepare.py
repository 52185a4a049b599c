"""Stage prepare: read or draw the data set, list its images and classes with their shot groups.

python -m stages.prepare
"""

from collections import Counter

from rich.markup import escape
from rich.table import Table

from ltgc.data.dataset import Dataset, prepare_dataset
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.dataset import (
    CLASSES,
    DRAWN_IMAGES,
    FINDINGS,
    MANIFEST,
    ClassRecord,
    Finding,
    ImageRecord,
)
from ltgc.pipeline.terminal import console

LISTED = 20  # bad and near-duplicate images that are named; all are in data/findings.csv
KINDS = {
    "bad": "bad images left out",
    "converted": "images converted (CMYK, more than 8 bits, more than one frame)",
    "near_duplicate": "test images nearly the same as a training image",
}


def main() -> None:
    section = params.load("data").data

    # Drawn beside their place and then moved, so that an error leaves the last good set as it was.
    with files.replaced_folder(DRAWN_IMAGES) as drawn:
        dataset = prepare_dataset(section, drawn)  # stays empty where the source's images stay where they are

    files.write_records_csv(MANIFEST, dataset.images, ImageRecord)
    files.write_records_csv(CLASSES, dataset.classes, ClassRecord)
    files.write_records_csv(FINDINGS, dataset.findings, Finding)
    console.print(table(dataset))
    named = [finding for finding in dataset.findings if finding.kind in ("bad", "near_duplicate")]
    for finding in named[:LISTED]:
        twin = f": {finding.other}" if finding.other else ""
        console.print(f"  {escape(f'{finding.path}: {finding.reason}{twin}')}", soft_wrap=True)
    if len(named) > LISTED:
        console.print(f"  and {len(named) - LISTED} more in {FINDINGS}")


def table(dataset: Dataset) -> Table:
    """Classes and images a shot group, and how many findings there are, by kind (skipped files by reason)."""
    found = Counter(
        f"{f.kind.replace('_', ' ')}, {f.reason}" if f.kind == "skipped" else KINDS[f.kind]
        for f in dataset.findings
    )
    caption = "; ".join(f"{count:,} {what}" for what, count in sorted(found.items()))
    table = Table("", title="Data set", caption=escape(caption) or None)
    for heading in ("classes", "train", "val", "test", "train a class"):
        table.add_column(heading, justify="right")
    for shot in ("many", "medium", "few", "all"):
        group = [c for c in dataset.classes if shot in (c.shot, "all")]
        sizes = [c.train for c in group]
        totals = len(group), sum(sizes), sum(c.val for c in group), sum(c.test for c in group)
        spread = f"{min(sizes)}-{max(sizes)}" if sizes else ""
        table.add_row(shot, *map(str, totals), spread, end_section=shot == "few")
    return table


if __name__ == "__main__":
    stage.run(main)
