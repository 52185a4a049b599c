"""Source folder: class folders below train/, val/ and test/, or directly below data.root and split by prepare."""

import os
from collections import defaultdict
from pathlib import Path

from ltgc.data.sources.listing import SPLITS, Listing, Sample, clean_name, refuse_same_names, utf8
from ltgc.pipeline.artifacts.dataset import Finding, Split
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings

# What cameras, downloads and data sets hold; other files in a class folder (notes, labels) are counted, not read.
IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)


def read(data: DataSettings) -> Listing:
    """Read the folders. Labels follow the order of the class names."""
    root = data.root
    splits = _split_folders(root)
    skipped: list[Finding] = []
    if len(splits) > 1:
        outside = sorted(set(root.iterdir()) - {folder for folder, _ in splits})
        skipped += [_skipped(entry, root, "outside train/, val/ and test/") for entry in outside]
    names: dict[str, str] = {}  # folder name -> class name
    found: dict[tuple[str, Split | None], list[str]] = {}
    for folder, split in splits:
        for class_folder in _class_folders(folder, root, skipped):
            names[class_folder.name] = clean_name(utf8(class_folder), str(class_folder))
            found[class_folder.name, split] = _image_files(class_folder, root, skipped)
    if not names:
        raise LTGCError(f"data.root: no class folder in {root}; put the images of each class in one")
    names = dict(sorted(names.items()))
    refuse_same_names(names, root)
    label = {name: i for i, name in enumerate(sorted(names.values()))}
    samples = [
        Sample(path, label[names[folder_name]], split)
        for (folder_name, split), paths in found.items()
        for path in paths
    ]
    return Listing(list(label), samples, findings=skipped)


def _split_folders(root: Path) -> list[tuple[Path, Split | None]]:
    """The folders of the splits; `root` itself, without a split, where it holds the class folders."""
    folders = [entry for entry in sorted(root.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    of_split: dict[Split, list[Path]] = defaultdict(list)
    for folder in folders:
        if split := SPLITS.get(folder.name.lower()):
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


def _class_folders(folder: Path, root: Path, skipped: list[Finding]) -> list[Path]:
    """The folders in `folder`, by name; what is not one goes to `skipped`."""
    class_folders = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            skipped.append(_skipped(entry, root, "hidden"))
        elif not entry.is_dir():
            skipped.append(_skipped(entry, root, "not in a class folder"))
        else:
            class_folders.append(entry)
    return class_folders


def _image_files(class_folder: Path, root: Path, skipped: list[Finding]) -> list[str]:
    """Paths (relative to `root`, sorted) of the images in and below `class_folder`; others go to `skipped`."""
    paths = []
    for parent, folders, files in os.walk(class_folder):
        hidden = [name for name in [*folders, *files] if name.startswith(".")]
        skipped += [_skipped(Path(parent, name), root, "hidden") for name in sorted(hidden)]
        folders[:] = sorted(set(folders) - set(hidden))
        links = [name for name in folders if Path(parent, name).is_symlink()]
        skipped += [_skipped(Path(parent, name), root, "a link to a folder") for name in links]
        for name in sorted(set(files) - set(hidden)):
            path = Path(parent, name)
            if path.is_fifo() or path.is_socket():
                skipped.append(_skipped(path, root, "not a file"))
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                paths.append(_relative(path, root))
            else:
                skipped.append(_skipped(path, root, "not an image file"))
    return sorted(paths)


def _skipped(path: Path, root: Path, reason: str) -> Finding:
    return Finding(kind="skipped", path=_relative(path, root), reason=reason)


def _relative(path: Path, root: Path) -> str:
    utf8(path)
    return path.relative_to(root).as_posix()
