"""What a stage has asked its servers so far, for its progress line."""

from dataclasses import dataclass

from ltgc.clients.ledger import Cost


@dataclass
class Tally:
    """What a stage has asked its servers so far."""

    asked: int = 0  # requests that were paid for in this run
    cached: int = 0  # requests whose reply was in the pool
    tokens: int = 0  # of the requests paid for
    usd: float | None = 0.0  # of the requests paid for; None: a model has no price

    def spend(self, cost: Cost) -> None:
        self.asked += 1
        self.tokens += cost.prompt_tokens + cost.completion_tokens
        self.usd = None if cost.usd is None or self.usd is None else self.usd + cost.usd

    def __str__(self) -> str:
        money = "price unknown" if self.usd is None else f"${self.usd:,.2f}"
        return f"{money}, {self.asked:,} calls, {self.tokens:,} tokens, {self.cached:,} from the pool"
