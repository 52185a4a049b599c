"""What the stores have cost so far, and the cap that the next call may not pass.

The cap covers the whole pipeline: every reply in every store, whoever paid for it and whether an artifact still
uses it, and what this run adds. A call reserves the most that it can cost before it is made and gives the
rest back when its reply is stored, so that calls in flight together cannot pass the cap.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage

from ltgc.pipeline import params
from ltgc.pipeline.artifacts.replies import STORE
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import LOCAL, BudgetSettings, Price

MILLION = 1_000_000
# What a chat API adds around each message (roles, separators): 3 or 4 tokens on OpenAI's models.
MESSAGE_TOKENS = 8
FLEX = 0.5  # of the standard price
ROUNDING = 1e-9  # USD; sums of many small prices


def load() -> "Budget":
    """The budget that params.yaml sets, with what the stores of the pipeline have cost so far.

    No stage declares `budget` and `prices` in dvc.yaml, though every stage that calls a model reads them: no
    artifact depends on them, and raising a cap must not run anything again.
    """
    settings = params.load("budget", "prices")
    budget = Budget(settings.budget, settings.prices)
    if budget.capped:
        for _, reply in stored():
            budget.spend(reply)
    return budget


def stored(folder: Path = STORE) -> Iterator[tuple[str, dict[str, Any]]]:
    """(stage, reply) of everything in the stores. A torn last line is no reply."""
    for path in sorted(folder.glob("*/*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield path.parent.name, json.loads(line)


class Budget:
    """What has been spent, and whether the next call fits under the caps."""

    def __init__(self, caps: BudgetSettings | None = None, prices: Mapping[str, Price] | None = None) -> None:
        self._caps = caps or BudgetSettings(max_usd=None, max_calls=None)
        self._prices = prices or {}
        self.lost: Mapping[str, Path] = {}  # model -> the store that held its replies and is not here
        self.calls = 0
        self.usd: float | None = 0.0  # None: a model has no price
        self._in_flight = 0
        self._reserved = 0.0  # USD
        self._settled = asyncio.Condition()

    @property
    def capped(self) -> bool:
        return self._caps.max_usd is not None or self._caps.max_calls is not None

    def _price(self, model: str) -> Price | None:
        """None if it has none. A model on this machine costs nothing unless it is priced."""
        return self._prices.get(model, Price() if model.startswith(LOCAL) else None)

    def tokens_cost(
        self, model: str, prompt_tokens: float, completion_tokens: float, tier: str | None = None
    ) -> float | None:
        """USD; None if the model has no price. tier: "flex" is half the price."""
        if (price := self._price(model)) is None:
            return None
        share = FLEX if tier == "flex" else 1
        return (prompt_tokens * price.input + completion_tokens * price.output) / MILLION * share

    def image_cost(self, model: str, prompt_tokens: float = 0, image_tokens: float = 0) -> float | None:
        """USD of one drawing, by its tokens or by the price of an image, as the model is priced."""
        price = self._price(model)
        usd = self.tokens_cost(model, prompt_tokens, image_tokens)
        return None if price is None or usd is None else usd + price.image

    def image_tokens(self, model: str) -> int:
        """Prompt tokens that an image in a question counts as."""
        return self._prices.get(model, Price()).image_tokens

    def cost(self, reply: dict[str, Any]) -> float | None:
        """USD that a stored reply cost. A refusal to draw is not charged for."""
        model = reply.get("model", "")
        if "text" in reply:
            return self.tokens_cost(model, *_tokens(reply), reply.get("service_tier"))
        return self.image_cost(model, *_tokens(reply)) if "image" in reply else 0.0

    def spend(self, reply: dict[str, Any]) -> float | None:
        """Count a stored reply; what it cost."""
        usd = self.cost(reply)
        if usd is None and self._caps.max_usd is not None:
            raise _no_price(reply.get("model", ""))
        self.calls += 1
        self.usd = None if usd is None or self.usd is None else self.usd + usd
        return usd

    def question(self, model: str, messages: list[BaseMessage], max_tokens: int) -> float | None:
        """The most that a question can cost: no tokeniser makes more tokens of a text than it has bytes."""
        tokens = 0
        for message in messages:
            parts = [message.content] if isinstance(message.content, str) else message.content
            tokens += MESSAGE_TOKENS
            for part in parts:
                if isinstance(part, dict) and part["type"] == "image_url":
                    tokens += self.image_tokens(model)
                else:
                    tokens += len((part if isinstance(part, str) else part["text"]).encode("utf-8", "replace"))
        return self.tokens_cost(model, tokens, max_tokens)

    @asynccontextmanager
    async def reserve(self, model: str, usd: float | None) -> AsyncIterator[None]:
        """Make one call of at most `usd` inside. Waits for calls in flight where these may leave room for it.

        Raises LTGCError when it could pass a cap; no call is in flight then, so nothing paid is lost. Also when
        the call costs something and the store that has its reply already, as dvc.lock says, is gone.
        """
        if model in self.lost and usd != 0:
            raise LTGCError(
                f"{self.lost[model]}: not there, but dvc.lock says that replies of {model} were paid for; "
                "get them with `dvc checkout` or `dvc pull`, or delete dvc.lock to pay for them again"
            )
        if not self.capped:
            yield
            return
        if usd is None and self._caps.max_usd is not None:
            raise _no_price(model)
        usd = usd or 0.0
        async with self._settled:
            while (passed := self._passed(usd)) is not None:
                if not self._in_flight:
                    raise LTGCError(passed)
                await self._settled.wait()
            self._in_flight += 1
            self._reserved += usd
        try:
            yield
        finally:
            async with self._settled:
                self._in_flight -= 1
                self._reserved -= usd
                self._settled.notify_all()

    def _passed(self, usd: float) -> str | None:
        """Which cap one call more could pass; None if it fits."""
        max_usd, max_calls = self._caps.max_usd, self._caps.max_calls
        rest = "raise it in params.yaml and run again, everything paid for is kept"
        if max_calls is not None and self.calls + self._in_flight + 1 > max_calls:
            return f"budget.max_calls: {max_calls:,} calls are reached, the stores hold {self.calls:,}; {rest}"
        spent = self.usd or 0.0
        if max_usd is not None and spent + self._reserved + usd > max_usd + ROUNDING:
            return (
                f"budget.max_usd: the stores hold replies for ${spent:,.4f} and the next call may cost "
                f"${usd:,.4f}, which could pass ${max_usd:,.4f}; {rest}"
            )
        return None


def _tokens(reply: dict[str, Any]) -> tuple[int, int]:
    return reply.get("prompt_tokens", 0), reply.get("completion_tokens", 0)


def _no_price(model: str) -> LTGCError:
    return LTGCError(f"prices: no price for the model {model!r}, and budget.max_usd is set; add it to params.yaml")
