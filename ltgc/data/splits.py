"""Splits, shot groups, and the long tail that can be cut out of a data set."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ltgc.data.sources.listing import Sample
from ltgc.pipeline.artifacts.dataset import ShotGroup, Split
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings


def shot_group(train: int) -> ShotGroup:
    """The shot group of a class of `train` training images: many > 100, medium 20-100, few < 20 (§4.1)."""
    return "many" if train > 100 else "medium" if train >= 20 else "few"


def long_tail_profile(head: int, ratio: float, classes: int) -> list[int]:
    """Images a class, largest class first: head * ratio^(-i / (classes - 1)), rounded down, at least 1.

    Rounding down is what CIFAR-LT does (500 -> 5 at ratio 100); the 1e-9 undoes float error at integers.
    """
    steps = max(classes - 1, 1)
    return [max(1, int(head * (1 / ratio) ** (i / steps) + 1e-9)) for i in range(classes)]


def cut_long_tail(
    samples: Sequence[Sample], names: Sequence[str], head: int, ratio: float, seed: int
) -> list[Sample]:
    """Subsample the training split to `long_tail_profile`, over the classes from largest to smallest.

    A class keeps at most what it has; validation and test are left alone. Classes of one size go by name, so
    the classes of CIFAR, all of one size, go in the alphabetical order of their labels, as in CIFAR-LT.
    """
    train: dict[int, list[str]] = defaultdict(list)
    for sample in samples:
        if sample.split == "train":
            train[sample.label].append(sample.path)
    by_size = sorted(train, key=lambda label: (-len(train[label]), names[label]))
    kept: set[str] = set()
    for label, count in zip(by_size, long_tail_profile(head, ratio, len(by_size)), strict=True):
        kept.update(shuffled(train[label], seed, "long tail")[:count])
    return [s for s in samples if s.split != "train" or s.path in kept]


def split_samples(samples: list[Sample], names: Sequence[str], data: DataSettings) -> list[Sample]:
    """Samples without a split get one, class by class: the fractions of data, at least one for test and train.

    Raises LTGCError for a class of a single image.
    """
    if all(sample.split for sample in samples):
        return samples
    paths: dict[int, list[str]] = defaultdict(list)
    for sample in samples:
        paths[sample.label].append(sample.path)
    split: dict[str, Split] = {}
    for label, of_class in paths.items():
        split |= _split_class(of_class, names[label], data)
    return [sample._replace(split=split[sample.path]) for sample in samples]


def _split_class(paths: Sequence[str], name: str, data: DataSettings) -> dict[str, Split]:
    if len(paths) == 1:
        raise LTGCError(f"class {name!r} has one image, {paths[0]}: not enough for training and test; add another")
    test = min(max(1, round(len(paths) * data.test_fraction)), max(1, len(paths) - 1))
    val = min(round(len(paths) * data.val_fraction), len(paths) - test - 1)
    in_order = shuffled(paths, data.seed, "split")
    return {
        path: "test" if rank < test else "val" if rank < test + val else "train"
        for rank, path in enumerate(in_order)
    }


def shuffled(paths: Iterable[str], seed: int, purpose: str) -> list[str]:
    """`paths` in an order that looks random but is each path's own: one more image moves no other."""
    return sorted(paths, key=lambda path: hashlib.sha256(f"{seed}/{purpose}/{path}".encode()).digest())
