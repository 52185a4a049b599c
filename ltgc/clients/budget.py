"""What calls cost, and the caps that the next call may not pass."""

from collections.abc import Mapping

from langchain_core.messages import BaseMessage

from ltgc.pipeline import params
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import LOCAL, BudgetSettings, Price

MILLION = 1_000_000
# What a chat API adds around each message (roles, separators): 3 or 4 tokens on OpenAI's models.
MESSAGE_TOKENS = 8
FLEX = 0.5  # of the standard price
ROUNDING = 1e-9  # USD; sums of many small prices


def load() -> "Budget":
    """The caps and prices that params.yaml sets.

    No stage declares `budget` and `prices` in dvc.yaml, though every stage that calls a model reads them: no
    artifact depends on them, and raising a cap must not run anything again.
    """
    settings = params.load("budget", "prices")
    return Budget(settings.budget, settings.prices)


class Budget:
    """Prices of models, and the caps."""

    def __init__(self, caps: BudgetSettings | None = None, prices: Mapping[str, Price] | None = None) -> None:
        self.caps = caps or BudgetSettings(max_usd=None, max_calls=None)
        self.prices = prices or {}

    @property
    def capped(self) -> bool:
        return self.caps.max_usd is not None or self.caps.max_calls is not None

    def _price(self, model: str) -> Price | None:
        """None if it has none. A model on this machine costs nothing unless it is priced."""
        return self.prices.get(model, Price() if model.startswith(LOCAL) else None)

    def cost(
        self,
        model: str,
        prompt_tokens: float = 0,
        completion_tokens: float = 0,
        images: float = 0,
        tier: str | None = None,
        cached: tuple[float, float] = (0, 0),
    ) -> float | None:
        """USD; None if the model has no price. tier: "flex" is half the price.

        cached: of the prompt tokens, those that the provider had in its cache and those that it put there.

        A drawing is billed by its tokens or as one of `images`, as the model is priced.
        """
        if (price := self._price(model)) is None:
            return None
        share = FLEX if tier == "flex" else 1
        usd = prompt_tokens * price.input + completion_tokens * price.output
        for tokens, own in zip(cached, (price.cached_input, price.cache_write), strict=True):
            usd += tokens * (price.input if own is None else own) - tokens * price.input
        return share * usd / MILLION + images * price.image

    def image_tokens(self, model: str) -> int:
        """Prompt tokens that an image in a question counts as."""
        return self.prices.get(model, Price()).image_tokens

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
        return self.cost(model, tokens, max_tokens, cached=(0, tokens))

    def passed(self, spent: float, calls: int, model: str, usd: float | None) -> LTGCError | None:
        """The error for a call that could pass a cap; None if it fits.

        spent: USD, with what is in flight at the most that it can cost; calls: in the same way; usd: the most that
        the next call can cost, None if its model has no price.
        """
        max_usd, max_calls = self.caps.max_usd, self.caps.max_calls
        remedy = "raise it in params.yaml and run again, everything paid for is kept (`ltgc spent` lists it)"
        if max_calls is not None and calls + 1 > max_calls:
            return LTGCError(f"budget.max_calls: {max_calls:,} calls are reached; {remedy}")
        if max_usd is None:
            return None
        if usd is None:
            return LTGCError(
                f"prices: no price for the model {model!r}, and budget.max_usd is set; add it to params.yaml"
            )
        if spent + usd > max_usd + ROUNDING:
            return LTGCError(
                f"budget.max_usd: this project has spent ${spent:,.4f} and the next call may cost ${usd:,.4f}, "
                f"which could pass ${max_usd:,.4f}; {remedy}"
            )
        return None
