"""What a data source hands over, and the rules that all of them share: names of classes, splits and paths."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ltgc.pipeline.artifacts.dataset import Finding, Split
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.terminal import console

SPLITS: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}

# How the folders of a download differ from those in the lists that circulate: (what is done, how). Each first
# folder of a list is settled by its own first image; the first of these that finds it holds for all below it.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
LAYOUTS: tuple[tuple[str, Callable[[Sequence[str]], Sequence[str]]], ...] = (
    ("as listed", lambda parts: parts),
    ("without the first folder", lambda parts: parts[1:]),  # data_256/a/x.jpg -> a/x.jpg
    ("without the first two folders", lambda parts: parts[2:]),
    ("without class folders", lambda parts: (parts[0], parts[-1])),  # val/n01440764/x.JPEG -> val/x.JPEG
)


class Sample(NamedTuple):
    """One image as a source finds it. A tuple, because there may be half a million."""

    path: str  # relative to the image root, with forward slashes
    label: int
    split: Split | None  # None: prepare splits it, by data.val_fraction and data.test_fraction


@dataclass(frozen=True)
class Found:
    """What a source holds."""

    names: Sequence[str]  # of the classes, by label
    samples: list[Sample]
    contexts: Sequence[str | None] = ()  # the wider taxonomy of each class, by label; empty: there is none
    findings: list[Finding] = field(default_factory=list)
    draw: Callable[[Sequence[Sample]], None] | None = None  # puts the images of those that are kept in place


def clean_name(text: str, where: str) -> str:
    """What prompts call a class: single spaces for underscores, white space and control characters, in NFC."""
    name = " ".join(CONTROL.sub(" ", text.replace("_", " ")).split())
    if not name:
        raise LTGCError(f"{where}: {text!r} has no word in it and cannot name a class; rename it")
    return unicodedata.normalize("NFC", name)


def refuse_same_names(names: dict[str, str], root: Path) -> None:
    """CLIP's tokenizer lower-cases: classes that differ in case only have one and the same text.

    names: what the source calls a class (its folder, "label 7") -> its name.
    """
    seen: dict[str, str] = {}
    for source, name in names.items():
        twin = seen.setdefault(name.casefold(), source)
        if twin != source:
            raise LTGCError(
                f"data.root: {root} has two classes of one name, {name!r}: {twin!r}, {source!r}; rename one"
            )


def clean_path(text: str, where: str) -> str:
    """A listed path below the image root: forward slashes, without a leading "/" or "./"."""
    path = text.replace("\\", "/").removeprefix("./").lstrip("/")
    if not path or (".." in path and ".." in path.split("/")):
        raise LTGCError(f"{where}: {text!r} is not a path below the image root; mend the line")
    return path


def settle(samples: list[Sample], root: Path, listed_in: Path) -> list[Sample]:
    """`samples` with paths as the folders below `root` really are (LAYOUTS). Looks for one image a first folder.

    Raises LTGCError where nothing is found at all, and for a path that is listed twice.
    """
    first: dict[str, str] = {}
    for sample in samples:
        first.setdefault(sample.path.partition("/")[0], sample.path)
    moved = {}
    lost = 0
    for folder, path in first.items():
        parts = path.split("/")
        fits = [
            (what, layout)
            for what, layout in LAYOUTS
            if layout(parts) and (root / PurePosixPath(*layout(parts))).is_file()
        ]
        if not fits:
            lost += 1  # its images are reported one by one where they are read
        elif fits[0] != LAYOUTS[0]:
            what, moved[folder] = fits[0]
            console.print(f"{listed_in}: {folder}/...: images are found {what}", markup=False, soft_wrap=True)
    if lost == len(first):
        path = next(iter(first.values()), "no image at all")
        raise LTGCError(
            f"{listed_in}: no listed image is below {root} ({path}); "
            "set data.images in params.yaml to the folder that the paths begin at"
        )
    if moved:
        samples = [
            sample._replace(path="/".join(moved[folder](sample.path.split("/")))) if folder in moved else sample
            for sample in samples
            for folder in (sample.path.partition("/")[0],)
        ]
    _refuse_repeats((sample.path for sample in samples), listed_in)
    return samples


def utf8(path: Path) -> str:
    """The last component of `path`. Raises LTGCError where a part is not UTF-8: no artifact could hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise LTGCError(f"{os.fsencode(path)!r}: a name that is not UTF-8; rename it") from error
    return path.name


def read_text(path: Path, key: str) -> str:
    """A text file that `key` of params.yaml names. Raises LTGCError naming both."""
    try:
        return path.read_text(encoding="utf-8-sig")  # with the mark that Windows' editors put in front, or without
    except OSError as error:
        raise LTGCError(f"{key}: {path}: {error.strerror}; set it in params.yaml, below data.root") from error
    except UnicodeDecodeError as error:
        raise LTGCError(f"{key}: {path}: not UTF-8 text (byte {error.start})") from error


def _refuse_repeats(paths: Iterable[str], listed_in: Path) -> None:
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise LTGCError(f"{listed_in}: {path} is listed twice; an image has one class and one split")
        seen.add(path)
