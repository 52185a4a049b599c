"""The ledger: what every call has cost, and the cap that all processes on a project keep together.

Before each attempt at a call the most that it can cost is reserved, in one transaction over all processes; when
its reply is stored, what it did cost is written beside the reservation. Rows are only added, so rolling files back
does not reset what was spent. A reservation that was never settled, because its process was killed, may have been
billed: it counts with all of its amount.
"""

import asyncio
import os
import platform
import sqlite3
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeVar

import psutil

from ltgc.clients.budget import Budget
from ltgc.clients.database import Change, Database
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
    known: int  # the last reply to it in the pool, which cannot be used (its drawing is gone); 0: none


class Cost(NamedTuple):
    """What an attempt came to."""

    outcome: Outcome
    usd: float | None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    images: int = 0


NOT_BILLED = Cost("not billed", 0.0)


class Reservation(NamedTuple):
    """An attempt that is not settled."""

    process: str
    project: str
    question: tuple[str, str]  # key and address
    usd: float


class Spent(NamedTuple):
    """What an experiment has paid for in one stage to one model."""

    experiment: str
    stage: str
    model: str
    open: int  # 1: calls in flight, or whose process was killed; these count with what was reserved
    calls: int
    useless: int  # of the calls: answered and billed, but nothing in the answer could be used
    prompt_tokens: int
    completion_tokens: int
    images: int
    usd: float | None  # None: the model has no price


class Wait(Exception):
    """Calls in flight decide whether this one may be made."""


class Ledger:
    """The ledger of a pool, as one run of a stage writes it."""

    def __init__(self, database: Database, stage: str, project: str, experiment: str, budget: Budget) -> None:
        """Raises LTGCError where a cap in USD is set and a model that the project has used has no price."""
        self._database = database
        self._project, self._experiment, self._stage = project, experiment, stage
        self._budget = budget
        self._process = f"{platform.node()} {os.getpid()} {psutil.Process().create_time()}"
        self._ended: set[str] = set()  # processes of others
        self.usd, self.calls = 0.0, 0  # of the project, without what is in flight
        self._open: dict[int, Reservation] = {}
        self._read_to = 0, 0  # the last reservation and the last settlement that are counted
        database.write_now(self._read_all)

    async def reserve(self, call: Call) -> int | None:
        """Reserve one attempt; its number. None if the reply to this question has just come from another process.

        Waits while another process asks the same question, and while the cap leaves no room but calls in flight
        may turn out cheaper. Raises LTGCError if the call could pass the cap and no call is in flight.
        """
        while True:
            made = self._database.hand_in(lambda db: self._reserve(db, call))
            try:
                found = await asyncio.wrap_future(made)
            except asyncio.CancelledError:
                made.add_done_callback(self._give_back)
                raise
            if isinstance(found, LTGCError):
                raise found
            if not isinstance(found, Wait):
                return found
            await asyncio.sleep(LOOK)

    def _give_back(self, made: Future[int | Wait | LTGCError | None]) -> None:
        """Settle a reservation for which nothing was sent, as the one who made it was cancelled."""
        reservation = None if made.exception() else made.result()
        if isinstance(reservation, int):
            self._database.hand_in(lambda db: _settle(db, reservation, NOT_BILLED))

    async def settle(self, reservation: int | None, cost: Cost, then: Change[R]) -> R:
        """Write what an attempt came to, and in the same transaction what `then` writes; its result.

        reservation: None if the attempt is settled.
        """

        def change(db: sqlite3.Connection) -> R:
            if reservation is not None:
                _settle(db, reservation, cost)
            return then(db)

        return await self._database.write(change)

    def _reserve(self, db: sqlite3.Connection, call: Call) -> int | Wait | LTGCError | None:
        self._read_new(db)
        question = call.key, call.address
        stored = "SELECT 1 FROM replies WHERE key = ? AND address = ? AND id > ?"
        if db.execute(stored, (*question, call.known)).fetchone():
            return None
        others = {r.process for r in self._open.values() if r.question == question} - {self._process}
        if any(map(self._runs, others)):
            return Wait()
        ours = [r for r in self._open.values() if r.project == self._project]
        usd, calls = self.usd + sum(r.usd for r in ours), self.calls + len(ours)
        if passed := self._budget.passed(usd, calls, call.model, call.usd):
            return Wait() if any(map(self._runs, {r.process for r in ours})) else passed
        added = db.execute(
            "INSERT INTO reservations (process, project, experiment, stage, model, address, key, at, usd) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self._process, self._project, self._experiment, self._stage, call.model, call.address, call.key,
             datetime.now(UTC).isoformat(timespec="seconds"), call.usd),
        )  # fmt: skip
        assert added.lastrowid is not None
        return added.lastrowid

    def _read_all(self, db: sqlite3.Connection) -> None:
        """What was spent, and what is in flight, or was when its process was killed."""
        for line in spent(db, self._project, self._budget):
            if line.usd is None and self._budget.caps.max_usd is not None:
                raise LTGCError(
                    f"prices: no price for {line.model}, which this project has used; budget.max_usd needs it"
                )
            if not line.open:
                self.usd, self.calls = self.usd + (line.usd or 0.0), self.calls + line.calls
        query = """SELECT r.id, r.process, r.project, r.key, r.address, r.usd FROM reservations r
                   LEFT JOIN settlements s ON s.reservation = r.id WHERE s.reservation IS NULL"""
        for id, process, project, key, address, usd in db.execute(query):
            self._open[id] = Reservation(process, project, (key, address), usd or 0.0)
        query = "SELECT (SELECT MAX(id) FROM reservations), (SELECT MAX(id) FROM settlements)"
        reservations, settlements = db.execute(query).fetchone()
        self._read_to = reservations or 0, settlements or 0

    def _read_new(self, db: sqlite3.Connection) -> None:
        reservations, settlements = self._read_to
        query = "SELECT id, process, project, key, address, usd FROM reservations WHERE id > ? ORDER BY id"
        for id, process, project, key, address, usd in db.execute(query, (reservations,)):
            self._open[id] = Reservation(process, project, (key, address), usd or 0.0)
            reservations = id
        query = "SELECT id, reservation, outcome, usd FROM settlements WHERE id > ? ORDER BY id"
        for id, reservation, outcome, usd in db.execute(query, (settlements,)):
            if self._open.pop(reservation).project == self._project and outcome != "not billed":
                self.usd, self.calls = self.usd + (usd or 0.0), self.calls + 1
            settlements = id
        self._read_to = reservations, settlements

    def _runs(self, process: str) -> bool:
        """Whether a process of this machine still runs. One of another machine is not waited for."""
        if process != self._process and process not in self._ended and not _runs(process):
            self._ended.add(process)
        return process not in self._ended


def _settle(db: sqlite3.Connection, reservation: int, cost: Cost) -> None:
    db.execute(
        "INSERT INTO settlements (reservation, outcome, usd, prompt_tokens, completion_tokens, images) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (reservation, *cost),
    )


def spent(db: sqlite3.Connection, project: str, budget: Budget) -> list[Spent]:
    """What a project has paid for. Calls made before their model had a price count at today's."""
    query = """
        SELECT experiment, stage, model, open, COUNT(*), TOTAL(outcome = 'useless'), TOTAL(prompt_tokens),
               TOTAL(completion_tokens), TOTAL(images), TOTAL(usd), SUM(usd IS NULL),
               TOTAL(prompt_tokens * (usd IS NULL)), TOTAL(completion_tokens * (usd IS NULL)),
               TOTAL(images * (usd IS NULL))
        FROM (SELECT r.experiment, r.stage, r.model, s.id IS NULL AS open, s.outcome, s.prompt_tokens,
                     s.completion_tokens, s.images, CASE WHEN s.id IS NULL THEN r.usd ELSE s.usd END AS usd
              FROM reservations r LEFT JOIN settlements s ON s.reservation = r.id
              WHERE r.project = ? AND s.outcome IS NOT 'not billed')
        GROUP BY experiment, stage, model, open ORDER BY experiment, stage, model, open"""
    found = []
    for *line, usd, unpriced, prompt_tokens, completion_tokens, images in db.execute(query, (project,)):
        today = budget.cost(line[2], prompt_tokens, completion_tokens, images) if unpriced else 0.0
        found.append(Spent._make([*line, None if today is None else usd + today]))
    return found


def _runs(process: str) -> bool:
    node, pid, started = process.rsplit(" ", 2)
    try:
        found = psutil.Process(int(pid))
        same = node == platform.node() and found.create_time() == float(started)
        return same and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
