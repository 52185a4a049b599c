"""The truth about the embedded world, for tests and the quality report only: nothing that decides reads it."""

import io
import json

from PIL import Image

from embedded import field_guide, words
from embedded.wildflowers import Flower
from embedded.wildflowers.dataset import TRUTH


def flower(image: bytes) -> Flower | None:
    """What was drawn in an encoded image of the embedded world; None for any other image."""
    with Image.open(io.BytesIO(image)) as opened:
        chunk = opened.info.get(TRUTH)
    return Flower(**json.loads(chunk)) if chunk else None


def represents(image: bytes, class_name: str) -> bool | None:
    """Whether the drawing could be of the class: every feature is one that its species shows."""
    drawn = flower(image)
    kind = field_guide.species().get(class_name)
    return None if drawn is None or kind is None else kind.shows(drawn)


def describes(text: str, class_name: str) -> bool:
    """Whether the species could show every feature that the description names."""
    kind = field_guide.species().get(class_name)
    named = {axis: value for axis, value in words.read(text).items() if axis != "scene"}
    if named.get("form") != "open":
        named.pop("count", None)
    return kind is not None and all(value in kind.features[axis] for axis, value in named.items())


def repeats(existing: list[str], extended: list[str]) -> list[bool]:
    """For each extended description, whether an earlier one, existing or extended, says the same."""
    seen = {field_guide.key(text) for text in existing}
    result = []
    for text in extended:
        result.append(field_guide.key(text) in seen)
        seen.add(field_guide.key(text))
    return result
