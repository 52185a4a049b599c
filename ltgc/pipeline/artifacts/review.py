"""What a person decided (review.csv): versioned by git, written by `ltgc review` or by hand."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from ltgc.pipeline.files import Record

REVIEW = Path("review.csv")

Item = Literal["existing", "extended", "template", "drawing"]


class ReviewRow(Record):
    """One verdict of a person.

    which: of an existing description the ImageRecord.path of its photo; of an extended one its text; of a drawing
    the hash of its file (ltgc.data.images.content_hash); None of a template, as a class has one. What it names may
    have changed since: then the verdict applies to nothing.
    """

    item: Item
    class_name: str
    which: str | None
    verdict: Literal["accept", "reject", "reword"]
    text: str | None  # of "reword": the description or template to use, or what to draw next

    @property
    def key(self) -> tuple[Item, str, str | None]:
        return self.item, self.class_name, self.which

    @model_validator(mode="after")
    def _text_where_reworded(self) -> Self:
        if (self.verdict == "reword") != (self.text is not None):
            raise ValueError("verdict reword needs a text, and no other verdict has one")
        if (self.item == "template") != (self.which is None):
            raise ValueError("which is empty for a template, and for nothing else")
        return self
