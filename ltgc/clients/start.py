"""The photo that a drawing starts from (image-to-image), and how far it may go from it."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ltgc.data import images
from ltgc.data.images import ImageFile


class Start(NamedTuple):
    """As in DA-Fusion (Trabucco et al., ICLR 2024, §4): a photo with as much noise as `strength` says, t_0."""

    path: str  # ImageRecord.path of the photo, one of the same class
    photo: ImageFile
    strength: float  # in (0, 1]: at 1 nothing is left of the photo


def start_of(index: int, photos: Sequence[tuple[str, ImageFile]], strengths: Sequence[float]) -> Start:
    """What drawing `index` (from 0) of a class starts from: the photos in turn, each time at another strength.

    photos: of the class, each with its ImageRecord.path.
    """
    turn, photo = divmod(index, len(photos))
    return Start(*photos[photo], strengths[(photo + turn) % len(strengths)])


def png(start: Start, size: str) -> bytes:
    """The photo as a PNG of `size`, "auto" or "64x64", cut to its shape around the centre. Raises LTGCError."""
    photo = images.required(start.photo)
    if size == "auto":
        photo.thumbnail((images.MAX_SIDE, images.MAX_SIDE))
    else:
        width, height = map(int, size.split("x"))
        photo = ImageOps.fit(photo, (width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    Image.fromarray(np.asarray(photo)).save(file, "PNG")  # without the file's metadata
    return file.getvalue()


def key(start: Start | None) -> list[object]:
    """What a drawing's key says of it; nothing where it starts from nothing."""
    return [] if start is None else ["start", start.photo.hash, start.strength]
