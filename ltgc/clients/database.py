"""The SQLite file of a pool: opened by many processes at once, synced, only ever added to.

SQLite comes with Python, takes many writers on one machine and loses nothing that it has confirmed: every commit is
checksummed in its log (WAL) and synced, and a record that a crash tore is left out as a whole. What a thousand
graphs write together goes into few commits: each waits for the disk once.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil
from filelock import FileLock

from ltgc.pipeline.batching import Batcher
from ltgc.pipeline.errors import LTGCError

FILE = "pool.sqlite"
VERSION = 1  # of the tables below
# Rows are added and never changed: triggers refuse it.
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,      -- of everything that determines the reply (store.key_of)
    address TEXT NOT NULL,  -- of the server that gave it; '' where a shared store brought it, which does not say
    sha256 TEXT NOT NULL,   -- of `reply`
    reply TEXT NOT NULL,    -- as JSON
    UNIQUE (key, address, sha256)
);
CREATE TABLE IF NOT EXISTS stores (  -- shared stores all of whose replies and drawings are here
    md5 TEXT PRIMARY KEY             -- as dvc.lock names them
);
CREATE TABLE IF NOT EXISTS reservations (  -- an attempt at a call, before it is made
    id INTEGER PRIMARY KEY,
    session TEXT NOT NULL,  -- the run of a stage that makes it
    project TEXT NOT NULL,
    experiment TEXT NOT NULL,
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    address TEXT NOT NULL,
    key TEXT NOT NULL,      -- of the reply
    at TEXT NOT NULL,       -- UTC
    usd REAL                -- the most that it can cost; NULL where the model has no price
);
CREATE TABLE IF NOT EXISTS settlements (  -- what became of it
    id INTEGER PRIMARY KEY,
    reservation INTEGER NOT NULL UNIQUE REFERENCES reservations (id),
    outcome TEXT NOT NULL,
    usd REAL,               -- NULL where the model has no price
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    images INTEGER NOT NULL
);
"""
TABLES = ("replies", "stores", "reservations", "settlements")
PATIENCE = 60  # seconds that one process waits for another one's commit
# WAL needs memory that all its processes share, which network file systems do not give. There SQLite's older
# journal is used: three syncs a commit in place of one.
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "beegfs", "gpfs", "ceph", "afs", "9p", "fuse.sshfs"}
FULL = ("full", "disk i/o")  # what SQLite says where a disk, a quota or a limit on the size of files is reached

R = TypeVar("R")
Write = Callable[[sqlite3.Connection], Any]


class Database:
    """One SQLite file in `folder`. Its errors are LTGCErrors that name the folder and what to do about it."""

    def __init__(self, folder: Path, name: str) -> None:
        """Open or make it. name: what a user sets to have it elsewhere."""
        self.folder = folder
        self._name = name
        self._lock = threading.Lock()
        with self.errors():
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "opening.lock"):  # two processes may make it at once
                self._writer = self._connect()
                found = self._writer.execute("PRAGMA user_version").fetchone()[0]
                if found > VERSION:
                    raise LTGCError(f"{name}: {folder} was made by a newer version; update, or name another folder")
                self._writer.execute(f"PRAGMA journal_mode={'TRUNCATE' if on_network(folder) else 'WAL'}")
                self._writer.executescript(SCHEMA + "".join(map(_only_added_to, TABLES)))
                self._writer.execute(f"PRAGMA user_version={VERSION}")
            self._reader = self._connect()  # of its own, so that looking up never waits for a commit's sync
        self._commits = Batcher(self._commit, size=1000, wait=0.0)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.errors():
            return self._reader.execute(query, values).fetchall()

    async def write(self, change: Callable[[sqlite3.Connection], R]) -> R:
        """What `change` returns, once it is on the disk; many changes that come together are one transaction."""
        result: R = await self._commits(change)
        return result

    def write_now(self, change: Callable[[sqlite3.Connection], R]) -> R:
        """As `write`, for where no event loop runs."""
        result: R = self._commit([change])[0]
        return result

    def _commit(self, changes: Sequence[Write]) -> list[Any]:
        with self._lock, self.errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                results = [change(self._writer) for change in changes]
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            return results

    def _connect(self) -> sqlite3.Connection:
        # Statements are executed in two threads: the loop's and the batches'; each has a connection.
        connection = sqlite3.connect(
            self.folder / FILE, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LTGCError(
                f"{self._name}: {error.filename or self.folder}: {error.strerror}; make room or make it writable, "
                f"or name another folder"
            ) from error
        except sqlite3.Error as error:
            said = str(error)
            if any(words in said.lower() for words in FULL):
                remedy = "free some space or quota"
            elif "locked" in said:
                remedy = "another process has held it for a minute; end it"
            elif "malformed" in said or "not a database" in said:
                remedy = "it is damaged: move it away, and what store/ holds is taken in again"
            else:
                remedy = "make it writable"
            raise LTGCError(
                f"{self._name}: {self.folder / 'pool.sqlite'}: {said}; {remedy}, or name another folder"
            ) from error


def on_network(folder: Path) -> bool:
    """Whether `folder` lies on a file system of another machine."""
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    found = next((mounts[parent] for parent in (folder, *folder.resolve().parents) if parent in mounts), "")
    return found in NETWORK


def _only_added_to(table: str) -> str:
    return "".join(
        f"CREATE TRIGGER IF NOT EXISTS {table}_{what} BEFORE {what} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is only added to'); END;"
        for what in ("UPDATE", "DELETE")
    )
