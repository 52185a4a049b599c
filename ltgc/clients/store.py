"""The replies of one run of a stage: found in the pool, paid for where they are not, shared when the stage ends.

When a stage starts, the shared store that it finds in the workspace (what dvc.lock names, pulled or made here) is
taken into the pool, and its replies go before others to the same question. When the stage ends well, the shared
store is written anew with what the artifacts used, and no more.
"""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from ltgc.clients import pool, project, shared_store
from ltgc.clients.budget import Budget
from ltgc.clients.ledger import Call, Cost, Ledger
from ltgc.clients.payments import AnsweredElsewhere, Payment
from ltgc.clients.pool import Pool
from ltgc.clients.tally import Tally
from ltgc.data.synthetic import marked
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import EMBEDDED, ServerSettings


def key_of(*determining: Any) -> str:
    """SHA-256 of everything that determines a reply, as JSON."""
    text = json.dumps(determining, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Account(NamedTuple):
    """A pool, and the ledger in it."""

    pool: Pool
    ledger: Ledger


class Store:
    """The replies that one run of a stage uses. A context manager."""

    def __init__(
        self,
        folder: Path,
        sections: Sequence[ServerSettings],
        budget: Budget | None = None,
        share: bool = True,
        reuse: bool = True,
    ) -> None:
        """folder: the shared store, store/<stage>; sections: of params.yaml, whose models the stage asks.

        share: False leaves the shared store as it is; reuse: False asks what is in the pool again.
        """
        self.folder = folder
        self.budget = budget or Budget()
        self.tally = Tally()
        self._sections = sections
        self._shares, self._reuses = share, reuse
        self._embedded_models = {section.billed_as for section in sections if section.embedded}
        self._accounts: dict[bool, Account] = {}  # by whether the pool is that of the embedded endpoint's replies
        self._bought_before: set[str] | None = None  # models whose replies were paid for, and are not all here
        # On disk, as they may be many: replies that are used, and those that the shared store had at the start.
        self._notes = sqlite3.connect("", isolation_level=None)
        self._notes.execute("CREATE TABLE used (slug, key, embedded, id, PRIMARY KEY (slug, key)) WITHOUT ROWID")
        self._notes.execute("CREATE TABLE named (rank INTEGER PRIMARY KEY, embedded, id, UNIQUE (embedded, id))")

    def __enter__(self) -> Self:
        """Raises LTGCError where a pool cannot be written to or is full: before anything is paid for."""
        try:
            for section in self._sections:
                self._account(section.embedded).pool.check_room()
            self._take_in()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._shares:
                self._share()
        finally:
            self.close()

    def close(self) -> None:
        """Leave the shared store as it is."""
        for account in self._accounts.values():
            account.pool.close()
        self._notes.close()

    def get(self, address: str, slug: str, key: str) -> dict[str, Any] | None:
        """The reply of the server at `address`, if it is in the pool; it will be shared with the class `slug`."""
        embedded = address == EMBEDDED
        replies = self._account(embedded).pool
        found = {stored.id: stored.reply for stored in replies.find(key, address)}
        usable = [id for id, reply in found.items() if self._usable(replies, reply)]
        if not usable:
            return None
        id = self._first_named(embedded, usable) if len(usable) > 1 else usable[0]
        self._note_used(slug, key, embedded, id)
        self.tally.cached += 1
        return found[id]

    async def claim(self, address: str, key: str, model: str, usd: float | None) -> Payment:
        """Reserve a call that costs at most `usd` (None: it has no price), before it is made.

        Raises AnsweredElsewhere if another process has just stored the reply; LTGCError if the call could pass the
        cap, if there is no room to keep its reply, or if dvc.lock says that it may have been paid for already.
        """
        account = self._account(address == EMBEDDED)
        if usd != 0:
            self._refuse_to_buy_twice(account.pool, model)
        account.pool.check_room()
        found = account.pool.find(key, address)
        if any(self._usable(account.pool, stored.reply) for stored in found):
            raise AnsweredElsewhere("another process has the reply")  # while this one waited for its turn
        known = max((stored.id for stored in found), default=0)
        payment = Payment(account.ledger, Call(key, address, model, usd, known))
        await payment.attempt()
        return payment

    async def keep(
        self, payment: Payment, slug: str, reply: dict[str, Any], cost: Cost, image: bytes | None = None
    ) -> dict[str, Any]:
        """Store what was paid for; the reply. First the drawing, marked as synthetic, then the reply naming it."""
        embedded = payment.call.address == EMBEDDED
        if image is not None:
            image = marked(image)
            reply = reply | {"image": await asyncio.to_thread(self._account(embedded).pool.put_image, image)}
        id = await payment.keep(reply, cost)
        self._note_used(slug, payment.call.key, embedded, id)
        self.tally.spend(cost)
        return reply

    def _usable(self, replies: Pool, reply: dict[str, Any]) -> bool:
        """Whether a reply in the pool answers a question: its drawing is there, and replies are used again."""
        return self._reuses and ("image" not in reply or replies.has_image(reply["image"]))

    def image(self, sha256: str) -> bytes:
        """The bytes of a drawing as they came. Raises LTGCError where they are damaged."""
        pools = [account.pool for account in self._accounts.values()]
        return next(each for each in pools if each.has_image(sha256)).read_image(sha256)

    def _account(self, embedded: bool) -> Account:
        """The pool of the embedded endpoint's replies or that of all others, opened when it is first needed."""
        if embedded not in self._accounts:
            replies = Pool(pool.project_folder() if embedded else pool.user_folder())
            budget = Budget(prices=self.budget.prices) if embedded else self.budget  # no cap on what costs nothing
            name, experiment = project.name(budget.caps), project.experiment()
            ledger = Ledger(replies.database, self.folder.name, name, experiment, budget)
            self._accounts[embedded] = Account(replies, ledger)
        return self._accounts[embedded]

    def _take_in(self) -> None:
        """Take the shared store into the pool, with its drawings, and note which replies it names."""
        if not self.folder.is_dir():
            return
        whole = True
        for slug, lines in groupby(shared_store.read(self.folder), lambda line: line[0]):
            of_class: dict[bool, dict[str, Any]] = {True: {}, False: {}}
            for _, key, reply in lines:  # the first of two with one key counts
                of_class[reply.get("model") in self._embedded_models].setdefault(key, reply)
            for embedded, replies in of_class.items():
                whole &= not replies or self._take_in_class(embedded, slug, replies)
        named, _ = shared_store.named_by_dvc(self.folder)
        if whole and named and named == shared_store.md5(self.folder):
            self._note_store(named)

    def _take_in_class(self, embedded: bool, slug: str, replies: dict[str, dict[str, Any]]) -> bool:
        """Whether all drawings of the class could be found."""
        into = self._account(embedded).pool
        images = {reply["image"] for reply in replies.values() if "image" in reply}
        lacking = {image for image in images if not into.has_image(image)}
        shared_store.find_images(self.folder, slug, lacking, into.put_image)
        ids = into.database.write_now(
            lambda db: [pool.insert(db, key, pool.UNKNOWN, reply) for key, reply in replies.items()]
        )
        query = "INSERT OR IGNORE INTO named (embedded, id) VALUES (?, ?)"
        self._notes.executemany(query, [(embedded, id) for id in ids])
        return not lacking

    def _first_named(self, embedded: bool, ids: list[int]) -> int:
        """Of several replies to one question the one that the shared store named; else the oldest."""
        marks = ",".join("?" * len(ids))
        query = f"SELECT id FROM named WHERE embedded = ? AND id IN ({marks}) ORDER BY rank LIMIT 1"
        row = self._notes.execute(query, (embedded, *ids)).fetchone()
        return int(row[0]) if row else ids[0]

    def _note_used(self, slug: str, key: str, embedded: bool, id: int) -> None:
        self._notes.execute("INSERT OR REPLACE INTO used VALUES (?, ?, ?, ?)", (slug, key, embedded, id))

    def _share(self) -> None:
        """Write the shared store: what was used, no more."""
        shared_store.write(self.folder, self._used())
        self._note_store(shared_store.md5(self.folder))

    def _used(self) -> Iterator[tuple[str, str, str]]:
        for slug, key, embedded, id in self._notes.execute("SELECT * FROM used ORDER BY slug, key"):
            yield slug, key, self._accounts[bool(embedded)].pool.by_id(id).text

    def _note_store(self, md5: str) -> None:
        for account in self._accounts.values():
            account.pool.database.write_now(lambda db: pool.note_store(db, md5))

    def _refuse_to_buy_twice(self, replies: Pool, model: str) -> None:
        """Raises LTGCError where dvc.lock names a store of this model that has never been here as a whole."""
        if self._bought_before is None:
            md5, models = shared_store.named_by_dvc(self.folder)
            self._bought_before = models if md5 and not replies.knows_store(md5) else set()
        if model in self._bought_before:
            raise LTGCError(
                f"{self.folder}: dvc.lock says that replies of {model} were paid for, and not all are here; "
                "get them with `dvc checkout` or `dvc pull` (with generated/, where drawings are), or delete "
                "dvc.lock to pay for them again"
            )
