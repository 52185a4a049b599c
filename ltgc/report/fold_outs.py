"""The fold-out of each class: its images, its template, its descriptions and its refinements."""

import difflib
from collections.abc import Sequence
from typing import Any

from ltgc.pipeline.artifacts.drawings import Attempt
from ltgc.report.inputs import Made
from ltgc.report.selection import accepted, below_threshold, filled, rarest, refused, spaced
from ltgc.report.thumbnails import Thumbnails

# What one class shows at most, so that the page stays small: 1,000 classes with 300 texts each would be 45 MB.
ORIGINALS = 12
GENERATED = 24
GALLERY = 3  # drawings of a class in the gallery
CHAINS = 30  # refinements
DESCRIPTIONS = 100  # of each list


def fold_outs(inputs: Made, thumbnails: Thumbnails, budget: int) -> list[dict[str, Any]]:
    """Everything about each class that is shown; `budget` bytes of thumbnails are shared out evenly."""
    shown = rarest(filled(inputs))
    template = {t.label: t for t in inputs.templates}
    quality = {q.label: q for q in inputs.class_quality}
    entries = []
    for c in shown:
        thumbnails.allow(budget // len(shown))
        attempts = inputs.attempts.of(c.label)
        own, images, refined = inputs.photos.get(c.label, []), accepted(attempts), refused(attempts)
        entries.append(
            {
                "c": c,
                "template": template.get(c.label),
                "quality": quality.get(c.label),
                "originals": {
                    "total": len(own),
                    "shown": [thumbnails.uri(path) for path in spaced(own, ORIGINALS)],
                },
                "generated": {
                    "total": len(images),
                    "shown": [(thumbnails.uri(a.image or ""), a) for a in spaced(images, GENERATED)],
                },
                "existing": inputs.existing.of(c.label),
                "extended": sorted(inputs.extended.of(c.label), key=lambda e: e.index),
                "chains": {
                    "total": len(refined),
                    "mended": sum(chain[-1].verdict == "accepted" for chain in refined),
                    "shown": [_chain(chain, thumbnails) for chain in refined[:CHAINS]],
                },
            }
        )
    return entries


def gallery(inputs: Made, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """A photo and a few drawings of each class that has drawings, rarest first, as far as the thumbnails allow."""
    rows = []
    for c in sorted(inputs.classes, key=lambda c: (c.train, c.label)):
        if thumbnails.allowed <= 0:
            break
        if not (drawings := accepted(inputs.attempts.of(c.label))):
            continue
        photos = inputs.photos.get(c.label)
        rows.append(
            {
                "c": c,
                "photo": thumbnails.uri(photos[0]) if photos else None,
                "drawings": [(thumbnails.uri(a.image or ""), a) for a in spaced(drawings, GALLERY)],
            }
        )
    return rows


def _chain(chain: Sequence[Attempt], thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """Each attempt with its image, and the words that differ from the description it refines."""
    steps = []
    before: str | None = None
    for attempt in chain:
        uri = None if attempt.image is None else thumbnails.uri(attempt.image)
        text = new_words(before, attempt.prompt)
        steps.append({"a": attempt, "uri": uri, "below": below_threshold(attempt), "text": text})
        before = attempt.prompt
    return steps


def new_words(before: str | None, after: str) -> list[tuple[str, bool]]:
    """`after` in pieces, each with whether `before` lacks it; without a `before`, nothing counts as new."""
    if before is None:
        return [(after, False)]
    old, new = before.split(), after.split()
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    return [
        (" ".join(new[start:end]), tag != "equal")
        for tag, _, _, start, end in matcher.get_opcodes()
        if end > start
    ]
