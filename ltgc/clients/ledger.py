"""The ledger: what every call has cost, and the cap that all processes on a project keep together.

Before each attempt at a call the most that it can cost is reserved, in one transaction over all processes; when its
reply is stored, what it did cost is written beside the reservation. Rows are only added, so rolling files back does
not reset what was spent. A reservation that was never settled, because its process was killed, may have been billed:
it counts with all of its amount.
"""

import asyncio
import os
import platform
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from filelock import FileLock, Timeout

from ltgc.clients.budget import Budget
from ltgc.clients.database import FILE, Database
from ltgc.pipeline.errors import LTGCError

# "useless": answered and so billed, but nothing in the answer can be used (cut off, a refusal, too long, no JSON).
Outcome = Literal["answered", "useless", "not billed", "possibly billed"]
LOOK = 0.2  # seconds between looks at calls in flight

R = TypeVar("R")


class Call(NamedTuple):
    """A question that is about to be paid for."""

    key: str
    address: str
    model: str
    usd: float | None  # the most that one attempt can cost; None: the model has no price
    known: int  # the last reply to it in the pool that cannot be used (its drawing is gone); 0: none


class Cost(NamedTuple):
    """What an attempt came to."""

    outcome: Outcome
    usd: float | None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    images: int = 0


@dataclass(frozen=True)
class Spent:
    """What a project has spent in one pool, with what is in flight at the most that it can cost."""

    usd: float = 0.0
    calls: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.usd + other.usd, self.calls + other.calls)


class Reservation(NamedTuple):
    """An attempt that is not settled."""

    session: str
    project: str
    address: str
    key: str
    usd: float


class Wait(Exception):
    """Calls in flight decide whether this one may be made."""


class Ledger:
    """The ledger of a pool, as one run of a stage writes it."""

    def __init__(
        self, database: Database, stage: str, project: str, experiment: str, budget: Budget, elsewhere: Spent
    ) -> None:
        """elsewhere: what the project has spent in the other pool. Raises LTGCError where a price is missing."""
        self._database = database
        self._project, self._experiment, self._stage = project, experiment, stage
        self._budget = budget
        # Held as long as this process lives, so that others can tell.
        self._session = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        file = self._lock_file(self._session)
        with database.errors():
            file.parent.mkdir(exist_ok=True)
            self._lock = FileLock(file)
            self._lock.acquire()
        self._spent, self._open, self._seen = elsewhere, dict[int, Reservation](), (0, 0)
        self._ended: set[str] = set()  # sessions of others
        database.write_now(self._read_all)

    def close(self) -> None:
        self._lock.release()
        self._lock_file(self._session).unlink(missing_ok=True)

    @property
    def spent(self) -> Spent:
        """By the project, as of the last call."""
        in_flight = [r.usd for r in self._open.values() if r.project == self._project]
        return self._spent + Spent(sum(in_flight), len(in_flight))

    async def reserve(self, call: Call) -> int | None:
        """Reserve one attempt; its number. None if the reply to this question has just come from another process.

        Waits while another process asks the same question, and while the cap leaves no room but calls in flight may
        turn out cheaper. Raises LTGCError if the call could pass the cap and no call is in flight.
        """
        while True:
            found = await self._database.write(lambda db: self._reserve(db, call))
            if isinstance(found, LTGCError):
                raise found
            if not isinstance(found, Wait):
                return found
            await asyncio.sleep(LOOK)

    async def settle(self, reservation: int | None, cost: Cost, then: Callable[[sqlite3.Connection], R]) -> R:
        """Write what an attempt came to; None: it is settled. `then` runs in the same transaction; returns its result.
        """

        def write(db: sqlite3.Connection) -> R:
            if reservation is not None:
                db.execute(
                    "INSERT INTO settlements (reservation, outcome, usd, prompt_tokens, completion_tokens, images) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (reservation, *cost),
                )
            return then(db)

        return await self._database.write(write)

    def _reserve(self, db: sqlite3.Connection, call: Call) -> int | None | Wait | LTGCError:
        self._read_new(db)
        stored = "SELECT 1 FROM replies WHERE key = ? AND address = ? AND id > ?"
        if db.execute(stored, (call.key, call.address, call.known)).fetchone():
            return None
        lives = {session: self._lives(session) for session in {r.session for r in self._open.values()}}
        for r in self._open.values():
            if r.session != self._session and lives[r.session] and (r.key, r.address) == (call.key, call.address):
                return Wait()
        if passed := self._budget.passed(self.spent.usd, self.spent.calls, call.model, call.usd):
            return Wait() if any(lives.values()) else passed
        row = (self._session, self._project, self._experiment, self._stage, call.model, call.address, call.key)
        added = db.execute(
            "INSERT INTO reservations (session, project, experiment, stage, model, address, key, at, usd) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, datetime.now(UTC).isoformat(timespec="seconds"), call.usd),
        )
        return added.lastrowid

    def _read_all(self, db: sqlite3.Connection) -> None:
        """What was spent before this run. Later looks read only what was added."""
        self._spent += settled(db, self._project, self._budget)
        query = """SELECT r.id, r.session, r.project, r.address, r.key, r.usd FROM reservations r
                   LEFT JOIN settlements s ON s.reservation = r.id WHERE s.reservation IS NULL"""
        self._open = {id: Reservation(*row, usd or 0.0) for id, *row, usd in db.execute(query)}
        query = "SELECT (SELECT MAX(id) FROM reservations), (SELECT MAX(id) FROM settlements)"
        reservations, settlements = db.execute(query).fetchone()
        self._seen = reservations or 0, settlements or 0

    def _read_new(self, db: sqlite3.Connection) -> None:
        reservations, settlements = self._seen
        query = "SELECT id, session, project, address, key, usd FROM reservations WHERE id > ? ORDER BY id"
        for id, *row, usd in db.execute(query, (reservations,)):
            self._open[id] = Reservation(*row, usd or 0.0)
            reservations = id
        query = "SELECT id, reservation, outcome, usd FROM settlements WHERE id > ? ORDER BY id"
        for id, reservation, outcome, usd in db.execute(query, (settlements,)):
            settled = self._open.pop(reservation)
            if settled.project == self._project and outcome != "not billed":
                self._spent += Spent(usd or 0.0, 1)
            settlements = id
        self._seen = reservations, settlements

    def _lives(self, session: str) -> bool:
        """Whether the process of a session still runs: it holds a lock until it ends, however it ends."""
        if session == self._session:
            return True
        file = self._lock_file(session)
        if session in self._ended or not file.exists():
            return False
        try:
            FileLock(file).acquire(timeout=0).lock.release()
        except Timeout:
            return True
        self._ended.add(session)
        file.unlink(missing_ok=True)
        return False

    def _lock_file(self, session: str) -> Path:
        return self._database.folder / "sessions" / f"{session}.lock"


def in_flight(db: sqlite3.Connection, project: str) -> Spent:
    """What is not settled, at the most that it can cost."""
    query = """SELECT TOTAL(r.usd), COUNT(*) FROM reservations r LEFT JOIN settlements s ON s.reservation = r.id
               WHERE r.project = ? AND s.reservation IS NULL"""
    return Spent(*db.execute(query, (project,)).fetchone())


def settled(db: sqlite3.Connection, project: str, budget: Budget) -> Spent:
    """What a project has paid for. Calls made before their model had a price count at today's."""
    query = """SELECT r.model, SUM(s.usd), SUM(s.usd IS NULL), COUNT(*), SUM(s.prompt_tokens * (s.usd IS NULL)),
                      SUM(s.completion_tokens * (s.usd IS NULL)), SUM(s.images * (s.usd IS NULL))
               FROM settlements s JOIN reservations r ON r.id = s.reservation
               WHERE r.project = ? AND s.outcome != 'not billed' GROUP BY r.model"""
    total = Spent()
    for model, usd, unpriced, calls, *amounts in db.execute(query, (project,)):
        later = budget.cost(model, *amounts) if unpriced else 0.0
        if later is None and budget.caps.max_usd is not None:
            raise LTGCError(f"prices: no price for {model}, which this project has used; budget.max_usd needs it")
        total += Spent((usd or 0.0) + (later or 0.0), calls)
    return total


def spent(folder: Path, project: str, budget: Budget) -> Spent:
    """What a project has spent in the pool in `folder`, with what is or was in flight; nothing without a pool."""
    if not (folder / FILE).exists():
        return Spent()
    database = Database(folder, str(folder))
    try:
        return database.write_now(lambda db: settled(db, project, budget) + in_flight(db, project))
    finally:
        database.close()
