"""How fast a server is asked: requests in flight, and requests and tokens a minute."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic
from typing import Any

from langchain_core.messages import BaseMessage

from ltgc.pipeline.settings.servers import ServerSettings

CHARACTERS_A_TOKEN = 4  # of English, where no server counts for us
LOOK = 0.25  # seconds between looks at what was given back in the meantime


class Pace:
    """At most `per_minute` requests or tokens a minute, evenly spaced, so that no minute of the server sees more.

    Not aiolimiter: it lets a full bucket out at once (twice the limit in the first minute) and cannot take back
    tokens that were reserved and not used.
    """

    def __init__(
        self,
        per_minute: int | None,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.seconds = 60 / per_minute if per_minute else 0.0  # between two of them
        self._clock, self._sleep = clock, sleep
        self._free_at = 0.0
        self._turn = asyncio.Lock()  # first come, first served

    async def take(self, amount: int = 1) -> None:
        """Wait until everything taken before has had its share of time."""
        if not self.seconds:
            return
        async with self._turn:
            while (wait := self._free_at - self._clock()) > 0:
                await self._sleep(min(wait, LOOK))
            self._free_at = max(self._free_at, self._clock()) + amount * self.seconds

    def give_back(self, amount: int) -> None:
        """Return `amount` of what was taken and not used; negative: more was used than was taken."""
        self._free_at -= amount * self.seconds


class Limits:
    """The limits of one server. Sections with the same base_url share them; the strictest counts."""

    def __init__(self, sections: Sequence[ServerSettings]) -> None:
        self.concurrency = min(section.concurrency for section in sections)
        self.slots = asyncio.Semaphore(self.concurrency)
        self.requests = Pace(_least(section.requests_per_minute for section in sections))
        self.tokens = Pace(_least(section.tokens_per_minute for section in sections))


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def tokens(text: str) -> int:
    """An estimate of the tokens of `text`."""
    return -(-len(text) // CHARACTERS_A_TOKEN)


def question_tokens(messages: Sequence[BaseMessage], image_tokens: int) -> int:
    """An estimate of the prompt tokens of a question. image_tokens: what one image in it counts as."""
    total = 0
    for message in messages:
        parts = [message.content] if isinstance(message.content, str) else message.content
        for part in parts:
            if isinstance(part, dict) and part["type"] == "image_url":
                total += image_tokens
            else:
                total += tokens(part if isinstance(part, str) else part["text"])
    return total
