"""Images in WebDataset-style tar files: generated ones, a tar a class, and those that prepare makes, all in one.

A generated image has its Attempt as JSON beside it. The same members give the same bytes, so DVC sees a class as
changed only when it did.
"""

import functools
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from ltgc.pipeline import files
from ltgc.pipeline.artifacts.drawings import Attempt
from ltgc.pipeline.errors import LTGCError

BLOCK = tarfile.BLOCKSIZE  # bytes; a tar is a header block and whole blocks of data for each file
MOST = 2**40  # bytes; no member is as large
END = bytes(2 * BLOCK)  # of a whole tar


def write(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write (name, data) pairs as a tar, in their order. Whole or not at all, and the same bytes each time."""
    files.write_chunks(path, chain((member(name, data) for name, data in members), [END]))


def member(name: str, data: bytes) -> bytes:
    """One file as it lies in a tar: mode 0644, nobody's, of time 0."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)


def scan(file: int) -> tuple[dict[str, tuple[int, int]], int]:
    """name -> (offset, size) of the whole members of an open tar, and where the last one ends; all in bytes.

    Not tarfile's own loop, which is as slow (20 µs a member) and takes what is cut off or damaged for the end.
    """
    length, end = os.fstat(file).st_size, 0
    members: dict[str, tuple[int, int]] = {}
    while (info := _header(os.pread(file, BLOCK, end))) is not None:
        after = end + BLOCK + info.size + -info.size % BLOCK
        if after > length:
            break
        members[info.name] = (end + BLOCK, info.size)
        end = after
    return members, end


def _header(block: bytes) -> tarfile.TarInfo | None:
    """What a block says of the file behind it; None for one that is no header of a plain file."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError):
        return None
    return info if info.isreg() and _stays_below(info.name) else None


def _stays_below(name: str) -> bool:
    """Whether a member, extracted, lies in the folder that it is extracted to."""
    path = PurePosixPath(name)
    return path.as_posix() == name and not path.is_absolute() and ".." not in path.parts


def read(path: Path, name: str) -> bytes:
    """One member, at its offset. Raises FileNotFoundError, and LTGCError where `path` is no whole tar.

    Threads and forked workers may read at once: no position in the file is shared.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        stat = os.fstat(file)
        index = _index(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if name not in index:
            raise FileNotFoundError(f"{path}: has no {name}")
        offset, size = divmod(index[name], MOST)
        return os.pread(file, size, offset)
    finally:
        os.close(file)


def names(path: Path) -> list[str]:
    """The members' names in their order. Raises FileNotFoundError, and LTGCError where `path` is no whole tar."""
    stat = path.stat()
    return list(_index(path, stat.st_ino, stat.st_mtime_ns, stat.st_size))


@functools.cache
def _index(path: Path, *version: int) -> dict[str, int]:
    """name -> offset * MOST + size of the tar's members; once a process and version of the file.

    iNaturalist 2018 has a million members, and each process that loads drawings its own index: some 70 MB so, and
    250 with pairs of numbers, and names that shards do not share.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        members, end = scan(file)
        if os.pread(file, len(END), end) != END:
            raise LTGCError(f"{path}: not a whole shard of plain files; run `dvc pull {path.parent}`")
    finally:
        os.close(file)
    return {sys.intern(name): offset * MOST + size for name, (offset, size) in members.items()}


def attempts(path: Path) -> Iterator[tuple[Attempt, str]]:
    """The records of a shard, each with its image's name."""
    for name in names(path):
        if name.endswith(".json"):
            try:
                attempt = Attempt.model_validate_json(read(path, name))
            except ValidationError as error:
                raise LTGCError(f"{path}/{name}: not an Attempt; run `dvc repro generate`") from error
            yield attempt, Path(attempt.image or "").name
