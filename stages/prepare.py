"""Stage prepare: read or draw the data set, list its images and classes with their shot groups.

python -m stages.prepare
"""

import shutil
from collections import Counter

from rich.markup import escape
from rich.table import Table

from ltgc import artifacts, data, params, stage
from ltgc.artifacts import ClassRecord, ImageRecord

LISTED = 20  # unusable images that are named; the rest is counted


def main() -> None:
    section = params.load("data").data

    # Drawn beside their place and then moved, so that an error leaves the last good set as it was.
    drawn = artifacts.DRAWN_IMAGES.with_name(".images.part")
    shutil.rmtree(drawn, ignore_errors=True)
    drawn.mkdir(parents=True)
    try:
        dataset = data.prepare(section, drawn)
        shutil.rmtree(artifacts.DRAWN_IMAGES, ignore_errors=True)
        drawn.rename(artifacts.DRAWN_IMAGES)  # empty where the source's images stay where they are
    finally:
        shutil.rmtree(drawn, ignore_errors=True)

    artifacts.write_records_csv(artifacts.MANIFEST, dataset.images, ImageRecord)
    artifacts.write_records_csv(artifacts.CLASSES, dataset.classes, ClassRecord)
    stage.console.print(table(dataset))
    for file in [file for file in dataset.skipped if file.bad_image][:LISTED]:
        stage.console.print(f"  {escape(str(section.root / file.path))}: {escape(file.reason)}", soft_wrap=True)


def table(dataset: data.Dataset) -> Table:
    """Classes and images a shot group, and how many files were left out, by reason."""
    skipped = Counter(file.reason for file in dataset.skipped)
    caption = "skipped: " + ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
    table = Table("", title="Data set", caption=escape(caption) if skipped else None)
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
