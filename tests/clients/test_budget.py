"""What calls cost, and the cap that stops a stage before it is passed."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.openai_server import Script, chat_body
from helpers.paths import ROOT
from helpers.server_settings import KEY, SLUG, chat_section, png, t2i_section
from langchain_core.messages import HumanMessage

from ltgc.clients import budget, server
from ltgc.clients.budget import Budget
from ltgc.clients.chat import Chat
from ltgc.clients.costs import Cost, cost_rows, cost_summary, priced
from ltgc.clients.openai_painter import OpenAIPainter
from ltgc.clients.store import Store
from ltgc.pipeline.artifacts.replies import STORE
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import BudgetSettings, Price

MESSAGE = budget.MESSAGE_TOKENS
PRICES = {"m": Price(input=1e6, output=1e6, image=5, image_tokens=100)}  # a dollar a token
REPLY = 13.0  # USD: the test server's replies are 10 tokens and 3


@pytest.fixture
def script(running_server: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    running_server.reset()
    running_server.chat = lambda request: "x"
    running_server.image = lambda request: png()
    monkeypatch.setenv("TEST_KEY", KEY)
    return running_server


def capped(max_usd: float | None = None, max_calls: int | None = None) -> Budget:
    return Budget(BudgetSettings(max_usd=max_usd, max_calls=max_calls), PRICES)


def ask(script: Script, folder: Path, limit: Budget, *questions: str, **changes) -> Store:
    """Ask all questions at once, with 9 tokens of reply at most."""
    section = chat_section(script, max_tokens=9, **changes)

    async def all_of_them() -> Store:
        with server.running(llm=section) as (llm,), Store(folder, limit) as store:
            async with Chat(llm, store) as chat:
                await asyncio.gather(*(chat.ask(SLUG, [HumanMessage(question)]) for question in questions))
                return store

    return asyncio.run(all_of_them())


def lines(folder: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in folder.glob("*.jsonl"))


def lock_of(model: str, files: int) -> dict:
    """dvc.lock after a run of describe with that model."""
    outs = [{"path": "store/describe", "md5": "0.dir", "nfiles": files}]
    return {"stages": {"describe": {"params": {"params.yaml": {"vision": {"model": model}}}, "outs": outs}}}


def test_replies_that_dvc_lock_knows_are_not_paid_for_again_because_the_store_is_gone(
    script, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    store = Path("store/describe")
    Path("dvc.lock").write_text(yaml.safe_dump(lock_of("m", 3)))
    with pytest.raises(LTGCError, match=r"store/describe: not there, but .* of m were paid for; .*dvc pull"):
        ask(script, store, capped(), "a")
    assert script.calls == 0
    ask(script, store, Budget(prices={"m": Price(input=0, output=0)}), "a")  # free: asked again
    for other in (lock_of("another", 3), lock_of("m", 0)):
        shutil.rmtree(store)
        Path("dvc.lock").write_text(yaml.safe_dump(other))
        ask(script, store, capped(), "a")
    assert script.calls == 3


def test_a_call_that_could_pass_the_cap_is_not_made_and_a_higher_cap_goes_on(script, tmp_path):
    most = 1 + MESSAGE + 9  # of a question of one letter: 18 dollars
    with pytest.raises(LTGCError, match=r"budget.max_usd: .* \$13.0000 .* could pass \$30.9900; raise it"):
        ask(script, tmp_path, capped(REPLY + most - 0.01), *"abc", concurrency=1)
    assert (script.calls, lines(tmp_path)) == (1, 1)

    again = capped(3 * REPLY + most)
    for line in (tmp_path / f"{SLUG}.jsonl").read_text().splitlines():
        again.spend(json.loads(line))
    store = ask(script, tmp_path, again, *"abc", concurrency=1)
    assert script.calls == 3  # what was paid for was not asked again
    assert (store.tally.usd, store.budget.usd, store.budget.calls) == (2 * REPLY, 3 * REPLY, 3)


def test_calls_in_flight_together_cannot_pass_the_cap_and_none_of_their_replies_is_lost(script, tmp_path):
    with pytest.raises(LTGCError, match=r"budget.max_calls: 5 calls are reached"):
        ask(script, tmp_path, capped(max_calls=5), *"abcdefghijkl", concurrency=12)
    assert (script.calls, lines(tmp_path)) == (5, 5)


def test_calls_wait_for_those_in_flight_where_these_may_leave_room(script, tmp_path):
    # Two reservations of 18 never fit under 32 at once; a reply of 13 and one reservation do.
    store = ask(script, tmp_path, capped(32), "a", "b", concurrency=2)
    assert (script.most_at_once, script.calls, store.budget.usd) == (1, 2, 2 * REPLY)


def test_what_is_in_the_store_is_had_at_any_cap(script, tmp_path):
    ask(script, tmp_path, capped(), "a", "b")
    ask(script, tmp_path, capped(0, 0), "a", "b")
    assert script.calls == 2


def test_a_failed_call_costs_nothing_and_gives_its_reservation_back(script, tmp_path):
    script.replies = [chat_body("x"), b"no chat reply"]
    store = ask(script, tmp_path, capped(max_calls=2), "a", "b", "c", concurrency=1)
    assert (script.calls, store.budget.calls) == (3, 2)


def test_drawings_count_as_calls_and_cost_their_price(script, tmp_path):
    limit = capped(max_usd=10)

    async def draw() -> None:
        with server.running(t2i=t2i_section(script, concurrency=4)) as (t2i,), Store(tmp_path, limit) as store:
            async with OpenAIPainter(t2i, store) as painter:
                await asyncio.gather(*(painter.draw(SLUG, "a rose", seed) for seed in range(4)))

    with pytest.raises(LTGCError, match=r"budget.max_usd: .* \$10.0000 "):
        asyncio.run(draw())
    assert (script.calls, lines(tmp_path), limit.usd, limit.calls) == (2, 2, 10.0, 2)


def test_a_cap_in_money_needs_a_price_and_without_one_the_price_is_unknown(script, tmp_path):
    with pytest.raises(LTGCError, match="prices: no price for the model 'other'"):
        ask(script, tmp_path, capped(1.0), "a", model="other")
    assert script.calls == 0
    store = ask(script, tmp_path, capped(max_calls=9), "a", model="other")
    assert store.tally.usd is None and str(store.tally).startswith("price unknown, 1 calls")


def test_the_reservation_is_no_less_than_any_tokeniser_makes_of_the_question():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    question = [HumanMessage([{"type": "text", "text": "百合"}, image])]
    assert capped().question("m", question, 9) == MESSAGE + 6 + 100 + 9


def test_the_cap_covers_the_stores_of_all_stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = ROOT
    text = (root / "params.yaml").read_text().replace("max_calls:  ", "max_calls: 7 ")
    Path("params.yaml").write_text(text)
    reply = {"model": "gpt-6.1-terra", "text": "x", "prompt_tokens": 1_000_000, "completion_tokens": 100_000}
    Store(STORE / "describe").put(SLUG, "a", reply)
    Store(STORE / "extend").put(SLUG, "b", reply)
    Store(STORE / "generate").put_image(SLUG, "c", "gemini-3.1-flash-lite-image", png())
    Store(STORE / "generate").put(SLUG, "d", {"model": "gemini-3.1-flash-lite-image", "failure": "refused"})
    whole = budget.load()
    assert (whole.calls, whole.usd) == (4, pytest.approx(2 * 1.5 + 0.0336))
    Path("params.yaml").write_text(text.replace("max_calls: 7 ", "max_calls:   "))
    assert not budget.load().capped


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
