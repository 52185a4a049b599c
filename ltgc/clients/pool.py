"""One pool of replies for each user: what any experiment, clone or branch of theirs has paid for is found in it.

A pool is an SQLite file of replies, and a folder of drawings, each named by the SHA-256 of its bytes. It lies
outside what DVC checks out. docs/sharing.md says what it costs and what it survives.
"""

import hashlib
import json
import os
import shutil
import sqlite3
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from ltgc.clients.database import Database, check_writable
from ltgc.clients.project import top
from ltgc.pipeline import code_digest, files
from ltgc.pipeline.errors import LTGCError

CACHE = "LTGC_CACHE"  # environment variable: the folder of the user's pool
PROJECT_FOLDER = Path(".ltgc")  # of the pool of the embedded endpoint's replies; git and DVC ignore it
LEAST_FREE = 64 * 2**20  # bytes; below, no call is made, as there might be no room for its reply
UNKNOWN = ""  # the address of replies that came with a shared store


def user_folder() -> Path:
    """The folder of the user's pool: $LTGC_CACHE, or the platform's folder for caches.

    Raises LTGCError for a relative one: it would lie in the temporary copy in which DVC runs an experiment.
    """
    named = os.environ.get(CACHE) or platformdirs.user_cache_dir("ltgc", appauthor=False)
    folder = Path(named).expanduser()
    if not folder.is_absolute():
        raise LTGCError(
            f"{CACHE}: {named} is relative, so each experiment would have its own; write the whole path"
        )
    return folder


def project_folder() -> Path:
    """The folder of the pool of the embedded endpoint's replies: inside the project, so that a clone is fresh.

    A temporary experiment of DVC's runs in a copy of the project, and uses the pool of the project itself.
    """
    return Path(os.environ.get("DVC_ROOT") or top()) / PROJECT_FOLDER


class Stored(NamedTuple):
    """A reply in the pool."""

    id: int
    text: str  # JSON

    @property
    def reply(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found


class Pool:
    """The replies and drawings in a folder, which any number of processes may use at once."""

    def __init__(self, folder: Path, name: str = CACHE) -> None:
        """Open or make it. Raises LTGCError where it cannot be written to."""
        self.database = Database(folder, name)
        self.folder = folder
        self._images = folder / "images"
        with self.database.errors():
            self._images.mkdir(exist_ok=True)
            check_writable(self._images)

    def close(self) -> None:
        self.database.close()

    def find(self, key: str, address: str) -> list[Stored]:
        """The replies to a question: those of the server at `address`, then those that do not say from where.

        The oldest comes first.
        """
        query = """SELECT id, sha256, reply FROM replies WHERE key = ? AND address IN (?, ?)
                   ORDER BY address = ?, id"""
        found = self.database.rows(query, key, address, UNKNOWN, UNKNOWN)
        return [self._checked(*row) for row in found]

    def by_id(self, id: int) -> Stored:
        (row,) = self.database.rows("SELECT id, sha256, reply FROM replies WHERE id = ?", id)
        return self._checked(*row)

    def _checked(self, id: int, sha256: str, text: str) -> Stored:
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            raise LTGCError(
                f"{self.folder}: reply {id} is not what was stored; the disk or the file is damaged: move the "
                "folder away, and what store/ holds is taken in again"
            )
        return Stored(id, text)

    def check_room(self) -> None:
        """Raises LTGCError where the disk has no room for another reply."""
        if shutil.disk_usage(self.folder).free < LEAST_FREE:
            raise LTGCError(
                f"{self.folder}: less than {LEAST_FREE >> 20} MiB of disk are free, so a reply might not be kept; "
                f"free some, or name another folder with {CACHE}"
            )

    def knows_store(self, md5: str) -> bool:
        """Whether all replies and drawings of the shared store that dvc.lock names so are here."""
        return bool(self.database.rows("SELECT 1 FROM stores WHERE md5 = ?", md5))

    def has_image(self, sha256: str) -> bool:
        return self._image(sha256).exists()

    def read_image(self, sha256: str) -> bytes:
        """The bytes of a drawing. Raises FileNotFoundError, and LTGCError where they are not what was stored."""
        path = self._image(sha256)
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise LTGCError(
                f"{path}: not the drawing that was stored; the disk or the file is damaged: delete it, and run "
                "again: it is taken from generated/, or drawn (and paid for) again"
            )
        return data

    def put_image(self, data: bytes) -> str:
        """Keep a drawing, synced, under the SHA-256 of its bytes, which is returned."""
        sha256 = hashlib.sha256(data).hexdigest()
        with self.database.errors():
            path = self._image(sha256)
            if not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                files.sync_folder(self._images)
            if not path.exists():
                files.write_bytes(path, data)
        return sha256

    def _image(self, sha256: str) -> Path:
        return self._images / sha256[:2] / sha256


def insert(db: sqlite3.Connection, key: str, address: str, reply: dict[str, Any]) -> int:
    """Add a reply, unless the same one is there; its id. To be called inside `Database.write`."""
    text = json.dumps(reply, ensure_ascii=False).encode("utf-8", "replace").decode()
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    # A shared store that brings back a reply whose server is known says nothing new.
    same = "SELECT id FROM replies WHERE key = ? AND sha256 = ? AND (address = ? OR ? = '') ORDER BY id"
    if row := db.execute(same, (key, sha256, address, address)).fetchone():
        return int(row[0])
    values = (key, address, sha256, text)
    added = db.execute("INSERT INTO replies (key, address, sha256, reply) VALUES (?, ?, ?, ?)", values)
    assert added.lastrowid is not None
    return added.lastrowid


def note_store(db: sqlite3.Connection, md5: str) -> None:
    db.execute("INSERT OR IGNORE INTO stores VALUES (?)", (md5,))


@cache
def embedded_digest() -> str:
    """What the embedded endpoint's replies depend on beside the question: its code and its files."""
    spec = find_spec("embedded")
    if spec is None or not spec.submodule_search_locations:
        return ""  # the one who starts it says so
    return code_digest.of_folder(Path(spec.submodule_search_locations[0]))
