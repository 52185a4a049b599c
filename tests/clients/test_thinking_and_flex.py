"""What models of today are billed by: thinking, flex processing, the tokens of an image; and what goes wrong."""

import asyncio
import base64
import json
from pathlib import Path

import pytest
from helpers.openai_server import Body, Fault, Script, chat_body
from helpers.server_settings import SLUG, chat_section, png, t2i_section
from langchain_core.messages import HumanMessage

from ltgc.clients import drawing_tokens, server
from ltgc.clients.budget import Budget
from ltgc.clients.chat import Chat, Reply
from ltgc.clients.costs import priced
from ltgc.clients.openai_painter import OpenAIPainter
from ltgc.clients.store import Store, key_of
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import BudgetSettings, ChatSettings, Price


@pytest.fixture
def script(running_server: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    running_server.reset()
    monkeypatch.setenv("TEST_KEY", "sk-very-secret-0123456789")
    running_server.chat = lambda request: "x"
    return running_server


def ask(section: ChatSettings, folder: Path, *questions: str) -> list[Reply]:
    async def one_by_one() -> list[Reply]:
        with server.running(llm=section) as (llm,), Store(folder, [section]) as store:
            async with Chat(llm, store) as chat:
                return [await chat.ask(SLUG, [HumanMessage(question)]) for question in questions]

    return asyncio.run(one_by_one())


def test_effort_and_extra_fields_are_sent_and_count_in_the_key_only_where_they_are_set(script, tmp_path):
    plain = chat_section(script)
    ask(plain, tmp_path, "a")
    assert not {"reasoning_effort", "service_tier", "verbosity"} & script.requests[0].keys()
    (line,) = (tmp_path / f"{SLUG}.jsonl").read_text().splitlines()
    settings = {"model": "m", "temperature": 0.5, "max_tokens": 100, "seed": 1}
    assert json.loads(line)["key"] == key_of(settings, [["human", "a"]])  # as before there were these keys
    ask(plain.model_copy(update={"reasoning_effort": "none", "extra_body": {"verbosity": "low"}}), tmp_path, "a")
    assert script.requests[1]["reasoning_effort"] == "none" and script.requests[1]["verbosity"] == "low"
    ask(plain.model_copy(update={"service_tier": "flex", "timeout": 900.0}), tmp_path, "a")
    assert script.calls == 2  # the tier is no part of the key
    with pytest.raises(ValueError, match="extra_body: seed has a key of its own"):
        chat_section(script, extra_body={"seed": 2})


def test_thinking_is_counted_apart_and_billed_with_the_reply(script, tmp_path):
    script.replies = [chat_body("x", thinking=40)]
    (reply,) = ask(chat_section(script), tmp_path, "a")
    assert (reply.completion_tokens, reply.reasoning_tokens, reply.counts["reasoning_tokens"]) == (43, 40, 40)
    assert ask(chat_section(script), tmp_path, "a") == [reply] and script.calls == 1


def test_a_reply_that_is_all_thinking_is_a_fault_of_its_own_and_many_stop_the_stage(script, tmp_path):
    script.chat = lambda request: chat_body("", "length", thinking=97)
    (reply,) = ask(chat_section(script), tmp_path, "a")
    assert reply.failure == reply.unusable == "only_thought"
    assert ask(chat_section(script), tmp_path, "a") == [reply] and script.calls == 1  # paid for, and stored
    with pytest.raises(LTGCError, match=r"set llm\.reasoning_effort: none or lower, or raise max_tokens"):
        ask(chat_section(script), tmp_path, *map(str, range(100)))
    assert script.calls == 1 + server.ENOUGH + 1


def test_flex_is_stored_for_the_bill_needs_time_and_has_its_own_fault(script, tmp_path):
    section = chat_section(script, service_tier="flex", timeout=900)
    script.replies = [chat_body("x", service_tier="flex"), chat_body("x", service_tier="default")]
    served, standard = ask(section, tmp_path, "a", "b")
    assert script.requests[0]["service_tier"] == "flex"
    assert (served.service_tier, standard.service_tier) == ("flex", None)
    assert served.counts["flex_prompt_tokens"] == 10 and "flex_prompt_tokens" not in standard.counts
    script.chat = lambda request: Fault(429, "resource_unavailable", "Resource Unavailable")
    assert ask(section, tmp_path, "c")[0].failure == "flex_unavailable"
    with pytest.raises(LTGCError, match=r"set it to null for the standard price"):
        ask(section, tmp_path, *map(str, range(30)))
    with pytest.raises(ValueError, match="set timeout: 900"):
        chat_section(script, service_tier="flex")


def test_flex_is_half_the_price_and_thinking_stands_beside_the_tokens():
    prices = {"m": Price(input=1, output=10)}
    cost = priced(prices, "m", "m", 2, 2e6, 1e6, reasoning_tokens=4e5, flex=(1e6, 5e5))
    assert (cost.usd, cost.completion_tokens, cost.reasoning_tokens) == (1 + 5 + 0.5 + 2.5, 1e6, 4e5)
    assert Budget(prices=prices).cost("m", 1e6, 0, tier="flex") == 0.5


def test_an_image_that_is_billed_by_tokens_costs_what_the_reply_says_and_reserves_what_it_may_come_to(
    script, tmp_path
):
    usage = {"input_tokens": 20, "output_tokens": 196, "total_tokens": 216}
    body = {"created": 0, "data": [{"b64_json": base64.b64encode(png()).decode()}], "usage": usage}
    script.image = lambda request: Body(body)
    section = t2i_section(script, model="gpt-image-2.5-flare", quality="low", size="1024x1024")
    prices = {"gpt-image-2.5-flare": Price(input=5, output=30)}

    async def draw(cap: float | None) -> float | None:
        budget = Budget(BudgetSettings(max_usd=cap, max_calls=None), prices)
        with server.running(t2i=section) as (t2i,), Store(tmp_path, [section], budget) as store:
            async with OpenAIPainter(t2i, store) as painter:
                drawing = await painter.draw(SLUG, "a rose", 7)
            assert (drawing.prompt_tokens, drawing.image_tokens) == (20, 196)
            return store.tally.usd

    with pytest.raises(LTGCError, match=r"the next call may cost \$0\.00"):
        asyncio.run(draw(0.001))
    assert script.calls == 0
    assert asyncio.run(draw(1)) == pytest.approx((20 * 5 + 196 * 30) / 1e6)


@pytest.mark.parametrize(
    "model, quality, size, tokens",
    [  # OpenAI's examples of gpt-image-2: 0.006, 0.053 and 0.211 USD; 2.5 has other steps
        ("gpt-image-2", "low", "1024x1024", 196),
        ("gpt-image-2", "medium", "1024x1024", 1756),
        ("gpt-image-2", "high", "1024x1024", 7024),
        ("gpt-image-2.5-flare", "medium", "1536x1024", 343),
        ("gpt-image-2.5-flare", None, "auto", 1372),  # left to the model: as if it were high
        ("gpt-image-2.6-flare", "low", "1024x1024", 4 * 196),
    ],
)
def test_tokens_of_an_image_follow_from_its_size_and_quality(script, model, quality, size, tokens):
    section = t2i_section(script, model=model, quality=quality, size=size)
    assert drawing_tokens.expected(section, "a rose")[1] == pytest.approx(tokens, rel=0.005)
