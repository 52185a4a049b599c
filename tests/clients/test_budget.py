"""What calls cost, and the cap that stops a stage before it is passed."""

import asyncio
from pathlib import Path

import pytest
from helpers.openai_server import Body, Fault, Script, chat_body
from helpers.server_settings import KEY, SLUG, chat_section, png, t2i_section
from langchain_core.messages import HumanMessage

from ltgc.clients import budget, ledger, server
from ltgc.clients.budget import Budget
from ltgc.clients.chat import Chat
from ltgc.clients.costs import Cost, cost_rows, cost_summary, priced
from ltgc.clients.database import Database
from ltgc.clients.openai_painter import OpenAIPainter
from ltgc.clients.store import Store
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import BudgetSettings, Price

MESSAGE = budget.MESSAGE_TOKENS
PRICES = {"m": Price(input=1e6, output=1e6, image=5, image_tokens=100)}  # a dollar a token
PROJECT = "a project"
REPLY = 13.0  # USD: the test server's replies are 10 tokens and 3


@pytest.fixture
def script(running_server: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    running_server.reset()
    running_server.chat = lambda request: "x"
    running_server.image = lambda request: png()
    monkeypatch.setenv("TEST_KEY", KEY)
    return running_server


def capped(max_usd: float | None = None, max_calls: int | None = None) -> Budget:
    return Budget(BudgetSettings(max_usd=max_usd, max_calls=max_calls, project=PROJECT), PRICES)


def ask(script: Script, folder: Path, limit: Budget, *questions: str, **changes) -> Store:
    """Ask all questions at once, with 9 tokens of reply at most."""
    section = chat_section(script, max_tokens=9, **changes)

    async def all_of_them() -> Store:
        with server.running(llm=section) as (llm,), Store(folder, [section], limit) as store:
            async with Chat(llm, store) as chat:
                await asyncio.gather(*(chat.ask(SLUG, [HumanMessage(question)]) for question in questions))
                return store

    return asyncio.run(all_of_them())


def replies(pool: Path) -> int:
    return Database(pool, "the pool").rows("SELECT COUNT(*) FROM replies")[0][0]


def spent(pool: Path, limit: Budget | None = None) -> tuple[float | None, int]:
    """USD and calls, without calls in flight."""
    database = Database(pool, "the pool")
    lines = database.write_now(lambda db: ledger.spent(db, PROJECT, limit or capped()))
    assert not any(line.open for line in lines)
    known = all(line.usd is not None for line in lines)
    return sum(line.usd or 0.0 for line in lines) if known else None, sum(line.calls for line in lines)


def test_a_call_that_could_pass_the_cap_is_not_made_and_a_higher_cap_goes_on(script, tmp_path, pool_folder):
    most = 1 + MESSAGE + 9  # of a question of one letter: 18 dollars
    with pytest.raises(LTGCError, match=r"budget.max_usd: .* \$13.0000 .* could pass \$30.9900; raise it"):
        ask(script, tmp_path, capped(REPLY + most - 0.01), *"abc", concurrency=1)
    assert (script.calls, replies(pool_folder), spent(pool_folder)) == (1, 1, (REPLY, 1))

    store = ask(script, tmp_path / "another folder", capped(3 * REPLY + most), *"abc", concurrency=1)
    assert script.calls == 3  # what was paid for was not asked again
    assert (store.tally.usd, spent(pool_folder)) == (2 * REPLY, (3 * REPLY, 3))
    with pytest.raises(LTGCError, match=r"this project has spent \$52.0000 "):  # files do not matter
        ask(script, tmp_path / "a third", capped(3 * REPLY + most), "d", "e")


def test_calls_in_flight_together_cannot_pass_the_cap_and_none_of_their_replies_is_lost(
    script, tmp_path, pool_folder
):
    with pytest.raises(LTGCError, match=r"budget.max_calls: 5 calls are reached"):
        ask(script, tmp_path, capped(max_calls=5), *"abcdefghijkl", concurrency=12)
    assert (script.calls, replies(pool_folder)) == (5, 5)


def test_calls_wait_for_those_in_flight_where_these_may_leave_room(script, tmp_path, pool_folder):
    # Two reservations of 18 never fit under 32 at once; a reply of 13 and one reservation do.
    ask(script, tmp_path, capped(32), "a", "b", concurrency=2)
    assert (script.most_at_once, script.calls, spent(pool_folder)) == (1, 2, (2 * REPLY, 2))


def test_what_is_in_the_pool_needs_no_budget(script, tmp_path):
    ask(script, tmp_path, capped(), "a", "b")
    ask(script, tmp_path, capped(0, 0), "a", "b")
    assert script.calls == 2


def test_a_failed_call_costs_nothing_and_an_answer_without_use_costs_what_was_reserved(
    script, tmp_path, pool_folder
):
    script.replies = [Fault(500), Fault(400), chat_body("half a", "length"), Body({"choices": 5})]
    ask(script, tmp_path, capped(max_calls=2), *"abcd", concurrency=1)
    assert script.calls == 4
    most = 1 + MESSAGE + 9
    assert spent(pool_folder) == (REPLY + most, 2)
    (line,) = Database(pool_folder, "").write_now(lambda db: ledger.spent(db, PROJECT, capped()))
    assert (line.stage, line.model, line.useless) == (tmp_path.name, "m", 2)


def test_drawings_count_as_calls_and_cost_their_price(script, tmp_path, pool_folder):
    async def draw() -> None:
        section = t2i_section(script, concurrency=4)
        limit = capped(max_usd=10)
        with server.running(t2i=section) as (t2i,), Store(tmp_path, [section], limit) as store:
            async with OpenAIPainter(t2i, store) as painter:
                await asyncio.gather(*(painter.draw(SLUG, "a rose", seed) for seed in range(4)))

    with pytest.raises(LTGCError, match=r"budget.max_usd: .* \$10.0000 "):
        asyncio.run(draw())
    assert (script.calls, replies(pool_folder), spent(pool_folder)) == (2, 2, (10.0, 2))


def test_a_cap_in_money_needs_a_price_and_without_one_the_price_is_unknown(script, tmp_path):
    with pytest.raises(LTGCError, match="prices: no price for the model 'other'"):
        ask(script, tmp_path, capped(1.0), "a", model="other")
    assert script.calls == 0
    store = ask(script, tmp_path, capped(max_calls=9), "a", model="other")
    with pytest.raises(LTGCError, match="prices: no price for other, which this project has used"):
        ask(script, tmp_path, capped(1.0), "b")
    assert store.tally.usd is None and str(store.tally).startswith("price unknown, 1 calls")


def test_the_reservation_is_no_less_than_any_tokeniser_makes_of_the_question():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    question = [HumanMessage([{"type": "text", "text": "百合"}, image])]
    assert capped().question("m", question, 9) == MESSAGE + 6 + 100 + 9


def test_cost_json_sums_up_the_stages_and_says_where_a_price_is_missing():
    asked = {"calls": 2, "prompt_tokens": 3, "completion_tokens": 4}
    costs = {"describe": priced(PRICES, "m", "m", **asked), "generate": Cost(1, 2, 3, 4, 0.5)}
    assert cost_summary(costs)["total"] == {
        "calls": 3, "images": 2, "prompt_tokens": 6, "completion_tokens": 8, "usd": 7.5,
    }  # fmt: skip
    costs["extend"] = priced(PRICES, "other", "m", **asked)
    assert cost_summary(costs)["total"]["usd"] is None
    usd = {row["stage"]: row["value"] for row in cost_rows(costs) if row["measure"] == "USD"}
    assert usd == {"describe": 7.0, "generate": 0.5}  # no bar for extend, whose model has no price
    assert priced(PRICES, "other", "m", 0, 0, 0, images=2).usd == 10


def test_half_a_price_of_tokens_is_an_error():
    with pytest.raises(ValueError, match="input and output, both"):
        Price(input=1.0)
