"""What the trained model asks for (feedback/rivals.jsonl): versioned by git, written by `ltgc feedback`."""

from pathlib import Path

from pydantic import Field

from ltgc.pipeline.files import Record

RIVALS = Path("feedback/rivals.jsonl")


class Feedback(Record):
    """What one class gets in one round of feedback. A file without lines changes nothing."""

    round: int = Field(ge=1)
    class_name: str
    descriptions: int = Field(ge=1)  # that the language model is asked for, besides those of the rounds before
    rivals: list[
        str
    ]  # names of the classes that it is most confused with; none: the question does not speak of them
    # For the reader: how often it was taken for others, or others for it, by the model that wrote the round.
    need: float | None = None
