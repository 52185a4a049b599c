"""Prompt tokens that the provider had in its cache, or put there, are billed at their own prices."""

from pathlib import Path

import pytest
from helpers.openai_server import Body, Script, chat_body
from helpers.paid_calls import ask
from helpers.server_settings import chat_section

from ltgc.clients.budget import Budget
from ltgc.clients.costs import priced
from ltgc.pipeline.settings.servers import BudgetSettings, Price

PRICE = Price(input=10, cached_input=1, cache_write=20, output=100)
DETAILS = {"cached_tokens": 600_000, "cache_write_tokens": 100_000}
USAGE = {"prompt_tokens": 1_000_000, "completion_tokens": 10_000, "total_tokens": 1_010_000}
USD = 0.3 * 10 + 0.6 * 1 + 0.1 * 20 + 0.01 * 100


def answer(tier: str | None = None) -> Body:
    body = chat_body("x", service_tier=tier).value
    return Body(body | {"usage": USAGE | {"prompt_tokens_details": DETAILS}})


@pytest.mark.parametrize(("tier", "share"), [(None, 1.0), ("flex", 0.5)])
def test_the_cached_part_of_a_prompt_is_counted_stored_and_priced(running_server: Script, tmp_path, tier, share):
    running_server.reset()
    running_server.replies = [answer(tier)]
    section = chat_section(running_server, service_tier=tier, timeout=900)
    (reply,) = ask(section, tmp_path, "a")
    assert (reply.cached_tokens, reply.cache_write_tokens) == (600_000, 100_000)
    assert ask(section, tmp_path, "a") == [reply] and running_server.calls == 1  # also from the pool
    counts, prefix = reply.counts, "flex_" if tier else ""
    cached = counts[f"{prefix}cached_tokens"], counts[f"{prefix}cache_write_tokens"]
    said = 1_000_000, 10_000
    cost = priced({"m": PRICE}, "m", "", 1, *said, **{f"{prefix}cached": cached}, flex=said if tier else (0, 0))
    assert cost.usd == pytest.approx(share * USD)


def test_a_cap_counts_what_was_billed_and_reserves_the_dearest(running_server: Script, tmp_path: Path):
    running_server.reset()
    running_server.replies = [answer()]
    budget = Budget(BudgetSettings(max_usd=10, max_calls=None), {"m": PRICE})
    ask(chat_section(running_server), tmp_path, "a", budget=budget)
    assert budget.cost("m", 1_000_000, 10_000, cached=(600_000, 100_000)) == pytest.approx(USD)
    assert budget.cost("m", 1_000_000, cached=(0, 1_000_000)) == pytest.approx(20)
    assert Budget(prices={"m": Price(input=10, output=1)}).cost("m", 1_000_000, cached=(500_000, 0)) == 10
