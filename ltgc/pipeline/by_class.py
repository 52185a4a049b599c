"""The records of a JSON Lines artifact, read class by class where all of them would fill the memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from ltgc.pipeline import files
from ltgc.pipeline.artifacts.descriptions import ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import Attempt

L = TypeVar("L", ExistingDescription, ExtendedDescription, Attempt)


class ByClass(Generic[L]):
    """The records of a file, which are read when they are asked for and not kept.

    Held as objects, the 730,000 descriptions of iNaturalist 2018 take 0.9 GB, and its attempts as much.
    """

    def __init__(self, path: Path, model: type[L]) -> None:
        """Raises LTGCError for a file that is missing, or naming a line that is no such record."""
        files.check_exists(path)
        self._path = path
        self._model: type[L] = model
        self._spans: dict[int, list[tuple[int, int]]] = {}  # label -> begins and ends of its lines, in bytes
        self._count = 0
        before, offset = None, 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                label = files.parsed(path, number, model, line).label
                spans = self._spans.setdefault(label, [])
                begin = spans.pop()[0] if label == before else offset
                offset += len(line)
                spans.append((begin, offset))
                before, self._count = label, number

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[L]:
        """All records, in the order of the file."""
        return files.each_jsonl(self._path, self._model)

    @property
    def labels(self) -> list[int]:
        """The classes that have records, in the order of the file."""
        return list(self._spans)

    def of(self, label: int) -> list[L]:
        """The records of a class, in the order of the file."""
        with self._path.open("rb") as file:
            lines = [line for begin, end in self._spans.get(label, []) for line in _lines(file, begin, end)]
        return [self._model.model_validate_json(line) for line in lines]


def _lines(file: BinaryIO, begin: int, end: int) -> list[bytes]:
    file.seek(begin)
    return file.read(end - begin).splitlines()
