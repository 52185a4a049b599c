"""What calls and drawings cost, a stage at a time."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ltgc.clients.budget import Budget
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.servers import Price

SEEING = ("describe", "ask")  # stages that ask the vision model


@dataclass(frozen=True)
class Cost:
    """What one stage asks for: calls to a chat model with their tokens, and drawn images."""

    calls: float = 0
    images: float = 0
    prompt_tokens: float = 0
    completion_tokens: float = 0
    usd: float | None = 0.0  # None: a model has no price
    reasoning_tokens: float = 0  # of completion_tokens

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.calls + other.calls,
            self.images + other.images,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            None if self.usd is None or other.usd is None else self.usd + other.usd,
            self.reasoning_tokens + other.reasoning_tokens,
        )


def priced(
    prices: Mapping[str, Price],
    chat_model: str,
    t2i_model: str,
    calls: float,
    prompt_tokens: float,
    completion_tokens: float,
    images: float = 0,
    reasoning_tokens: float = 0,
    flex: tuple[float, float] = (0, 0),
    drawing_tokens: tuple[float, float] = (0, 0),
    cached: tuple[float, float] = (0, 0),
    flex_cached: tuple[float, float] = (0, 0),
) -> Cost:
    """The cost of these calls and images. A model that is not used needs no price.

    flex: the prompt and completion tokens (of those above) at the price of flex; drawing_tokens: of prompts and
    of images, in all, where drawings are billed by tokens; cached: of the prompt tokens at the standard price,
    those that the provider had in its cache and those that it put there; flex_cached: the same of flex.
    """
    budget = Budget(prices=prices)
    parts: list[float | None] = []
    if calls:
        standard = prompt_tokens - flex[0], completion_tokens - flex[1]
        parts.append(budget.cost(chat_model, *standard, cached=cached))
        parts.append(budget.cost(chat_model, *flex, tier="flex", cached=flex_cached))
    if images:
        parts.append(budget.cost(t2i_model, *drawing_tokens, images=images))
    known = [usd for usd in parts if usd is not None]
    total = sum(known) if len(known) == len(parts) else None
    return Cost(calls, images, prompt_tokens, completion_tokens, total, reasoning_tokens)


def stage_cost(section: Params, stage: str, counted: Mapping[str, Any]) -> Cost:
    """What a stage's artifacts needed, whether it was paid for in this run or before.

    counted: metrics/calls/<stage>.json, and `drawn` images. What begins with "vision_" was asked of the vision
    model by a stage that asks the LLM as well. section: llm.model, vision.model, t2i and prices.
    """
    seen = {name.removeprefix("vision_"): n for name, n in counted.items() if name.startswith("vision_")}
    chat_model = section.vision.model if stage in SEEING else section.llm.model
    cost = _model_cost(section, chat_model, counted)
    return cost + _model_cost(section, section.vision.model, seen) if seen else cost


def _model_cost(section: Params, chat_model: str, counted: Mapping[str, Any]) -> Cost:
    def tokens(*names: str) -> tuple[float, float]:
        first, second = (counted.get(name, 0) for name in names)
        return first, second

    return priced(
        section.prices,
        chat_model=chat_model,
        t2i_model=section.t2i.billed_as,
        calls=counted.get("calls", 0),
        prompt_tokens=counted.get("prompt_tokens", 0),
        completion_tokens=counted.get("completion_tokens", 0),
        images=counted.get("drawn", 0),
        reasoning_tokens=counted.get("reasoning_tokens", 0),
        flex=tokens("flex_prompt_tokens", "flex_completion_tokens"),
        drawing_tokens=tokens("drawing_prompt_tokens", "drawing_tokens"),
        cached=tokens("cached_tokens", "cache_write_tokens"),
        flex_cached=tokens("flex_cached_tokens", "flex_cache_write_tokens"),
    )


def cost_summary(costs: Mapping[str, Cost]) -> dict[str, Any]:
    """metrics/cost.json: each stage, and all together."""
    total = sum(costs.values(), Cost())
    return {
        name: {
            measure: value
            for measure, value in asdict(cost).items()
            if measure not in ("usd", "reasoning_tokens") or (measure == "reasoning_tokens" and value)
        }
        | {"usd": None if cost.usd is None else round(cost.usd, 6)}
        for name, cost in [*costs.items(), ("total", total)]
    }


COST_FIELDS = ["stage", "measure", "value"]
MEASURES = {  # of plots/cost.csv: the name there, and the field of Cost
    "USD": "usd",
    "calls": "calls",
    "images": "images",
    "prompt tokens": "prompt_tokens",
    "reply tokens": "completion_tokens",
    "thinking tokens": "reasoning_tokens",
}


def cost_rows(costs: Mapping[str, Cost]) -> list[dict[str, Any]]:
    """plots/cost.csv: a row for each stage and measure; none for money where a model has no price."""
    return [
        {"stage": stage, "measure": measure, "value": value}
        for stage, cost in costs.items()
        for measure, field in MEASURES.items()
        if (value := getattr(cost, field)) is not None and (value or field != "reasoning_tokens")
    ]
