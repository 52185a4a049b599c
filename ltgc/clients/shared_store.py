"""The shared store of a stage, store/<stage>: what DVC pushes and pulls of the replies that its artifacts used.

One JSON Lines file for each class, sorted, so that the same run leaves the same bytes and `dvc push` sends what
changed. Drawings are not in it: they lie in generated/ beside it, where each is found by its SHA-256. Stores that
older versions wrote hold them in tar files of their own, which are read as well.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from ltgc.data import shards
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.drawings import ACCEPTED, REJECTED
from ltgc.pipeline.artifacts.replies import STORE
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import LOCK


def stored(folder: Path = STORE) -> Iterator[tuple[str, dict[str, Any]]]:
    """(stage, reply) of everything in the shared stores."""
    for stage in sorted(path for path in folder.glob("*") if path.is_dir()):
        for _, _, reply in read(stage):
            yield stage.name, reply


def read(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(class, key, reply) of each line of a store, in the order of files and lines.

    Raises LTGCError for a line that is no reply, other than a last one that a crash tore.
    """
    for path in sorted(folder.glob("*.jsonl")):
        data = path.read_bytes()
        lines = data.splitlines()
        for number, line in enumerate(lines, 1):
            try:
                reply = json.loads(line)
                key = reply.pop("key")
                if not isinstance(key, str):
                    raise TypeError
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                if number == len(lines) and not data.endswith(b"\n"):
                    break
                raise LTGCError(f"{path}, line {number}: not a stored reply; delete the line") from error
            yield path.stem, key, reply


def write(folder: Path, lines: Iterable[tuple[str, str, str]]) -> None:
    """Replace a store by (class, key, reply as JSON), which come sorted by class and key."""
    with files.replaced_folder(folder) as new:
        for slug, of_class in groupby(lines, lambda line: line[0]):
            chunks = (f'{{"key": {json.dumps(key)}, {reply[1:]}\n'.encode() for _, key, reply in of_class)
            files.write_chunks(new / f"{slug}.jsonl", chunks)


def find_images(folder: Path, slug: str, wanted: set[str], keep: Callable[[bytes], Any]) -> None:
    """Hand the drawings of one class that are `wanted`, by SHA-256, to `keep`; those found leave `wanted`."""
    for tar in (folder / f"{slug}.tar", ACCEPTED / f"{slug}.tar", REJECTED / f"{slug}.tar"):
        if not wanted or not tar.is_file():
            continue
        for data in _images(tar):
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 in wanted:
                keep(data)
                wanted.remove(sha256)


def _images(tar: Path) -> Iterator[bytes]:
    """The whole members of a tar that are images, also where a crash tore its end."""
    with tar.open("rb") as file:
        members, _ = shards.scan(file.fileno())
        for name, (offset, size) in members.items():
            if not name.endswith(".json"):
                yield os.pread(file.fileno(), size, offset)


def named_by_dvc(folder: Path) -> tuple[str | None, set[str]]:
    """The MD5 that dvc.lock has of the store, and the models that were asked; (None, {}) where it names none."""
    if not LOCK.is_file():
        return None, set()
    lock = yaml.safe_load(LOCK.read_text(encoding="utf-8")) or {}
    stage = lock.get("stages", {}).get(folder.name, {})
    for out in stage.get("outs", []):
        if out["path"] == folder.as_posix() and out.get("nfiles"):
            sections = stage.get("params", {}).get("params.yaml", {}).values()
            models = {section["model"] for section in sections if isinstance(section, dict) and "model" in section}
            return out["md5"], models
    return None, set()


def md5(folder: Path) -> str:
    """The MD5 of a store as DVC makes it: of the list of its files with theirs."""
    listed = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        with path.open("rb") as file:
            listed.append({"md5": hashlib.file_digest(file, _md5).hexdigest(), "relpath": path.name})
    return _md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def _md5(data: bytes = b"") -> "hashlib._Hash":
    return hashlib.md5(data, usedforsecurity=False)
