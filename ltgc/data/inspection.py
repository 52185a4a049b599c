"""Looking at every image once: which do not decode, and which are converted."""

import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from rich.progress import track

from ltgc.data import images
from ltgc.data.near_duplicates import perceptual_hash
from ltgc.pipeline.terminal import console

# Starting a worker costs about 0.3 s, decoding a small photo about 1 ms.
IMAGES_PER_WORKER = 300


class Inspection(NamedTuple):
    """What was seen of one image."""

    bad: str | None = None  # why it cannot be used
    converted: str | None = None  # what it was before it became 8-bit RGB, where something is lost
    hash: int | None = None  # 64-bit perceptual hash; None: bad, or one flat colour, or not asked for


def inspect_images(root: Path, paths: Sequence[str], max_pixels: int, hashed: bool) -> list[Inspection]:
    """Decode the images at `paths` below `root` on all cores."""
    workers = min(os.cpu_count() or 1, len(paths) // IMAGES_PER_WORKER)
    one = partial(_inspect, root, max_pixels, hashed)

    def collected(looks: Iterable[Inspection]) -> list[Inspection]:
        return list(track(looks, "checking images", len(paths), console=console, transient=True))

    if workers < 2:
        return collected(map(one, paths))
    # Not fork: the progress bar's thread may hold a lock at that moment.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return collected(pool.map(one, paths, chunksize=32))


def _inspect(root: Path, max_pixels: int, hashed: bool, path: str) -> Inspection:
    if (root / path).is_fifo():
        return Inspection("not a file")  # reading it would wait for ever
    try:
        data = (root / path).read_bytes()
    except FileNotFoundError:
        return Inspection("not there (a broken link?)")
    except OSError as error:
        return Inspection(f"cannot be read ({error.strerror})")
    try:
        # The header alone; what is wrong with it is for images.decode to say.
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as header:
            pixels, mode = header.width * header.height, header.mode
            # Pillow opens 16-bit colour as 8-bit RGB; only its decoder's arguments tell.
            deep = mode in ("I", "F") or ";16" in mode or any(";16" in str(tile.args) for tile in header.tile)
            # A phone's MPO holds a preview or a depth map beside the photo: no second frame to speak of.
            frames = 1 if header.format == "MPO" else getattr(header, "n_frames", 1)
            if pixels > max_pixels:
                return Inspection(f"{header.width} x {header.height} pixels: over the limit of {max_pixels:,}")
    except Exception:
        mode, deep, frames = "", False, 1
    try:
        image = images.decode(data)
    except images.BadImage as error:
        return Inspection(str(error))
    facts = [
        "CMYK" if mode == "CMYK" else "",
        "more than 8 bits a channel" if deep else "",
        f"{frames} frames, the first is used" if frames > 1 else "",
    ]
    return Inspection(None, ", ".join(filter(None, facts)) or None, perceptual_hash(image) if hashed else None)
