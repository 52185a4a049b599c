"""What a person decided of descriptions, templates and drawings (review.csv), as the stages honour it.

A verdict comes after the loop that made what it is about, so that it changes none of the loop's questions: a rerun
asks and draws only what follows from the verdict.
"""

from collections.abc import Sequence

from graphs.parse.reply import REASONS, Unusable
from graphs.parse.template_1 import Description, parse_description
from graphs.parse.template_2 import class_template, parse_features
from ltgc.data.images import content_hash
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.descriptions import ClassTemplate, ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.review import REVIEW, Item, ReviewRow
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.terminal import console


def load() -> "Review":
    """Raises LTGCError naming the file and the row that cannot be honoured."""
    return Review(files.read_csv(REVIEW, ReviewRow) if REVIEW.exists() else [])


class Review:
    """The verdicts, by what they are about."""

    def __init__(self, rows: Sequence[ReviewRow] = ()) -> None:
        self._rows: dict[tuple[Item, str, str | None], ReviewRow] = {}
        self._used: set[tuple[Item, str, str | None]] = set()
        for number, row in enumerate(rows, 1):
            if row.key in self._rows:
                raise LTGCError(
                    f"{REVIEW}, row {number}: a second verdict on the same {row.item} of the class "
                    f"{row.class_name!r}; keep one of them"
                )
            self._rows[row.key] = row
            try:
                check(row)
            except Unusable as unusable:
                raise LTGCError(f"{REVIEW}, row {number}: text: {remedy(row, unusable)}") from unusable

    def written(self, image: ImageRecord) -> ExistingDescription | None:
        """The description that a person gave of a photo; the vision model need not be asked."""
        row = self._find("existing", image.class_name, image.path)
        if row is None or row.text is None:
            return None
        found = parse_description(row.text, row.class_name)
        return ExistingDescription(
            label=image.label,
            class_name=image.class_name,
            image=image.path,
            description=found.text,
            features=found.features,
            scene=found.scene,
            kept=True,
            reason=None,
            replies=0,
        )

    def existing(self, record: ExistingDescription) -> ExistingDescription:
        """`record`, or what a rejection makes of it. Where the model said nothing there is nothing to accept."""
        row = self._find("existing", record.class_name, record.image)
        if row is None or row.verdict != "reject":
            return record
        return record.model_copy(update={"kept": False, "reason": "rejected_in_review"})

    def extended(self, records: Sequence[ExtendedDescription]) -> list[ExtendedDescription]:
        """`records`, which are whole lists of classes. Of two with the same text the verdict is on the first."""
        if not self._rows:  # 600,000 texts need not be compared
            return list(records)
        judged, seen = [], set()
        for record in records:
            again = (record.label, record.description) in seen
            seen.add((record.label, record.description))
            row = None if again else self._find("extended", record.class_name, record.description)
            judged.append(record if row is None else _extended(record, row))
        return judged

    def template(self, c: ClassRecord) -> ClassTemplate | None:
        """The template that a person wrote, or the class's name in place of one that was rejected."""
        row = self._find("template", c.name, None)
        if row is None or row.verdict == "accept":
            return None
        if row.text is None:
            return class_template(c, [], "rejected_in_review")
        return class_template(c, parse_features(row.text, c.name), None).model_copy(update={"source": "review"})

    def drawing(self, class_name: str, image: bytes) -> ReviewRow | None:
        """The verdict on a drawing."""
        return self._find("drawing", class_name, content_hash(image))

    def say_unused(self, item: Item) -> None:
        """Print how many verdicts found nothing that they are about; after a stage."""
        rows = [row for key, row in self._rows.items() if row.item == item and key not in self._used]
        if rows:
            classes = ", ".join(sorted({row.class_name for row in rows})[:3])
            console.print(f"{REVIEW}: {len(rows):,} on {item} apply to nothing that is here any more ({classes})")

    def _find(self, item: Item, class_name: str, which: str | None) -> ReviewRow | None:
        if row := self._rows.get((item, class_name, which)):
            self._used.add(row.key)
        return row


def check(row: ReviewRow) -> None:
    """Raises Unusable where the text of a row is not in the template."""
    if row.text is None:
        return
    if row.item == "template":
        parse_features(row.text, row.class_name)
    else:
        parse_description(row.text, row.class_name)


def remedy(row: ReviewRow, unusable: Unusable) -> str:
    """What is wrong with the text of a row, and what to write."""
    words = "with its features" if row.item == "template" else "then its features and the scene"
    begin = f"A photo of the class {row.class_name}"
    return f"{REASONS.get(unusable.reason, unusable.reason)}; begin with {begin!r}, {words}"


def reworded(row: ReviewRow) -> Description:
    """What a person wants drawn instead."""
    assert row.text is not None
    return parse_description(row.text, row.class_name)


def _extended(record: ExtendedDescription, row: ReviewRow) -> ExtendedDescription:
    if row.verdict == "reject":
        return record.model_copy(update={"kept": False, "reason": "rejected_in_review"})
    kept = {"kept": True, "reason": None}
    if row.verdict == "accept":
        return record.model_copy(update=kept)
    found = reworded(row)
    words = {"description": found.text, "features": found.features, "scene": found.scene}
    return record.model_copy(update=kept | words)
