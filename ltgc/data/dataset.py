"""The data set that a source gives: images looked at, split, cut to a long tail, counted."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ltgc.data.class_hints import hinted
from ltgc.data.inspection import inspect_images
from ltgc.data.near_duplicates import BITS, nearest_hashes
from ltgc.data.roots import DRAWN, image_root
from ltgc.data.sources import cifar, folder, inaturalist, lists, table, wildflowers
from ltgc.data.sources.found import Found, Sample
from ltgc.data.splits import cut_long_tail, shot_group, split_samples
from ltgc.pipeline.artifacts.dataset import (
    DRAWN_IMAGES,
    FINDINGS,
    ClassRecord,
    Finding,
    ImageRecord,
    Split,
    class_slug,
)
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings

# (the section, an empty folder for images that are drawn) -> what the source holds
SOURCES: dict[str, Callable[[DataSettings, Path], Found]] = {
    "wildflowers": wildflowers.find,
    "folder": folder.find,
    "list": lists.find,
    "inaturalist": inaturalist.find,
    "csv": table.find,
    "cifar10": cifar.find,
    "cifar100": cifar.find,
}


@dataclass(frozen=True)
class Dataset:
    """What a source holds, ready to be written below data/."""

    images: list[ImageRecord]  # by label, split (train, val, test) and path
    classes: list[ClassRecord]  # by label
    findings: list[Finding]  # by kind and path


def prepare_dataset(data: DataSettings, drawn: Path = DRAWN_IMAGES) -> Dataset:
    """Read the data source, look at its images, split, cut the long tail that `data.long_tail` asks for, count.

    drawn: an empty folder, into which sources that draw their images put them.
    Raises LTGCError for a missing or empty root, a class without training or test image, two classes of
    the same name, and (with data.on_bad_image: error) an image that cannot be read.
    """
    if not data.root.is_dir():
        raise LTGCError(f"data.root: {data.root} is not a folder; set it to your images in params.yaml")
    found = hinted(data, SOURCES[data.source](data, drawn))
    samples, findings = found.samples, list(found.findings)
    hashes: dict[str, int] = {}
    if data.verify and data.source not in DRAWN:
        samples, seen, hashes = _verified(data, found)
        findings += seen
    _refuse_empty(samples, found.names, data.root)
    samples = split_samples(samples, found.names, data)
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


def _verified(data: DataSettings, found: Found) -> tuple[list[Sample], list[Finding], dict[str, int]]:
    """The usable samples, what was found out about them and the others, and the hashes of the usable ones."""
    root = image_root(data)
    looks = inspect_images(
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
            f"bad images are then left out and listed in {FINDINGS}"
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
    twins = nearest_hashes([hashes[s.path] for s in train], [hashes[s.path] for s in test], distance)
    return [
        Finding(
            kind="near_duplicate",
            path=test[i].path,
            reason=f"{bits} of {BITS} bits from a training image of the class {names[train[j].label]}",
            class_name=names[test[i].label],
            other=train[j].path,
        )
        for i, j, bits in twins
    ]


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
            slug=class_slug(label, name),
            train=count[label, "train"],
            val=count[label, "val"],
            test=count[label, "test"],
            shot=shot_group(count[label, "train"]),
            context=found.contexts[label] if found.contexts else None,
        )
        for label, name in enumerate(found.names)
    ]
    return manifest, classes
