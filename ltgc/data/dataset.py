"""The data set of a source: its images inspected, split, cut to a long tail, and counted."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ltgc.data.class_hints import hinted
from ltgc.data.images import content_hash
from ltgc.data.inspection import Inspection, inspect_images
from ltgc.data.near_duplicates import BITS, nearest_hashes
from ltgc.data.roots import image_root
from ltgc.data.sources import cifar, folder, inaturalist, lists, table, wildflowers
from ltgc.data.sources.listing import Listing, Sample
from ltgc.data.splits import cut_long_tail, shot_group, split_samples
from ltgc.data.synonyms import read_synonyms
from ltgc.pipeline.artifacts.dataset import (
    FINDINGS,
    ClassRecord,
    Finding,
    ImageRecord,
    PhotoLicense,
    Split,
    Synonym,
    class_slug,
)
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings

SOURCES: dict[str, Callable[[DataSettings], Listing]] = {
    "wildflowers": wildflowers.read,
    "folder": folder.read,
    "list": lists.read,
    "inaturalist": inaturalist.read,
    "csv": table.read,
    "cifar10": cifar.read,
    "cifar100": cifar.read,
}


@dataclass(frozen=True)
class Dataset:
    """What a source holds, ready to be written below data/."""

    images: list[ImageRecord]  # by label, split (train, val, test) and path
    classes: list[ClassRecord]  # by label
    findings: list[Finding]  # by kind and path
    synonyms: list[Synonym]  # in the order of their file
    licenses: list[PhotoLicense]  # by path; of the images whose source states one
    made_images: dict[str, bytes]  # ImageRecord.path -> PNG, in order; of a source that makes its own images


def prepare_dataset(data: DataSettings) -> Dataset:
    """Read the data source, inspect its images, split, cut the long tail that `data.long_tail` asks for, count.

    Raises LTGCError for a missing or empty root, a class without training or test image, two classes of
    the same name, and (with data.on_bad_image: error) an image that cannot be read.
    """
    if not data.root.is_dir():
        raise LTGCError(f"data.root: {data.root} is not a folder; set it to your images in params.yaml")
    listing = hinted(data, SOURCES[data.source](data))
    synonyms = read_synonyms(data.root)
    inspections: dict[str, Inspection] = {}
    samples, findings = listing.samples, list(listing.findings)
    if not listing.encode:
        inspections = _inspected(data, samples)
        findings += _image_findings(samples, listing.names, inspections)
        if data.on_bad_image == "error":
            _refuse_bad(findings, image_root(data))
        samples = [sample for sample in samples if not inspections[sample.path].bad]
    _refuse_empty(samples, listing.names, data.root)
    samples = split_samples(samples, listing.names, data)
    _refuse_gaps(samples, listing.names, data.root)
    if data.long_tail.head is not None:
        samples = cut_long_tail(samples, listing.names, data.long_tail.head, data.long_tail.ratio, data.seed)
    if data.near_duplicates is not None:
        findings += _near_duplicates(samples, listing.names, inspections, data.near_duplicates)
    made = {path: listing.encode(path) for path in sorted(s.path for s in samples)} if listing.encode else {}
    hashes = {path: inspection.hash for path, inspection in inspections.items()}
    hashes |= {path: content_hash(image) for path, image in made.items()}
    return Dataset(
        images=_images(samples, listing, hashes),
        classes=_classes(samples, listing),
        findings=_in_order(findings, samples),
        synonyms=synonyms,
        licenses=[PhotoLicense(path=s.path, license=s.license) for s in sorted(samples) if s.license],
        made_images=made,
    )


def _inspected(data: DataSettings, samples: Sequence[Sample]) -> dict[str, Inspection]:
    """path -> what is known of the image."""
    paths = [sample.path for sample in samples]
    return dict(zip(paths, inspect_images(data, paths), strict=True))


def _image_findings(
    samples: Sequence[Sample], names: Sequence[str], inspections: dict[str, Inspection]
) -> list[Finding]:
    """A finding for each bad or converted image."""
    findings = []
    for sample in samples:
        inspection = inspections[sample.path]
        if reason := inspection.bad or inspection.converted:
            kind: Literal["bad", "converted"] = "bad" if inspection.bad else "converted"
            findings.append(Finding(kind=kind, path=sample.path, reason=reason, class_name=names[sample.label]))
    return findings


def _refuse_bad(findings: Sequence[Finding], root: Path) -> None:
    bad = sorted((finding for finding in findings if finding.kind == "bad"), key=lambda finding: finding.path)
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise LTGCError(
            f"{root / bad[0].path}: {bad[0].reason}{more}; replace or remove it, or set data.on_bad_image: skip "
            f"in params.yaml: bad images are then left out and listed in {FINDINGS}"
        )


def _near_duplicates(
    samples: Sequence[Sample], names: Sequence[str], inspections: dict[str, Inspection], distance: int
) -> list[Finding]:
    """A finding for each test image whose perceptual hash is within `distance` bits of a training image's."""
    hashes = {path: hash for path, i in inspections.items() if (hash := i.perceptual_hash) is not None}
    train = [s for s in samples if s.split == "train" and s.path in hashes]
    test = [s for s in samples if s.split == "test" and s.path in hashes]
    pairs = nearest_hashes([hashes[s.path] for s in train], [hashes[s.path] for s in test], distance)
    return [
        Finding(
            kind="near_duplicate",
            path=test[i].path,
            reason=f"{bits} of {BITS} bits from a training image of the class {names[train[j].label]}",
            class_name=names[test[i].label],
            other=train[j].path,
        )
        for i, j, bits in pairs
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


def _images(samples: Sequence[Sample], listing: Listing, hashes: dict[str, str]) -> list[ImageRecord]:
    order = get_args(Split)
    return [
        ImageRecord.model_validate(
            {
                "path": s.path,
                "label": s.label,
                "class_name": listing.names[s.label],
                "split": s.split,
                "hash": hashes[s.path],
            }
        )
        for s in sorted(samples, key=lambda s: (s.label, order.index(s.split), s.path))
    ]


def _classes(samples: Sequence[Sample], listing: Listing) -> list[ClassRecord]:
    count = Counter((s.label, s.split) for s in samples)
    return [
        ClassRecord(
            label=label,
            name=name,
            slug=class_slug(label, name),
            train=count[label, "train"],
            val=count[label, "val"],
            test=count[label, "test"],
            shot=shot_group(count[label, "train"]),
            context=listing.contexts[label] if listing.contexts else None,
        )
        for label, name in enumerate(listing.names)
    ]


def _in_order(findings: Sequence[Finding], samples: Sequence[Sample]) -> list[Finding]:
    """By kind and path, each with the split that its image came into."""
    splits = {sample.path: sample.split for sample in samples} if findings else {}
    whole = [finding.model_copy(update={"split": splits.get(finding.path)}) for finding in findings]
    return sorted(whole, key=lambda finding: (finding.kind, finding.path))
