"""One look at every image file: its content hash, whether it decodes, and what converting it loses."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

from PIL import Image
from rich.progress import track

from ltgc.data import images
from ltgc.data.near_duplicates import perceptual_hash
from ltgc.data.roots import image_root
from ltgc.pipeline.settings.data import DataSettings
from ltgc.pipeline.terminal import console

# Starting a worker costs about 0.3 s, decoding a small photo about 1 ms.
IMAGES_PER_WORKER = 300


class Inspection(NamedTuple):
    """What is known of one image file."""

    hash: str = ""  # content_hash of its bytes; empty where they cannot be read
    bad: str | None = None  # why it cannot be used
    converted: str | None = None  # what it was before it became 8-bit RGB, where something is lost
    perceptual_hash: int | None = None  # 64-bit; None: bad, of one flat colour, or not asked for


def inspect_images(data: DataSettings, paths: Sequence[str]) -> list[Inspection]:
    """Inspect the images at `paths` below the image root on all cores.

    With data.verify off their bytes are hashed and nothing more; data.near_duplicates asks for perceptual hashes.
    """
    inspect = partial(_inspect, data)
    workers = min(os.cpu_count() or 1, len(paths) // IMAGES_PER_WORKER)
    track_all = partial(track, description="checking images", total=len(paths), console=console, transient=True)
    if workers < 2:
        return list(track_all(map(inspect, paths)))
    # Not fork: the progress bar's thread may hold a lock at that moment.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(track_all(pool.map(inspect, paths, chunksize=32)))


def _inspect(settings: DataSettings, path: str) -> Inspection:
    try:
        data = images.read(f"{image_root(settings)}/{path}")
    except FileNotFoundError:
        return Inspection(bad="not there (a broken link?)")
    except images.BadImage as error:
        return Inspection(bad=str(error))
    except OSError as error:
        return Inspection(bad=f"cannot be read ({error.strerror})")
    hash = images.content_hash(data)
    if not settings.verify:
        return Inspection(hash)
    try:
        # The header alone; what is wrong with it is for images.decode to say.
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as header:
            if header.width * header.height > settings.max_pixels:
                limit = f"over the limit of {settings.max_pixels:,}"
                return Inspection(hash, bad=f"{header.width} x {header.height} pixels: {limit}")
            lost = _lost(header)
    except Exception:
        lost = None
    try:
        image = images.decode(data)
    except images.BadImage as error:
        return Inspection(hash, bad=str(error))
    hashed = None if settings.near_duplicates is None else perceptual_hash(image)
    return Inspection(hash, converted=lost, perceptual_hash=hashed)


def _lost(header: Image.Image) -> str | None:
    """What an image has that 8-bit RGB has not."""
    # Pillow opens 16-bit colour as 8-bit RGB; only its decoder's arguments tell.
    arguments = [str(tile.args) for tile in getattr(header, "tile", [])]
    deep = header.mode in ("I", "F") or any(";16" in text for text in (header.mode, *arguments))
    # A phone's MPO holds a preview or a depth map beside the photo: no second frame to speak of.
    frames = 1 if header.format == "MPO" else getattr(header, "n_frames", 1)
    facts = [
        "CMYK" if header.mode == "CMYK" else "",
        "more than 8 bits a channel" if deep else "",
        f"{frames} frames, the first is used" if frames > 1 else "",
    ]
    return ", ".join(filter(None, facts)) or None
