"""The SQLite file of a pool: opened by many processes at once, synced, only ever added to.

SQLite comes with Python, lets many processes of one machine write, and loses nothing that it has confirmed: every
commit is checksummed in its log (WAL) and synced, and a record that a crash tore is left out as a whole. What a
thousand graphs write at the same moment is one commit: they wait for the disk once.
"""

import asyncio
import errno
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from ltgc.pipeline.errors import LTGCError

FILE = "pool.sqlite"
VERSION = 1  # of the tables below
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
    process TEXT NOT NULL,  -- that makes it
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
# Rows are added and never changed.
ONLY_ADDED_TO = "".join(
    f"CREATE TRIGGER IF NOT EXISTS {table}_{change} BEFORE {change} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} is only added to'); END;"
    for table in ("replies", "stores", "reservations", "settlements")
    for change in ("UPDATE", "DELETE")
)
PATIENCE = 60  # seconds that one process waits for another one's commit
# WAL needs memory that all its processes share, which network file systems do not give. There SQLite's older
# journal is used: three syncs a commit in place of one.
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "beegfs", "gpfs", "ceph", "afs", "9p", "fuse.sshfs"}
REMEDIES = {  # what SQLite says, and what a user does about it
    "full": "free some space or quota",
    "disk i/o": "free some space or quota",
    "locked": "another process has held it for a minute; end that process",
    "malformed": "it is damaged: move it away, and what store/ holds is taken in again",
    "not a database": "it is damaged: move it away, and what store/ holds is taken in again",
}

R = TypeVar("R")
Change = Callable[[sqlite3.Connection], R]


class Database:
    """One SQLite file in `folder`. Its errors are LTGCErrors that name the file and what to do about it."""

    def __init__(self, folder: Path, name: str) -> None:
        """Open or make it. name: what a user sets to have it elsewhere.

        Raises LTGCError where it cannot be written to, is damaged, or was made by a newer version.
        """
        self.folder = folder
        self._name = name
        with self.errors():
            folder.mkdir(parents=True, exist_ok=True)
            # SQLite says so as well, but leaves a log with the same permissions: it cannot write to that even when
            # the file has become writable.
            check_writable(folder, folder / FILE)
            self._writer = self._connect()
            self._reader = self._connect()  # of its own, so that looking up never waits for a commit's sync
            _set_journal(self._writer, "TRUNCATE" if on_network(folder) else "WAL")
            self._writer.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {ONLY_ADDED_TO} COMMIT;")
            version = self._writer.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise LTGCError(f"{name}: {folder} was made by a newer version; update, or name another folder")
            self._writer.execute(f"PRAGMA user_version={VERSION}")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._waiting: deque[tuple[Change[Any], Future[Any]]] = deque()
        self._closed = False

    def close(self) -> None:
        """Once everything that was handed in is written; what is handed in later is cancelled."""
        self._closed = True
        self._thread.shutdown()
        self._commit()
        self._reader.close()
        self._writer.close()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.errors():
            return self._reader.execute(query, values).fetchall()

    async def write(self, change: Change[R]) -> R:
        """What `change` returns, once it is on the disk. It is written even if the one who waits is cancelled."""
        return await asyncio.wrap_future(self.hand_in(change))

    def write_now(self, change: Change[R]) -> R:
        """As `write`, for where no event loop runs."""
        return self.hand_in(change).result()

    def hand_in(self, change: Change[R]) -> "Future[R]":
        """Have `change` written, in the order in which changes come."""
        future: Future[R] = Future()
        if self._closed:  # by an error elsewhere; a call under way then stays reserved, as if it had been killed
            future.cancel()
            return future
        future.set_running_or_notify_cancel()  # it can no longer be cancelled
        self._waiting.append((change, future))
        with suppress(RuntimeError):  # closing, which writes what is left
            self._thread.submit(self._commit)
        return future

    def _commit(self) -> None:
        """Write everything that waits, in one transaction: all of it or nothing."""
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not batch:  # the commit before took it along
            return
        try:
            with self.errors():
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    results = [change(self._writer) for change, _ in batch]
                    self._writer.execute("COMMIT")
                finally:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)

    def _connect(self) -> sqlite3.Connection:
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
            where = error.filename or self.folder
            raise LTGCError(
                f"{self._name}: {where}: {error.strerror}; make room or make it writable, or name another folder"
            ) from error
        except sqlite3.Error as error:
            said = str(error)
            remedies = [remedy for words, remedy in REMEDIES.items() if words in said.lower()]
            remedy = remedies[0] if remedies else "make it writable"
            raise LTGCError(
                f"{self._name}: {self.folder / FILE}: {said}; {remedy}, or name another folder"
            ) from error


def _set_journal(connection: sqlite3.Connection, mode: str) -> None:
    """The one statement for which SQLite itself does not wait where another process makes the file as well."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode={mode}")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)


def check_writable(*paths: Path) -> None:
    """Raises PermissionError for the first of the files and folders that is there and cannot be written to."""
    for path in paths:
        if path.exists() and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def on_network(folder: Path) -> bool:
    """Whether `folder` lies on a file system of another machine."""
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    folder = folder.resolve()
    return next((mounts[parent] for parent in (folder, *folder.parents) if parent in mounts), "") in NETWORK
