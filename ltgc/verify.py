"""Looking at every image once: which do not decode, which are converted, which are nearly the same."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from ltgc import images
from ltgc.stage import console

# Starting a worker costs about 0.3 s, decoding a small photo about 1 ms.
IMAGES_PER_WORKER = 300
BITS = 64  # of a hash
CANDIDATES = 4_000_000  # pairs compared at once: 64 MB


class Look(NamedTuple):
    """What was seen of one image."""

    bad: str | None = None  # why it cannot be used
    converted: str | None = None  # what it was before it became 8-bit RGB, where something is lost
    hash: int | None = None  # 64-bit perceptual hash; None: bad, or one flat colour, or not asked for


def look_at(root: Path, paths: Sequence[str], max_pixels: int, hashed: bool) -> list[Look]:
    """Decode the images at `paths` below `root` on all cores."""
    workers = min(os.cpu_count() or 1, len(paths) // IMAGES_PER_WORKER)
    one = partial(_look, root, max_pixels, hashed)

    def collected(looks: Iterable[Look]) -> list[Look]:
        return list(track(looks, "checking images", len(paths), console=console, transient=True))

    if workers < 2:
        return collected(map(one, paths))
    # Not fork: the progress bar's thread may hold a lock at that moment.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return collected(pool.map(one, paths, chunksize=32))


def nearest(train: Sequence[int], test: Sequence[int], distance: int) -> list[tuple[int, int, int]]:
    """(test index, train index, Hamming distance) of each test hash that a training hash is near to.

    The nearest training hash, the first of equals. Hashes at most `distance` bits apart agree in at least one
    of `distance` + 1 parts of their bits (pigeonhole), so only those that share a part are compared: 24,000
    against 437,000 hashes take seconds, where all pairs would be 10 billion.
    """
    known, first = np.unique(np.array(train, np.uint64), return_index=True)
    asked, inverse = np.unique(np.array(test, np.uint64), return_inverse=True)
    near = [np.empty((3, 0), np.int64)]  # rows: index in asked, Hamming distance, index in train
    for part in _parts(distance + 1):
        order = np.argsort(known & part, kind="stable")
        keys = (known & part)[order]
        low = np.searchsorted(keys, asked & part, "left")
        counts = np.searchsorted(keys, asked & part, "right") - low
        ends = np.cumsum(counts)
        for start, stop in _blocks(ends):
            i = np.repeat(np.arange(start, stop), counts[start:stop])
            begins = (low + counts - ends)[i]  # so that a running number over all pairs counts from low
            j = order[begins + np.arange(len(i)) + (ends[start - 1] if start else 0)]
            bits = np.bitwise_count(asked[i] ^ known[j]).astype(np.int64)
            near.append(np.stack([i, bits, first[j]])[:, bits <= distance])
    i, bits, twin = np.concatenate(near, axis=1)
    ranked = np.lexsort((twin, bits, i))
    found, at = np.unique(i[ranked], return_index=True)
    best = {int(i): int(row) for i, row in zip(found, ranked[at], strict=True)}
    return [
        (place, int(twin[best[i]]), int(bits[best[i]])) for place, i in enumerate(inverse.tolist()) if i in best
    ]


def _parts(number: int) -> list[np.uint64]:
    """Masks that cut 64 bits into `number` parts."""
    edges = [BITS * i // number for i in range(number + 1)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]


def _blocks(ends: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of running totals `ends` that hold about CANDIDATES each."""
    start = 0
    while start < len(ends):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + CANDIDATES, "right")))
        yield start, stop
        start = stop


def _look(root: Path, max_pixels: int, hashed: bool, path: str) -> Look:
    try:
        data = (root / path).read_bytes()
    except FileNotFoundError:
        return Look("not there (a broken link?)")
    except OSError as error:
        return Look(f"cannot be read ({error.strerror})")
    try:
        # The header alone; what is wrong with it is for images.decode to say.
        with Image.open(io.BytesIO(data)) as header:
            pixels, mode = header.width * header.height, header.mode
            # Pillow opens 16-bit colour as 8-bit RGB; only its decoder's arguments tell.
            deep = mode in ("I", "F") or ";16" in mode or any(";16" in str(tile.args) for tile in header.tile)
            # A phone's MPO holds a preview or a depth map beside the photo: no second frame to speak of.
            frames = 1 if header.format == "MPO" else getattr(header, "n_frames", 1)
            if pixels > max_pixels:
                return Look(f"{header.width} x {header.height} pixels: over the limit of {max_pixels:,}")
    except Exception:
        mode, deep, frames = "", False, 1
    try:
        image = images.decode(data)
    except images.BadImage as error:
        return Look(str(error))
    facts = [
        "CMYK" if mode == "CMYK" else "",
        "more than 8 bits a channel" if deep else "",
        f"{frames} frames, the first is used" if frames > 1 else "",
    ]
    return Look(None, ", ".join(filter(None, facts)) or None, perceptual_hash(image) if hashed else None)


def perceptual_hash(image: Image.Image) -> int | None:
    """imagehash's DCT hash, 64 bits. None for one flat colour: all such images would have the same."""
    import imagehash  # brings scipy, which costs more than decoding a hundred photos

    low, high = image.convert("L").getextrema()
    if low == high:
        return None
    return int(str(imagehash.phash(image)), 16)
