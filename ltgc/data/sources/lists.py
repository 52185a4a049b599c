"""Source list: the text lists that the field uses, `path label` a line, and a file of class names."""

import re
from collections.abc import Sequence
from pathlib import Path

from ltgc.data import imagenet
from ltgc.data.sources.listing import Listing, Sample, clean_name, clean_path, locate, read_text, refuse_same_names
from ltgc.pipeline.artifacts.dataset import Split
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings

WORDNET = re.compile(r"n\d{8}")  # n01440764


def read(data: DataSettings) -> Listing:
    """Read data.files and data.class_names. Labels are those of the lists.

    Raises LTGCError naming file and line of what is no list, and the line of class names that are in another
    order than the lists' labels.
    """
    lines = [sample for split, file in files(data) for sample in read_list(data.root / file, split)]
    names = read_names(data.root, data.class_names, lines)
    check_labels(lines, len(names), data.root)
    names = imagenet.told_apart(names, wordnet_ids(lines, len(names)))
    refuse_same_names({f"label {label}": name for label, name in enumerate(names)}, data.root)
    return Listing(names, locate(lines, data.images or data.root, data.root / str(data.files.train)))


def wordnet_ids(samples: Sequence[Sample], classes: int) -> list[str | None]:
    """The folder of each class's images by label, where it is a WordNet id."""
    ids: list[str | None] = [None] * classes
    for sample in samples:
        if ids[sample.label] is None and (found := WORDNET.search(sample.path)):
            ids[sample.label] = found[0]
    return ids


def files(data: DataSettings) -> list[tuple[Split | None, str]]:
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

    A key, on every line of the file, is the folder of the class's images, the label, or a WordNet id. Folders
    and labels say which class a line names, whatever its place: five lines of the class names that circulate
    for Places-LT are in another order than the labels of its lists. All other lines are in the order of labels.
    """
    if file is None:
        raise LTGCError(
            "data.class_names: not set; lists hold labels only, so name a file of names below data.root"
        )
    path = root / file
    lines = [line.strip() for line in read_text(path, "data.class_names").split("\n") if line.strip()]
    pairs = [line.split(None, 1) for line in lines]
    if not all(len(pair) == 2 for pair in pairs):
        return [clean_name(line, f"{path}, {line!r}") for line in lines]
    by_key = {_squash(key): name for key, name in pairs}
    folders: dict[int, set[str]] = {}
    for sample in samples:
        if sample.label not in folders:
            folders[sample.label] = _endings(sample.path)
    if by_key.keys() <= set().union(*folders.values()):
        of_label = {
            label: by_key[max(keys, key=len)] for label, of in folders.items() if (keys := of & by_key.keys())
        }
    elif all(key.isdecimal() for key, _ in pairs):
        of_label = {int(key): name for key, name in pairs}
    elif all(WORDNET.fullmatch(key) for key, _ in pairs):
        of_label = dict(enumerate(name for _, name in pairs))
    else:
        of_label = dict(enumerate(lines))
    if gaps := set(range(len(lines))) - of_label.keys():
        raise LTGCError(
            f"{path}: {len(lines)} lines, but none names label {min(gaps)}; mend the file or the lists"
        )
    return [clean_name(of_label[label], f"{path}, label {label}") for label in range(len(lines))]


def _endings(path: str) -> set[str]:
    """The keys that the folders of an image answer to: a/arch/indoor/1.jpg -> indoor, archindoor, aarchindoor."""
    folders = [_squash(folder) for folder in path.split("/")[:-1]]
    return {"".join(folders[start:]) for start in range(len(folders))}


def _squash(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()
