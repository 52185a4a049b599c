"""How good the generated set is: its diversity, its distance to the original images, and test images in it.

Test images are read here to find generated images that resemble them too much, and for nothing else: no training
image is ever chosen or judged by the test split.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ltgc.clip.encoder import Clip
from ltgc.data import images
from ltgc.data.near_duplicates import nearest_hashes, perceptual_hash
from ltgc.pipeline.artifacts.dataset import ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.drawings import ClassQuality, Contamination

Features = NDArray[np.float32]  # (N, D), rows of length 1

BATCH = 64  # images through CLIP at once
DECIMALS = 4
NO_FEATURES: Features = np.zeros((0, 1), np.float32)
# CMMD's own bandwidth and scale. Distances of unit vectors are at most 2, where its kernel is almost linear:
# it measures mostly how far apart the means are.
SIGMA, SCALE = 10.0, 1000.0


class EncodedImages(NamedTuple):
    """What CLIP and the perceptual hash make of some images."""

    features: Features
    hashes: list[int | None]  # 64-bit; None: one flat colour, or not asked for


def encode(files: Sequence[images.Reference], clip: Clip, hashed: bool = False) -> EncodedImages:
    """Features and, if `hashed`, perceptual hashes. Raises LTGCError as `images.required` does."""

    def prepared(file: images.Reference) -> tuple[torch.Tensor, int | None]:
        image = images.required(file)
        return clip.preprocess(image), perceptual_hash(image) if hashed else None

    features: list[Features] = []
    hashes: list[int | None] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), BATCH):
            pixels, batch_hashes = zip(*pool.map(prepared, files[start : start + BATCH]), strict=True)
            features.append(clip.image_features(torch.stack(pixels)).cpu().numpy())
            hashes += batch_hashes
    return EncodedImages(np.concatenate(features) if features else NO_FEATURES, hashes)


def hash_images(files: Sequence[images.Reference]) -> list[int | None]:
    """Perceptual hashes alone. Raises LTGCError as `images.required` does.

    By threads: each process would import torch again, 0.5 GB and six seconds for each core.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda file: perceptual_hash(images.required(file)), files))


def diversity(features: Features) -> float | None:
    """Mean cosine distance over all pairs of images, in [0, 2]. None of fewer than two."""
    n = len(features)
    if n < 2:
        return None
    total = features.astype(np.float64).sum(axis=0)  # |Σf|² is the sum over all pairs, n of them with itself
    return float(1 - (total @ total - n) / (n * (n - 1)))


def domain_gap(x: Features, y: Features) -> float | None:
    """CMMD: squared maximum mean discrepancy of two sets, × 1000. None where one has fewer than two images.

    Jayasumana et al., Rethinking FID (CVPR 2024): Gaussian kernel on CLIP features, the unbiased estimator, which
    may be a little below 0. The Fréchet distance needs a covariance of D × D from images that outnumber D; a tail
    class has four, and its features are no Gaussian.
    """
    if min(len(x), len(y)) < 2:
        return None

    def kernel(a: Features, b: Features) -> NDArray[np.float64]:
        return np.exp(-(1 - a.astype(np.float64) @ b.astype(np.float64).T) / SIGMA**2)  # |a - b|² = 2 - 2 a·b

    def within(a: Features) -> float:
        return (kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1))

    return float(SCALE * (within(x) + within(y) - 2 * kernel(x, y).mean()))


def class_quality(c: ClassRecord, original: Features, generated: Features, validation: Features) -> ClassQuality:
    """Of one class that has generated images."""
    return ClassQuality(
        label=c.label,
        class_name=c.name,
        original=len(original),
        generated=len(generated),
        diversity_original=_rounded(diversity(original)),
        diversity_generated=_rounded(diversity(generated)),
        gap_generated=_rounded(domain_gap(original, generated)),
        gap_validation=_rounded(domain_gap(original, validation)),
    )


class Drawing(NamedTuple):
    """An accepted one."""

    image: str  # Attempt.image
    label: int


def contaminated(
    drawings: Sequence[Drawing],
    names: Mapping[int, str],
    hashes: Sequence[int | None],
    test: Sequence[ImageRecord],
    test_hashes: Sequence[int | None],
    cosine: Callable[[int, int], float],
    *,
    distance: int,
    least_cosine: float,
) -> list[Contamination]:
    """The generated images whose nearest test image is within `distance` bits and looks the same to CLIP.

    names: of the classes, by label; hashes, test_hashes: the perceptual hash of each drawing and of each test
    image; cosine: of the CLIP features of drawings[i] and test[j], asked only for pairs whose hashes are near.
    Both are needed: a hash alone takes drawings of one layout for the same picture, CLIP alone any two good
    pictures of one class.
    """
    generated_known = [i for i, value in enumerate(hashes) if value is not None]
    test_known = [j for j, value in enumerate(test_hashes) if value is not None]
    pairs = nearest_hashes(
        [value for value in test_hashes if value is not None],
        [value for value in hashes if value is not None],
        distance,
    )
    contaminations = []
    for generated, nearest, bits in pairs:
        i, j = generated_known[generated], test_known[nearest]
        similarity = round(cosine(i, j), DECIMALS)
        if similarity >= least_cosine:
            contaminations.append(
                Contamination(
                    image=drawings[i].image,
                    label=drawings[i].label,
                    class_name=names[drawings[i].label],
                    test=test[j].path,
                    test_class=test[j].class_name,
                    distance=bits,
                    cosine=similarity,
                )
            )
    return contaminations


def summary(rows: Sequence[ClassQuality], contaminations: int, dropped: int) -> dict[str, Any]:
    """What metrics/quality.json holds: means over classes, each class counting once."""

    def mean(key: str) -> float | None:
        values = [value for row in rows if (value := getattr(row, key)) is not None]
        return round(sum(values) / len(values), DECIMALS) if values else None

    return {
        "classes": len(rows),
        "generated": sum(row.generated for row in rows),
        "diversity": {"original": mean("diversity_original"), "generated": mean("diversity_generated")},
        "gap": {"generated": mean("gap_generated"), "validation": mean("gap_validation")},
        "contaminated": {"found": contaminations, "dropped": dropped},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
