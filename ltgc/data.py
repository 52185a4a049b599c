"""Data sources: where images, classes and splits come from, and how a long tail is cut out of them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ltgc import artifacts, params, verify
from ltgc.artifacts import ClassRecord, Finding, ImageRecord, Shot, Split
from ltgc.errors import LTGCError
from ltgc.sources import cifar, folder, inaturalist, lists, table, wildflowers
from ltgc.sources.found import Found, Sample

# (the section, an empty folder for images that are drawn) -> what the source holds
SOURCES: dict[str, Callable[[params.Data, Path], Found]] = {
    "wildflowers": wildflowers.find,
    "folder": folder.find,
    "list": lists.find,
    "inaturalist": inaturalist.find,
    "csv": table.find,
    "cifar10": cifar.find,
    "cifar100": cifar.find,
}
DRAWN = frozenset({"wildflowers", "cifar10", "cifar100"})  # their images are made by prepare, not found


@dataclass(frozen=True)
class Dataset:
    """What a source holds, ready to be written below data/."""

    images: list[ImageRecord]  # by label, split (train, val, test) and path
    classes: list[ClassRecord]  # by label
    findings: list[Finding]  # by kind and path


def image_root(data: params.Data) -> Path:
    """The folder that ImageRecord.path is relative to. Needs data.source, data.root and data.images only."""
    return artifacts.DRAWN_IMAGES if data.source in DRAWN else data.images or data.root


def prepare(data: params.Data, drawn: Path = artifacts.DRAWN_IMAGES) -> Dataset:
    """Read the data source, look at its images, split, cut the long tail that `data.long_tail` asks for, count.

    drawn: an empty folder, into which sources that draw their images put them.
    Raises LTGCError for a missing or empty root, a class without training or test image, two classes of
    the same name, and (with data.on_bad_image: error) an image that cannot be read.
    """
    if not data.root.is_dir():
        raise LTGCError(f"data.root: {data.root} is not a folder; set it to your images in params.yaml")
    found = SOURCES[data.source](data, drawn)
    samples, findings = found.samples, list(found.findings)
    hashes: dict[str, int] = {}
    if data.verify and data.source not in DRAWN:
        samples, seen, hashes = _verified(data, found)
        findings += seen
    _refuse_empty(samples, found.names, data.root)
    samples = _split(samples, found.names, data)
    _refuse_gaps(samples, found.names, data.root)
    if data.long_tail.head is not None:
        samples = cut_long_tail(samples, found.names, data.long_tail.head, data.long_tail.ratio, data.seed)
    if found.draw:
        found.draw(samples)
    if data.near_duplicates is not None:
        findings += _near_duplicates(samples, found.names, hashes, data.near_duplicates)
    splits = {sample.path: sample.split for sample in samples} if findings else {}
    findings = [finding.model_copy(update={"split": splits.get(finding.path)}) for finding in findings]
    findings.sort(key=lambda finding: (finding.kind, finding.path))
    return Dataset(*_records(samples, found), findings)


def shot(train: int) -> Shot:
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
        kept.update(_shuffled(train[label], seed, "long tail")[:count])
    return [s for s in samples if s.split != "train" or s.path in kept]


# --- looking at images ----------------------------------------------------------------------------------


def _verified(data: params.Data, found: Found) -> tuple[list[Sample], list[Finding], dict[str, int]]:
    """The usable samples, what was found out about them and the others, and the hashes of the usable ones."""
    root = image_root(data)
    looks = verify.look_at(
        root, [s.path for s in found.samples], data.max_pixels, hashed=data.near_duplicates is not None
    )
    findings = [
        Finding(
            kind="bad" if look.bad else "converted",
            path=sample.path,
            reason=look.bad or look.converted or "",
            class_name=found.names[sample.label],
        )
        for sample, look in zip(found.samples, looks, strict=True)
        if look.bad or look.converted
    ]
    bad = sorted(finding.path for finding in findings if finding.kind == "bad")
    if bad and data.on_bad_image == "error":
        reason = next(finding.reason for finding in findings if finding.path == bad[0])
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise LTGCError(
            f"{root / bad[0]}: {reason}{more}; mend or remove it, or set data.on_bad_image: skip in params.yaml: "
            f"bad images are then left out and listed in {artifacts.FINDINGS}"
        )
    usable = [(s, look) for s, look in zip(found.samples, looks, strict=True) if not look.bad]
    hashes = {sample.path: look.hash for sample, look in usable if look.hash is not None}
    return [sample for sample, _ in usable], findings, hashes


def _near_duplicates(
    samples: Sequence[Sample], names: Sequence[str], hashes: dict[str, int], distance: int
) -> list[Finding]:
    """A finding for each test image whose hash is within `distance` bits of a training image's."""
    train = [s for s in samples if s.split == "train" and s.path in hashes]
    test = [s for s in samples if s.split == "test" and s.path in hashes]
    twins = verify.nearest([hashes[s.path] for s in train], [hashes[s.path] for s in test], distance)
    return [
        Finding(
            kind="near_duplicate",
            path=test[i].path,
            reason=f"{bits} of {verify.BITS} bits from a training image of the class {names[train[j].label]}",
            class_name=names[test[i].label],
            other=train[j].path,
        )
        for i, j, bits in twins
    ]


# --- splits and counts ----------------------------------------------------------------------------------


def _split(samples: list[Sample], names: Sequence[str], data: params.Data) -> list[Sample]:
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


def _split_class(paths: Sequence[str], name: str, data: params.Data) -> dict[str, Split]:
    if len(paths) == 1:
        raise LTGCError(f"class {name!r} has one image, {paths[0]}: not enough for training and test; add another")
    test = min(max(1, round(len(paths) * data.test_fraction)), max(1, len(paths) - 1))
    val = min(round(len(paths) * data.val_fraction), len(paths) - test - 1)
    shuffled = _shuffled(paths, data.seed, "split")
    return {
        path: "test" if rank < test else "val" if rank < test + val else "train"
        for rank, path in enumerate(shuffled)
    }


def _shuffled(paths: Iterable[str], seed: int, purpose: str) -> list[str]:
    """`paths` in an order that looks random but is each path's own: one more image moves no other."""
    return sorted(paths, key=lambda path: hashlib.sha256(f"{seed}/{purpose}/{path}".encode()).digest())


def _refuse_empty(samples: Sequence[Sample], names: Sequence[str], root: Path) -> None:
    if without := set(range(len(names))) - {sample.label for sample in samples}:
        raise LTGCError(f"class {names[min(without)]!r} in {root}: no image; add some or remove the class")


def _refuse_gaps(samples: Sequence[Sample], names: Sequence[str], root: Path) -> None:
    """Every class needs something to learn from and something to be tested on; val may be empty."""
    has = {(sample.label, sample.split) for sample in samples}
    for label, name in enumerate(names):
        for split, word in (("train", "training"), ("test", "test")):
            if (label, split) not in has:
                raise LTGCError(f"class {name!r} in {root} has no {word} image; add one or remove the class")


def _records(samples: Sequence[Sample], found: Found) -> tuple[list[ImageRecord], list[ClassRecord]]:
    order = get_args(Split)
    manifest = [
        ImageRecord.model_validate({**s._asdict(), "class_name": found.names[s.label]})
        for s in sorted(samples, key=lambda s: (s.label, order.index(s.split), s.path))
    ]
    count = Counter((s.label, s.split) for s in samples)
    classes = [
        ClassRecord(
            label=label,
            name=name,
            slug=artifacts.slug(label, name),
            train=count[label, "train"],
            val=count[label, "val"],
            test=count[label, "test"],
            shot=shot(count[label, "train"]),
            context=found.contexts[label] if found.contexts else None,
        )
        for label, name in enumerate(found.names)
    ]
    return manifest, classes
