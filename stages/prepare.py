"""Stage prepare: read or make the data set, list its images and classes with their shot groups.

python -m stages.prepare
"""

from collections import Counter

from rich.markup import escape
from rich.table import Table

from ltgc.data import shards
from ltgc.data.dataset import Dataset, prepare_dataset
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.dataset import (
    CLASSES,
    FINDINGS,
    LICENSES,
    MADE_IMAGES,
    MANIFEST,
    SYNONYMS,
    ClassRecord,
    Finding,
    ImageRecord,
    PhotoLicense,
    Synonym,
)
from ltgc.pipeline.terminal import console

LISTED = 20  # bad and near-duplicate images that are named; all are in data/findings.csv
KINDS = {
    "bad": "bad images left out",
    "converted": "images converted (CMYK, more than 8 bits, more than one frame)",
    "near_duplicate": "test images nearly the same as a training image",
}


def main() -> None:
    dataset = prepare_dataset(params.load("data").data)
    shards.write(MADE_IMAGES, dataset.made_images.items())  # empty for images that stay where they are
    files.write_records_csv(MANIFEST, dataset.images, ImageRecord)
    files.write_records_csv(CLASSES, dataset.classes, ClassRecord)
    files.write_records_csv(FINDINGS, dataset.findings, Finding)
    files.write_records_csv(SYNONYMS, dataset.synonyms, Synonym)
    files.write_records_csv(LICENSES, dataset.licenses, PhotoLicense)
    console.print(table(dataset))
    named = [finding for finding in dataset.findings if finding.kind in ("bad", "near_duplicate")]
    for finding in named[:LISTED]:
        other = f": {finding.other}" if finding.other else ""
        console.print(f"  {escape(f'{finding.path}: {finding.reason}{other}')}", soft_wrap=True)
    if len(named) > LISTED:
        console.print(f"  and {len(named) - LISTED} more in {FINDINGS}")


def table(dataset: Dataset) -> Table:
    """Classes and images a shot group; findings by kind (skipped files by reason); classes without validation."""
    counts = Counter(
        f"{f.kind.replace('_', ' ')}, {f.reason}" if f.kind == "skipped" else KINDS[f.kind]
        for f in dataset.findings
    )
    notes = [f"{count:,} {what}" for what, count in sorted(counts.items())]
    if unvalidated := [c for c in dataset.classes if not c.val]:
        few = sum(c.shot == "few" for c in unvalidated)
        notes.append(
            f"no validation image of {len(unvalidated):,} classes, {few:,} of them few-shot: "
            "validation accuracy says nothing about them"
        )
    caption = "; ".join(notes)
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
