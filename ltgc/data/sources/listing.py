"""What a data source lists, and the rules that all sources share: names of classes, splits and paths."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# How the folders of a download differ from those in the lists that circulate. Of each top folder of a list the
# first image is looked for; the first layout that finds it holds for all images below that folder.
LAYOUTS: dict[str, Callable[[Sequence[str]], Sequence[str]]] = {
    "as listed": lambda names: names,
    "without the first folder": lambda names: names[1:],  # data_256/a/x.jpg -> a/x.jpg
    "without the first two folders": lambda names: names[2:],
    "without class folders": lambda names: (names[0], names[-1]),  # val/n01440764/x.JPEG -> val/x.JPEG
}


class Sample(NamedTuple):
    """One image as a source lists it. A tuple, because there may be half a million."""

    path: str  # relative to the image root, with forward slashes
    label: int
    split: Split | None  # None: prepare splits it, by data.val_fraction and data.test_fraction
    license: str | None = None  # None: the source does not say


@dataclass(frozen=True)
class Listing:
    """What a source holds."""

    names: Sequence[str]  # of the classes, by label
    samples: list[Sample]
    contexts: Sequence[str | None] = ()  # the wider taxonomy of each class, by label; empty: there is none
    findings: list[Finding] = field(default_factory=list)
    encode: Callable[[str], bytes] | None = None  # path -> PNG, of a source whose images are no files yet


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
    first: dict[str, str] = {}
    for source, name in names.items():
        other = first.setdefault(name.casefold(), source)
        if other != source:
            raise LTGCError(
                f"data.root: {root} has two classes of one name, {name!r}: {other!r}, {source!r}; rename one"
            )


def clean_path(text: str, where: str) -> str:
    """A listed path below the image root: forward slashes, without a leading "/" or "./"."""
    path = text.replace("\\", "/").removeprefix("./").lstrip("/")
    if not path or (".." in path and ".." in path.split("/")):
        raise LTGCError(f"{where}: {text!r} is not a path below the image root; correct the line")
    return path


def locate(samples: list[Sample], root: Path, listed_in: Path) -> list[Sample]:
    """`samples` with paths as the folders below `root` really are (LAYOUTS). Looks for one image a top folder.

    Raises LTGCError where no image is found at all, and for a path that is listed twice.
    """
    first: dict[str, str] = {}  # top folder -> its first image
    for sample in samples:
        first.setdefault(_top_folder(sample.path), sample.path)
    layouts = {folder: layout for folder, path in first.items() if (layout := _layout(path, root))}
    if not layouts:
        path = next(iter(first.values()), "no image at all")
        raise LTGCError(
            f"{listed_in}: no listed image is below {root} ({path}); "
            "set data.images in params.yaml to the folder that the paths begin at"
        )
    # The images of a folder without a layout are reported one by one where they are read.
    moved = {folder: layout for folder, layout in layouts.items() if layout != "as listed"}
    for folder, layout in moved.items():
        console.print(f"{listed_in}: {folder}/...: images are found {layout}", markup=False, soft_wrap=True)
    if moved:
        samples = [sample._replace(path=_moved(sample.path, moved)) for sample in samples]
    _refuse_repeats((sample.path for sample in samples), listed_in)
    return samples


def _top_folder(path: str) -> str:
    return path.partition("/")[0]


def _layout(path: str, root: Path) -> str | None:
    """The first layout by which the listed image is below `root`."""
    names = path.split("/")
    return next((key for key, layout in LAYOUTS.items() if _is_file(root, layout(names))), None)


def _is_file(root: Path, names: Sequence[str]) -> bool:
    return bool(names) and root.joinpath(*names).is_file()


def _moved(path: str, layouts: Mapping[str, str]) -> str:
    layout = layouts.get(_top_folder(path))
    return path if layout is None else "/".join(LAYOUTS[layout](path.split("/")))


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
    listed: set[str] = set()
    for path in paths:
        if path in listed:
            raise LTGCError(f"{listed_in}: {path} is listed twice; an image has one class and one split")
        listed.add(path)
