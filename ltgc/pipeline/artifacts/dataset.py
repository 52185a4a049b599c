"""The data set as prepare lists it: images, classes, findings, and other names of the classes."""

import re
import unicodedata
from pathlib import Path
from typing import Literal

from ltgc.pipeline.files import Record

# Paths, relative to the repository root. dvc.yaml names the same ones; a test holds the two together.
MADE_IMAGES = Path("data/images.tar")  # images of the sources that make their own; empty for the others
MANIFEST = Path("data/manifest.csv")
CLASSES = Path("data/classes.csv")
FINDINGS = Path("data/findings.csv")
SYNONYMS = Path("data/synonyms.csv")
LICENSES = Path("data/licenses.csv")

Split = Literal["train", "val", "test"]
ShotGroup = Literal["many", "medium", "few"]


class ImageRecord(Record):
    """One image of the data set (data/manifest.csv)."""

    path: str  # relative to the image root (ltgc.data.roots.image_root)
    label: int  # 0-based, the row of the class in data/classes.csv
    class_name: str
    split: Split
    hash: str  # of the bytes of its file (ltgc.data.images.content_hash)


class ClassRecord(Record):
    """One class (data/classes.csv). Shot groups by M_y: many > 100, medium 20-100, few < 20 (§4.1)."""

    label: int
    name: str  # what prompts and reports say; untrusted text, never a path
    slug: str  # what paths say
    train: int  # M_y, the number of training images
    val: int
    test: int
    shot: ShotGroup
    context: str | None = None  # the wider taxonomy, for prompts: "Plantae > ... > Asteraceae"; untrusted text


class Synonym(Record):
    """Another name of a class (data/synonyms.csv), by which a model may call it."""

    class_name: str
    synonym: str


class PhotoLicense(Record):
    """The licence of one image, where the source states it (data/licenses.csv); for the cards of exports."""

    path: str  # ImageRecord.path
    license: str  # in the source's words; untrusted text


class Finding(Record):
    """What prepare noticed about one file (data/findings.csv).

    kind: "bad" (an image that cannot be used: left out), "converted" (used, but something of it is lost: CMYK,
    more than 8 bits, more than one frame), "near_duplicate" (a test image that nearly is a training image),
    "skipped" (no image of the data set: hidden, or another kind of file).
    """

    kind: Literal["bad", "converted", "near_duplicate", "skipped"]
    path: str  # relative to the image root, like ImageRecord.path
    reason: str
    split: Split | None = None  # None: of no split, or left out before the images were split
    class_name: str | None = None
    other: str | None = None  # of a near duplicate: the path of the training image that it nearly is


def class_slug(label: int, name: str) -> str:
    """A path component for a class: its label, then what ASCII letters and digits its name has.

    The label makes it unique; the name only makes it readable, so any name is safe ("/", "..", emoji).
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")
    return f"{label:04d}-{words[:40].rstrip('-')}".rstrip("-")
