"""Paying for one reply: each attempt at it is reserved in the ledger before it is made, and settled after."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import openai

from ltgc.clients import pool
from ltgc.clients.ledger import Call, Cost, Ledger, Outcome


class AnsweredElsewhere(openai.OpenAIError):
    """Another process has the reply by now. Of this type so that the openai client passes it on as it is."""


class Payment:
    """One question that is paid for. The HTTP client finds it as `paying` and tells it of every attempt."""

    def __init__(self, ledger: Ledger, call: Call) -> None:
        self._ledger = ledger
        self.call = call
        self._reservation: int | None = None  # of the attempt under way

    async def attempt(self) -> None:
        """Reserve what the next attempt can cost, unless that is done. Raises LTGCError, AnsweredElsewhere."""
        if self._reservation is None:
            self._reservation = await self._ledger.reserve(self.call)
            if self._reservation is None:
                raise AnsweredElsewhere("another process has the reply")

    async def failed(self, outcome: Outcome) -> None:
        """Settle an attempt that brought no reply. What may have been billed counts with all that was reserved."""
        if self._reservation is not None:
            reservation, self._reservation = self._reservation, None
            usd = 0.0 if outcome == "not billed" else self.call.usd
            await self._ledger.settle(reservation, Cost(outcome, usd), lambda db: None)

    async def keep(self, reply: dict[str, Any], cost: Cost) -> int:
        """Store the reply and settle the attempt that brought it, both or neither; the number of the reply."""
        reservation, self._reservation = self._reservation, None
        call = self.call
        return await self._ledger.settle(
            reservation, cost, lambda db: pool.insert(db, call.key, call.address, reply)
        )

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """Ask inside. An attempt that is cancelled there may have been billed."""
        token = paying.set(self)
        try:
            yield
        finally:
            paying.reset(token)
            await self.failed("possibly billed")


paying: ContextVar[Payment | None] = ContextVar("paying", default=None)
