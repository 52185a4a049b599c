"""What calls cost, what the stores have cost so far, and the cap that the next call may not pass.

The cap covers the whole pipeline: every reply in every store, whoever paid for it and whether an artifact still
uses it, and what this run adds. A call reserves the most that it can cost before it is made and gives the
rest back when its reply is stored, so that calls in flight together cannot pass the cap.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage

from ltgc import artifacts, params
from ltgc.errors import LTGCError

MILLION = 1_000_000
# What a chat API adds around each message (roles, separators): 3 or 4 tokens on OpenAI's models.
MESSAGE_TOKENS = 8
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


def stored(folder: Path = artifacts.STORE) -> Iterator[tuple[str, dict[str, Any]]]:
    """(stage, reply) of everything in the stores. A torn last line is no reply."""
    for path in sorted(folder.glob("*/*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield path.parent.name, json.loads(line)


class Budget:
    """What has been spent, and whether the next call fits under the caps."""

    def __init__(
        self, caps: params.Budget | None = None, prices: Mapping[str, params.Price] | None = None
    ) -> None:
        self._caps = caps or params.Budget(max_usd=None, max_calls=None)
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

    def _price(self, model: str) -> params.Price | None:
        """None if it has none. A model on this machine costs nothing unless it is priced."""
        return self._prices.get(model, params.Price() if model.startswith(params.LOCAL) else None)

    def tokens_cost(self, model: str, prompt_tokens: float, completion_tokens: float) -> float | None:
        """USD; None if the model has no price."""
        price = self._price(model)
        return (prompt_tokens * price.input + completion_tokens * price.output) / MILLION if price else None

    def image_cost(self, model: str) -> float | None:
        price = self._price(model)
        return price.image if price else None

    def image_tokens(self, model: str) -> int:
        """Prompt tokens that an image in a question counts as."""
        return self._prices.get(model, params.Price()).image_tokens

    def cost(self, reply: dict[str, Any]) -> float | None:
        """USD that a stored reply cost. A refusal to draw is not charged for."""
        model = reply.get("model", "")
        if "text" in reply:
            return self.tokens_cost(model, reply.get("prompt_tokens", 0), reply.get("completion_tokens", 0))
        return self.image_cost(model) if "image" in reply else 0.0

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


def _no_price(model: str) -> LTGCError:
    return LTGCError(f"prices: no price for the model {model!r}, and budget.max_usd is set; add it to params.yaml")


@dataclass(frozen=True)
class Cost:
    """Of one stage: calls to a chat model with their tokens, and drawn images."""

    calls: float = 0
    images: float = 0
    prompt_tokens: float = 0
    completion_tokens: float = 0
    usd: float | None = 0.0  # None: a model has no price

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.calls + other.calls,
            self.images + other.images,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            None if self.usd is None or other.usd is None else self.usd + other.usd,
        )


def priced(
    prices: Mapping[str, params.Price],
    chat_model: str,
    t2i_model: str,
    calls: float,
    prompt_tokens: float,
    completion_tokens: float,
    images: float = 0,
) -> Cost:
    """The cost of so many calls and images. A model that is not used needs no price."""
    budget = Budget(prices=prices)
    usd = budget.tokens_cost(chat_model, prompt_tokens, completion_tokens) if calls else 0.0
    drawn = budget.image_cost(t2i_model) if images else 0.0
    total = None if usd is None or drawn is None else usd + images * drawn
    return Cost(calls, images, prompt_tokens, completion_tokens, total)


def summary(costs: Mapping[str, Cost]) -> dict[str, Any]:
    """metrics/cost.json: each stage, and all together."""
    total = sum(costs.values(), Cost())
    return {
        name: asdict(cost) | {"usd": None if cost.usd is None else round(cost.usd, 6)}
        for name, cost in [*costs.items(), ("total", total)]
    }


PLOT_FIELDS = ["stage", "measure", "value"]
MEASURES = {  # of plots/cost.csv: the name there, and the field of Cost
    "USD": "usd",
    "calls": "calls",
    "images": "images",
    "prompt tokens": "prompt_tokens",
    "reply tokens": "completion_tokens",
}


def plot_rows(costs: Mapping[str, Cost]) -> list[dict[str, Any]]:
    """plots/cost.csv: a row for each stage and measure; none for money where a model has no price."""
    return [
        {"stage": stage, "measure": measure, "value": value}
        for stage, cost in costs.items()
        for measure, field in MEASURES.items()
        if (value := getattr(cost, field)) is not None
    ]
