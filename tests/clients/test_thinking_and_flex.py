"""Models that think before they reply, and flex processing: what is sent, stored, counted, and what goes wrong."""

import asyncio
import json
from pathlib import Path

import pytest
from helpers.openai_server import Fault, Script, chat_body
from helpers.server_settings import SLUG, chat_section
from langchain_core.messages import HumanMessage

from ltgc.clients import server
from ltgc.clients.chat import Chat, Reply
from ltgc.clients.store import Store, key_of
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import ChatSettings


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
