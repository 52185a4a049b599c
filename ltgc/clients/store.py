"""Paid work is never lost: every reply of a model is on disk the moment it arrives, under what determines it.

One folder a stage, one JSON Lines file a class and one tar of its drawings, so that `dvc push` sends what changed.
A line or a drawing is appended whole and synced; what a crash tore is cut off when the store is opened next. When
a stage ends they are sorted, so that two runs leave the same bytes. Entries of other models and prompts stay:
going back is free.
"""

import errno
import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from ltgc.clients.budget import Budget
from ltgc.clients.tally import Tally
from ltgc.data import shards
from ltgc.pipeline import files
from ltgc.pipeline.errors import LTGCError

THREADS = 16  # that sort files; each waits for the disk


def key_of(*determining: Any) -> str:
    """sha256 over everything that determines a reply, as JSON."""
    text = json.dumps(determining, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def paid_before(store: Path, lock: Path = Path("dvc.lock")) -> dict[str, Path]:
    """The models that `store` held replies of when DVC last saw it; {} where DVC knows of none.

    The one place in the library that knows of DVC: what was paid for and is only not here must not be paid again.
    """
    if not lock.is_file():
        return {}
    stage = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages", {}).get(store.name, {})
    if not any(out["path"] == store.as_posix() and out.get("nfiles") for out in stage.get("outs", [])):
        return {}
    sections = stage.get("params", {}).get("params.yaml", {}).values()
    return {section["model"]: store for section in sections if isinstance(section, dict) and "model" in section}


class Store:
    """The replies of one stage: key -> reply. A context manager; at its end the files are put in order."""

    def __init__(self, folder: Path, budget: Budget | None = None) -> None:
        """Open or make `folder`. Raises LTGCError for a line that is no reply, other than a torn last one."""
        self.folder = folder
        self.budget = budget or Budget()
        self.tally = Tally()
        self._lock = threading.Lock()
        self._replies: dict[str, dict[str, Any]] = {}
        # A class keeps its file while its label stays; its entries are found under any file's name.
        self._files: dict[str, dict[str, dict[str, Any]]] = {}
        self._images: dict[str, dict[str, tuple[int, int]]] = {}  # slug -> member -> (offset, size) in its tar
        self._tars: dict[str, Path] = {}  # member -> a tar that has it
        if not any(folder.glob("*.jsonl")):
            self.budget.lost = paid_before(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.rglob(".*.part"):  # of a write that was killed
            part.unlink()
        for path in sorted(folder.glob("*.jsonl")):
            self._load(path)
        for path in sorted(folder.glob("*.tar")):
            self._load_images(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(self._sort, self._files))
            list(threads.map(self._sort_images, filter(self._images.get, self._images)))

    def _sort(self, slug: str) -> None:
        path, replies = self.folder / f"{slug}.jsonl", self._files[slug]
        text = "".join(_line(key, replies[key]) for key in sorted(replies))
        if not path.exists() or path.read_bytes() != text.encode():
            files.write_text(path, text)

    def _sort_images(self, slug: str) -> None:
        path, before = self.folder / f"{slug}.tar", self._images[slug]
        after, end = {}, 0
        for name in sorted(before):
            size = before[name][1]
            after[name] = end + shards.BLOCK, size
            end += shards.BLOCK + size + -size % shards.BLOCK
        if after != before or path.stat().st_size != end:  # longer where two threads brought one drawing
            files.write_chunks(path, (shards.member(name, _pread(path, *before[name])) for name in after))
            self._images[slug] = after

    def get(self, key: str) -> dict[str, Any] | None:
        return self._replies.get(key)

    def put(self, slug: str, key: str, reply: dict[str, Any]) -> None:
        """Append the reply to the class's file, sync it to disk, and count what it cost.

        The first reply to a key stays. Threads may put at once: a sync waits for the disk (4 ms here), and the
        file system takes many together in one go.
        """
        with self._lock:
            if key in self._replies:
                return
            self._replies[key] = self._files.setdefault(slug, {})[key] = reply
            self.tally.spend(reply, self.budget.spend(reply))
        self._append(self.folder / f"{slug}.jsonl", _line(key, reply).encode())

    def put_image(self, slug: str, key: str, model: str, data: bytes, **more: str | int) -> None:
        """Keep the bytes as they came, under their own hash, and then the line that names them; more: of it."""
        sha256 = hashlib.sha256(data).hexdigest()
        name, path = f"{sha256}.png", self.folder / f"{slug}.tar"
        known = self._images.setdefault(slug, {})
        if name not in known:  # two threads may bring it at once; both append it, and sorting keeps one
            start = self._append(path, shards.member(name, data))
            known[name] = start + shards.BLOCK, len(data)
            self._tars[name] = path
        self.put(slug, key, {"model": model, "image": sha256, **more})

    def read_image(self, reply: dict[str, Any]) -> bytes:
        """The bytes that put_image kept. Raises LTGCError where the file is gone."""
        name = f"{reply['image']}.png"
        if name not in self._tars:
            raise LTGCError(
                f"{self.folder}: {name} is not there, but paid for; get it with `dvc pull {self.folder}`"
            )
        path = self._tars[name]
        return _pread(path, *self._images[path.stem][name])

    def _load(self, path: Path) -> None:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
        replies = self._files.setdefault(path.stem, {})
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                reply = json.loads(line)
                key = reply.pop("key")
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise LTGCError(f"{path}, line {number}: not a stored reply; delete the line") from error
            replies[key] = reply
            self._replies.setdefault(key, reply)

    def _load_images(self, path: Path) -> None:
        with path.open("rb") as file:
            members, end = shards.scan(file.fileno())
            file.seek(end)
            rest = file.read()
        if not shards.torn(rest):
            raise LTGCError(f"{path}: damaged at byte {end:,}; get it with `dvc pull {self.folder}`")
        if rest:
            os.truncate(path, end)
        self._images[path.stem] = members
        self._tars |= dict.fromkeys(members, path)

    def _append(self, path: Path, data: bytes) -> int:
        """Append `data` whole, and wait until it is on the disk; the offset that it begins at."""
        new = not path.exists()
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            with self._lock:  # so that nothing comes after a piece, before it is taken back
                start = os.fstat(file).st_size
                if os.write(file, data) < len(data):
                    os.ftruncate(file, start)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file)
        finally:
            os.close(file)
        if new:
            files.sync_folder(path.parent)
        return start


def _line(key: str, reply: dict[str, Any]) -> str:
    return json.dumps({"key": key, **reply}, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n"


def _pread(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), size, offset)
