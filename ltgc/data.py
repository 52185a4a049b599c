"""Data sources: where images, classes and splits come from, and how a long tail is cut out of them."""

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

from rich.progress import track

from ltgc import artifacts, images, params
from ltgc.artifacts import ClassRecord, ImageRecord, Shot, Split
from ltgc.errors import LTGCError
from ltgc.stage import console

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
# What cameras, downloads and data sets hold; other files in a class folder (notes, labels) are counted, not read.
IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)
# Starting a worker costs about 0.3 s, decoding a small photo about 1 ms.
IMAGES_PER_WORKER = 300


@dataclass(frozen=True)
class Skipped:
    """A file that is not part of the data set, and why."""

    path: str  # relative to data.root
    reason: str
    bad_image: bool = False  # an image, but not a usable one (data.on_bad_image: skip)


@dataclass(frozen=True)
class Sample:
    """One image as a source finds it."""

    path: str  # relative to the image root, with forward slashes
    class_name: str
    split: Split


@dataclass(frozen=True)
class Dataset:
    """What a source holds, ready to be written as data/manifest.csv and data/classes.csv."""

    images: list[ImageRecord]  # by label, split (train, val, test) and path
    classes: list[ClassRecord]  # by label; labels follow the order of the names
    skipped: list[Skipped]


def image_root(data: params.Data) -> Path:
    """The folder that ImageRecord.path is relative to. Needs data.source, data.root and data.images only."""
    return artifacts.DRAWN_IMAGES if data.source in DRAWN else data.images or data.root


def prepare(data: params.Data, drawn: Path = artifacts.DRAWN_IMAGES) -> Dataset:
    """Read the data source, cut the long tail that `data.long_tail` asks for, and count.

    drawn: an empty folder, into which sources that draw their images put them.
    Raises LTGCError for a missing or empty root, a class without training or test image, two classes of
    the same name, and (with data.on_bad_image: error) an image that cannot be read.
    """
    if not data.root.is_dir():
        raise LTGCError(f"data.root: {data.root} is not a folder; set it to your images in params.yaml")
    samples, skipped = SOURCES[data.source](data, drawn)
    _refuse_gaps(samples, data.root)
    if data.long_tail.head is not None:
        samples = cut_long_tail(samples, data.long_tail.head, data.long_tail.ratio, data.seed)
    return Dataset(*_records(samples), skipped)


def shot(train: int) -> Shot:
    """The shot group of a class of `train` training images: many > 100, medium 20-100, few < 20 (§4.1)."""
    return "many" if train > 100 else "medium" if train >= 20 else "few"


def long_tail_profile(head: int, ratio: float, classes: int) -> list[int]:
    """Images a class, largest class first: head * ratio^(-i / (classes - 1)), rounded down, at least 1.

    Rounding down is what CIFAR-LT does (500 -> 5 at ratio 100); the 1e-9 undoes float error at integers.
    """
    steps = max(classes - 1, 1)
    return [max(1, int(head * (1 / ratio) ** (i / steps) + 1e-9)) for i in range(classes)]


def cut_long_tail(samples: Sequence[Sample], head: int, ratio: float, seed: int) -> list[Sample]:
    """Subsample the training split to `long_tail_profile`, over the classes from largest to smallest.

    A class keeps at most what it has; validation and test are left alone. Classes of one size go by name.
    """
    train: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if sample.split == "train":
            train[sample.class_name].append(sample.path)
    by_size = sorted(train, key=lambda name: (-len(train[name]), name))
    kept: set[str] = set()
    for name, count in zip(by_size, long_tail_profile(head, ratio, len(by_size)), strict=True):
        kept.update(_shuffled(train[name], seed, "long tail")[:count])
    return [s for s in samples if s.split != "train" or s.path in kept]


# --- sources: (data, drawn) -> (samples, skipped files) -------------------------------------------------


def _wildflowers(data: params.Data, drawn: Path) -> tuple[list[Sample], list[Skipped]]:
    """The embedded data set, drawn below `drawn`."""
    try:
        wildflowers = import_module("embedded.wildflowers")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("embedded"):
            raise
        raise LTGCError(
            "data.source: wildflowers needs the folder embedded/, which is not here; "
            "set data.source: folder and data.root to your images in params.yaml"
        ) from error
    rows = wildflowers.prepare(data.root, drawn, data.seed)
    return [Sample(path, name, split) for path, name, split in rows], []


def _folder(data: params.Data, drawn: Path) -> tuple[list[Sample], list[Skipped]]:
    """Class folders below train/, val/ and test/, or directly below data.root and split here."""
    splits = _split_folders(data.root)
    skipped: list[Skipped] = []
    if len(splits) > 1:
        outside = sorted(set(data.root.iterdir()) - {folder for folder, _ in splits})
        skipped += [Skipped(_relative(entry, data.root), "outside train/, val/ and test/") for entry in outside]
    names: dict[str, str] = {}  # folder name -> class name
    found: dict[tuple[str, Split | None], list[str]] = {}
    for folder, split in splits:
        for class_folder in _class_folders(folder, data.root, skipped):
            names[class_folder.name] = class_name(class_folder)
            found[class_folder.name, split] = _image_files(class_folder, data.root, skipped)
    if not names:
        raise LTGCError(f"data.root: no class folder in {data.root}; put the images of each class in one")
    _refuse_same_names(names, data.root)
    bad = _bad_images(data.root, sorted(path for paths in found.values() for path in paths))
    if bad and data.on_bad_image == "error":
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise LTGCError(
            f"{data.root / bad[0].path}: {bad[0].reason}{more}; "
            "mend or remove it, or set data.on_bad_image: skip in params.yaml"
        )
    unusable = {file.path for file in bad}
    samples = []
    for (folder_name, split), paths in found.items():
        name = names[folder_name]
        good = [path for path in paths if path not in unusable]
        by_path = _split(good, name, data) if split is None else dict.fromkeys(good, split)
        samples += [Sample(path, name, split_of) for path, split_of in by_path.items()]
    without = set(names.values()) - {sample.class_name for sample in samples}
    if without:
        raise LTGCError(f"class {min(without)!r} in {data.root}: no image; add some or remove its folder")
    return samples, skipped + bad


SOURCES: dict[str, Callable[[params.Data, Path], tuple[list[Sample], list[Skipped]]]] = {
    "wildflowers": _wildflowers,
    "folder": _folder,
}
DRAWN = frozenset({"wildflowers"})  # sources whose images are made by prepare, not found at data.root


def class_name(folder: Path) -> str:
    """What prompts call the class of `folder`: its name, with single spaces for underscores and white space."""
    name = " ".join(_utf8(folder).replace("_", " ").split())
    if not name:
        raise LTGCError(f"{folder}: a folder name without a word in it cannot name a class; rename it")
    return unicodedata.normalize("NFC", name)


def _split_folders(root: Path) -> list[tuple[Path, Split | None]]:
    """The folders of the splits; `root` itself, without a split, where it holds the class folders."""
    folders = [entry for entry in sorted(root.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    of_split: dict[Split, list[Path]] = defaultdict(list)
    for folder in folders:
        if split := SPLIT_FOLDERS.get(folder.name.lower()):
            of_split[split].append(folder)
    others = len(folders) > sum(map(len, of_split.values()))
    if "train" not in of_split or (others and "test" not in of_split):
        return [(root, None)]  # a class may well be called "train", beside "bus"
    if "test" not in of_split:
        raise LTGCError(f"data.root: {root} has train/ but no test/; add it, or set data.root to {root}/train")
    for twins in of_split.values():
        if len(twins) > 1:
            both = " and ".join(folder.name for folder in twins)
            raise LTGCError(f"data.root: {root} has both {both}; keep one of them")
    return [(folder, split) for split, (folder,) in of_split.items()]


def _class_folders(folder: Path, root: Path, skipped: list[Skipped]) -> list[Path]:
    """The folders in `folder`, by name; what is not one goes to `skipped`."""
    class_folders = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            skipped.append(Skipped(_relative(entry, root), "hidden"))
        elif not entry.is_dir():
            skipped.append(Skipped(_relative(entry, root), "not in a class folder"))
        else:
            class_folders.append(entry)
    return class_folders


def _image_files(class_folder: Path, root: Path, skipped: list[Skipped]) -> list[str]:
    """Paths (relative to `root`, sorted) of the images in and below `class_folder`; others go to `skipped`."""
    paths = []
    for parent, folders, files in os.walk(class_folder):
        hidden = [name for name in [*folders, *files] if name.startswith(".")]
        skipped += [Skipped(_relative(Path(parent, name), root), "hidden") for name in sorted(hidden)]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(set(files) - set(hidden)):
            path = _relative(Path(parent, name), root)
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                paths.append(path)
            else:
                skipped.append(Skipped(path, "not an image file"))
    return sorted(paths)


def _relative(path: Path, root: Path) -> str:
    _utf8(path)
    return path.relative_to(root).as_posix()


def _utf8(path: Path) -> str:
    """The last component of `path`. Raises LTGCError where it is not UTF-8: no artifact could hold it."""
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise LTGCError(f"{os.fsencode(path)!r}: a file name that is not UTF-8; rename it") from error
    return path.name


def _bad_images(root: Path, paths: Sequence[str]) -> list[Skipped]:
    """Those of `paths` that do not decode, with the reason. Decodes on all cores."""
    workers = min(os.cpu_count() or 1, len(paths) // IMAGES_PER_WORKER)
    files = [root / path for path in paths]

    def checked(reasons: Iterable[str | None]) -> list[Skipped]:
        bar = track(reasons, "checking images", len(paths), console=console, transient=True)
        return [Skipped(path, reason, bad_image=True) for path, reason in zip(paths, bar, strict=True) if reason]

    if workers < 2:
        return checked(map(_fault, files))
    # Not fork: the progress bar's thread may hold a lock at that moment.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return checked(pool.map(_fault, files, chunksize=32))


def _fault(path: Path) -> str | None:
    """Why the image at `path` cannot be used, or None."""
    if not path.is_file():
        return "no regular file (a broken link?)"
    try:
        images.load(path)
    except images.BadImage as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


# --- splits and counts ----------------------------------------------------------------------------------


def _split(paths: Sequence[str], name: str, data: params.Data) -> dict[str, Split]:
    """The split of each image of one class: the fractions of data, but at least one for test and train.

    Raises LTGCError for a class of a single image.
    """
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


def _refuse_same_names(names: dict[str, str], root: Path) -> None:
    """CLIP's tokenizer lower-cases: classes that differ in case only have one and the same text."""
    seen: dict[str, str] = {}
    for folder, name in sorted(names.items()):
        twin = seen.setdefault(name.casefold(), folder)
        if twin != folder:
            raise LTGCError(f"data.root: {root} has two classes of one name: {twin!r}, {folder!r}; rename one")


def _refuse_gaps(samples: Sequence[Sample], root: Path) -> None:
    """Every class needs something to learn from and something to be tested on; val may be empty."""
    has = {(sample.class_name, sample.split) for sample in samples}
    for name in sorted({sample.class_name for sample in samples}):
        for split, word in (("train", "training"), ("test", "test")):
            if (name, split) not in has:
                raise LTGCError(f"class {name!r} in {root} has no {word} image; add one or remove the class")


def _records(samples: Sequence[Sample]) -> tuple[list[ImageRecord], list[ClassRecord]]:
    labels = {name: label for label, name in enumerate(sorted({s.class_name for s in samples}))}
    order = get_args(Split)
    manifest = [
        ImageRecord(path=s.path, label=labels[s.class_name], class_name=s.class_name, split=s.split)
        for s in sorted(samples, key=lambda s: (labels[s.class_name], order.index(s.split), s.path))
    ]
    count = Counter((image.label, image.split) for image in manifest)
    classes = [
        ClassRecord(
            label=label,
            name=name,
            slug=artifacts.slug(label, name),
            train=count[label, "train"],
            val=count[label, "val"],
            test=count[label, "test"],
            shot=shot(count[label, "train"]),
        )
        for name, label in labels.items()
    ]
    return manifest, classes
