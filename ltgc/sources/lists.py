"""Source list: the text lists that the field uses, `path label` a line, and a file of class names."""

import re
from collections.abc import Sequence
from pathlib import Path

from ltgc import params
from ltgc.artifacts import Split
from ltgc.errors import LTGCError
from ltgc.sources.found import Found, Sample, clean_name, clean_path, read_text, refuse_same_names, settle

# The first word of a line that is no name: a WordNet id (n01440764) or the label itself.
KEY = re.compile(r"n\d{8}|\d+")


def find(data: params.Data, drawn: Path) -> Found:
    """Read data.files and data.class_names. Labels are those of the lists.

    Raises LTGCError naming file and line of what is no list, and the line of class names that are in another
    order than the lists' labels.
    """
    lines = [sample for split, file in files(data) for sample in read_list(data.root / file, split)]
    names = read_names(data.root, data.class_names, lines)
    check_labels(lines, len(names), data.root)
    refuse_same_names({f"label {label}": name for label, name in enumerate(names)}, data.root)
    return Found(names, settle(lines, data.images or data.root, data.root / str(data.files.train)))


def files(data: params.Data) -> list[tuple[Split | None, str]]:
    """The files of the splits; where only data.files.train is set, prepare splits it."""
    if data.files.train is None:
        raise LTGCError(f"data.files.train: not set; data.source: {data.source} needs it, below data.root")
    if data.files.test is None and data.files.val is not None:
        raise LTGCError("data.files.test: not set, but data.files.val is; set both, or neither to split off train")
    if data.files.test is None:
        return [(None, data.files.train)]
    splits: tuple[tuple[Split, str | None], ...] = (
        ("train", data.files.train),
        ("val", data.files.val),
        ("test", data.files.test),
    )
    return [(split, file) for split, file in splits if file is not None]


def read_list(path: Path, split: Split | None) -> list[Sample]:
    """The lines of one list. The last word is the label, so a path may hold spaces."""
    samples = []
    for number, line in enumerate(read_text(path, "data.files").split("\n"), 1):
        if not line or line.isspace():
            continue
        try:
            file, label = line.rsplit(None, 1)
            samples.append(Sample(clean_path(file.strip(), f"{path}, line {number}"), int(label), split))
        except ValueError as error:
            raise LTGCError(f"{path}, line {number}: {line[:80]!r} is not `path label`") from error
    return samples


def check_labels(samples: Sequence[Sample], classes: int, root: Path) -> None:
    for sample in samples:
        if not 0 <= sample.label < classes:
            raise LTGCError(
                f"{root}: {sample.path} has the label {sample.label}, but there are {classes} class names "
                f"(labels 0 to {classes - 1}); set data.class_names to the file that belongs to the lists"
            )


def read_names(root: Path, file: str | None, samples: Sequence[Sample]) -> list[str]:
    """Class names by label, from a text file: a name a line, or a key and a name a line (docs/data.md).

    A key is a WordNet id, the label, or the folder of the class's images, on every line of the file. Where
    images lie in folders of their keys, the order is checked against them.
    """
    if file is None:
        raise LTGCError(
            "data.class_names: not set; the lists hold labels only, so it must name a file below data.root"
        )
    path = root / file
    lines = [line.strip() for line in read_text(path, "data.class_names").split("\n") if line.strip()]
    pairs = [line.split(None, 1) for line in lines]
    folders: dict[int, set[str]] = {}
    for sample in samples:
        if sample.label not in folders:
            folders[sample.label] = _endings(sample.path)
    known = set().union(*folders.values())
    keys = [_squash(pair[0]) for pair in pairs]
    in_folders = all(key in known for key in keys)
    keyed = all(len(pair) == 2 for pair in pairs) and (in_folders or all(KEY.fullmatch(pair[0]) for pair in pairs))
    if not keyed:
        return [clean_name(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    if all(key.isdigit() for key in keys):
        of_label = {int(pair[0]): pair[1] for pair in pairs}
        if sorted(of_label) != list(range(len(lines))):
            raise LTGCError(f"{path}: its lines do not begin with the labels 0 to {len(lines) - 1}, each once")
        return [clean_name(of_label[label], f"{path}, label {label}") for label in range(len(lines))]
    for label, key in enumerate(keys):
        if in_folders and label in folders and key not in folders[label]:
            raise LTGCError(
                f"{path}, line {label + 1}: {pairs[label][0]}, but images of label {label} lie in another folder; "
                "the class names must be in the order of the labels"
            )
    return [clean_name(pair[1], f"{path}, line {number}") for number, pair in enumerate(pairs, 1)]


def _endings(path: str) -> set[str]:
    """The keys that the folders of an image answer to: a/arch/indoor/1.jpg -> indoor, archindoor, aarchindoor."""
    folders = [_squash(folder) for folder in path.split("/")[:-1]]
    return {"".join(folders[start:]) for start in range(len(folders))}


def _squash(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()
