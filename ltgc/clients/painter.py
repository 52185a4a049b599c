"""What every text-to-image model gives: a drawing, and the seed that it is drawn from (Eq. 1)."""

import hashlib
from dataclasses import dataclass

from ltgc.data import images

MAX_BYTES = 20_000_000
MIN_SIDE = 2  # pixels
FINAL = ("refused", "no_image", "too_long")  # verdicts on the prompt: asking again would not change them
UNUSABLE = "unusable_image: "


@dataclass(frozen=True)
class Drawing:
    """What the T2I model drew, or why there is no usable image."""

    seed: int
    image: bytes | None  # as it came
    reason: str | None = None
    refinable: bool = False  # another description may do better: the model refused this one, or drew no image
    prompt_tokens: int = 0  # that it was billed with; 0 for a price an image
    image_tokens: int = 0
    cut: bool = False  # the prompt was longer than the model reads, and so was not read to its end


def seed_of(seed: int | None, class_name: str, index: int, round: int) -> int:
    """The seed of one drawing, in [0, 2**31): t2i.seed, the class, its description and the refinement decide.

    The class's name and not its label: a class more in the data set leaves the others' images as they are.
    """
    text = f"{seed or 0}\n{index}\n{round}\n{class_name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) & 0x7FFF_FFFF


def usable(seed: int, data: bytes) -> Drawing:
    if len(data) > MAX_BYTES:
        return Drawing(seed, None, UNUSABLE + f"over {MAX_BYTES:,} bytes", refinable=True)
    try:
        image = images.decode(data)
    except images.BadImage as error:
        return Drawing(seed, None, UNUSABLE + str(error), refinable=True)
    if min(image.size) < MIN_SIDE:
        return Drawing(seed, None, UNUSABLE + f"{image.width} x {image.height} pixels", refinable=True)
    return Drawing(seed, data)
