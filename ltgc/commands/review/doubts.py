"""What a person should look at first: what is nearly a test image, what was refused, what scored closely."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ltgc.data import images
from ltgc.data.roots import image_file, image_root
from ltgc.evaluation.loop_metrics import refinement_chains
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.dataset import MANIFEST, ImageRecord
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, CONTAMINATED, Attempt, Contamination
from ltgc.pipeline.artifacts.review import Item, ReviewRow

AT_ONCE = 40  # of each group on the page; the next ones come when these are decided
OF_CLASS = 500  # of one class


class Doubt(NamedTuple):
    """Something to decide. The first three fields are ReviewRow's."""

    item: Item
    class_name: str
    which: str | None
    why: str
    text: str
    images: list[images.Reference]
    verdicts: tuple[str, ...] = ("accept", "reject", "reword")

    @property
    def key(self) -> tuple[Item, str, str | None]:
        return self.item, self.class_name, self.which


@dataclass(frozen=True)
class Made:
    """What the loops made."""

    existing: list[ExistingDescription]
    extended: list[ExtendedDescription]
    templates: list[ClassTemplate]
    attempts: list[Attempt]
    contaminated: list[Contamination]
    photos: dict[str, images.ImageFile]  # ImageRecord.path -> where it is
    hashes: dict[str, str] = field(default_factory=dict)  # Attempt.image -> its content hash, once it is known

    def hash(self, image: str) -> str:
        if image not in self.hashes:
            self.hashes[image] = images.content_hash(images.read(image))
        return self.hashes[image]


def read() -> Made:
    """Raises LTGCError for an artifact that is not there."""
    root = image_root(params.load("data").data)
    return Made(
        existing=files.read_jsonl(EXISTING, ExistingDescription),
        extended=files.read_jsonl(EXTENDED, ExtendedDescription),
        templates=files.read_jsonl(TEMPLATES, ClassTemplate),
        attempts=files.read_jsonl(ATTEMPTS, Attempt),
        contaminated=files.read_csv(CONTAMINATED, Contamination) if Path(CONTAMINATED).exists() else [],
        photos={image.path: image_file(root, image) for image in files.read_csv(MANIFEST, ImageRecord)},
    )


def groups(made: Made, decided: Iterable[ReviewRow]) -> dict[str, list[Doubt]]:
    """title -> what is not decided yet, the most doubtful first, at most AT_ONCE of each."""
    keys = {row.key for row in decided}
    found = {
        "Nearly a test image": _near_test_images(made),
        "Refused or failed": _failed(made),
        "Near the threshold": _near_threshold(made),
    }
    return {title: list(islice((d for d in of if d.key not in keys), AT_ONCE)) for title, of in found.items()}


def of_class(made: Made, class_name: str) -> list[Doubt]:
    """All of one class that can be decided, decided or not, at most OF_CLASS."""

    def every() -> Iterator[Doubt]:
        yield from (_template(t) for t in made.templates if t.class_name == class_name)
        yield from (_existing(made, d) for d in made.existing if d.class_name == class_name)
        yield from (_extended(d) for d in made.extended if d.class_name == class_name)
        yield from (_drawing(made, a) for a in made.attempts if a.class_name == class_name and a.image)

    return list(islice(every(), OF_CLASS))


def _near_test_images(made: Made) -> Iterator[Doubt]:
    attempts = {attempt.image: attempt for attempt in made.attempts}
    for found in sorted(made.contaminated, key=lambda c: (c.distance, -c.cosine)):
        if attempt := attempts.get(found.image):
            other = made.photos[found.test]
            why = f"{found.distance} of 64 bits differ from a test image of {found.test_class}, shown beside it"
            yield _drawing(made, attempt)._replace(why=why, images=[found.image, other])


def _failed(made: Made) -> Iterator[Doubt]:
    for template in made.templates:
        if template.source == "class_name" and template.reason != "asked_not_to":
            yield _template(template)
    for chain in refinement_chains(made.attempts):
        if chain[-1].verdict == "failed":
            first, last = chain[0], chain[-1]
            why = f"no drawing of this description: {_words(last.reason)}"
            yield Doubt("extended", first.class_name, first.prompt, why, first.prompt, [], ("reject", "reword"))
    yield from (_existing(made, d) for d in made.existing if not d.kept)


def _near_threshold(made: Made) -> Iterator[Doubt]:
    last = (chain[-1] for chain in refinement_chains(made.attempts))
    scored = [a for a in last if a.image and a.score is not None and a.threshold is not None]
    for attempt in sorted(scored, key=lambda a: abs((a.score or 0) - (a.threshold or 0))):
        yield _drawing(made, attempt)


def _existing(made: Made, d: ExistingDescription) -> Doubt:
    why = "what the vision model said of this photo" if d.kept else f"no description: {_words(d.reason)}"
    verdicts = ("accept", "reject", "reword") if d.description else ("reject", "reword")
    text = d.description or f"A photo of the class {d.class_name}, "
    return Doubt("existing", d.class_name, d.image, why, text, [made.photos[d.image]], verdicts)


def _extended(d: ExtendedDescription) -> Doubt:
    why = "the LLM added it" if d.kept else f"dropped: {_words(d.reason)}"
    return Doubt("extended", d.class_name, d.description, why, d.description, [])


def _template(t: ClassTemplate) -> Doubt:
    why = "class feature template"
    if t.source == "class_name":
        why = f"the class's name stands in for its template: {_words(t.reason)}"
    return Doubt("template", t.class_name, None, why, t.template, [])


def _drawing(made: Made, a: Attempt) -> Doubt:
    image = a.image or ""
    score = "" if a.score is None or a.threshold is None else f", {a.score:.3f} against {a.threshold:.3f}"
    unseen = [feature for feature, seen in (a.answers or {}).items() if not seen]
    why = f"{a.verdict}{score}" + (f"; not seen: {'; '.join(unseen)}" if unseen else "")
    return Doubt("drawing", a.class_name, made.hash(image), why, a.prompt, [image])


def _words(reason: str | None) -> str:
    return (reason or "unknown").replace("_", " ")
