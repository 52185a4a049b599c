"""How fast a server is asked: requests in flight, and requests and tokens a minute."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic
from typing import Any

from langchain_core.messages import BaseMessage

from ltgc.pipeline.settings.servers import ServerSettings

CHARACTERS_A_TOKEN = 4  # of English, where no server counts for us
LOOK = 0.25  # seconds; tokens that were not used come back while one waits


class Pace:
    """At most so many a minute, evenly: there is no burst, so no minute of the server's sees more.

    Own lines and not aiolimiter: that one lets a full bucket out at once (twice the limit in the first minute)
    and cannot take back tokens that were reserved and not used.
    """

    def __init__(
        self,
        per_minute: int | None,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.seconds = 60 / per_minute if per_minute else 0.0  # that one takes
        self._clock, self._sleep = clock, sleep
        self._free_at = 0.0
        self._turn = asyncio.Lock()  # first come, first served

    async def take(self, amount: int = 1) -> None:
        """Wait until all that was taken before has had its time."""
        if not self.seconds:
            return
        async with self._turn:
            while (wait := self._free_at - self._clock()) > 0:
                await self._sleep(min(wait, LOOK))
            self._free_at = max(self._free_at, self._clock()) + amount * self.seconds

    def give_back(self, amount: int) -> None:
        """Of what was taken, so much was not used (more, if negative)."""
        self._free_at -= amount * self.seconds


class Limits:
    """Of one server; sections of params.yaml with the same base_url share them, and the strictest counts."""

    def __init__(self, sections: Sequence[ServerSettings]) -> None:
        self.concurrency = min(section.concurrency for section in sections)
        self.slots = asyncio.Semaphore(self.concurrency)
        self.requests = Pace(_least(section.requests_per_minute for section in sections))
        self.tokens = Pace(_least(section.tokens_per_minute for section in sections))


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def tokens(text: str) -> int:
    """An estimate."""
    return -(-len(text) // CHARACTERS_A_TOKEN)


def question_tokens(messages: Sequence[BaseMessage], image_tokens: int) -> int:
    """An estimate of the prompt tokens of a question; image_tokens: of one image in it."""
    total = 0
    for message in messages:
        parts = [message.content] if isinstance(message.content, str) else message.content
        for part in parts:
            if isinstance(part, dict) and part["type"] == "image_url":
                total += image_tokens
            else:
                total += tokens(part if isinstance(part, str) else part["text"])
    return total
