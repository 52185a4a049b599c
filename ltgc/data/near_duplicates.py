"""Perceptual hashes, and images that are nearly the same in training and test."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = 64  # of a hash
CANDIDATES = 4_000_000  # pairs compared at once: 64 MB


def nearest_hashes(train: Sequence[int], test: Sequence[int], distance: int) -> list[tuple[int, int, int]]:
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


def perceptual_hash(image: Image.Image) -> int | None:
    """imagehash's DCT hash, 64 bits. None for one flat colour: all such images would have the same."""
    import imagehash  # brings scipy, which costs more than decoding a hundred photos

    low, high = image.convert("L").getextrema()
    if low == high:
        return None
    return int(str(imagehash.phash(image)), 16)
