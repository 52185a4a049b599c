"""Whatever JSON a server sends ends in a reply that is stored, in a failure of that item, or in one line."""

import itertools
import json
import os
from typing import Any

import pytest
from helpers.openai_server import Body, Fault, Raw, Script
from helpers.paid_calls import ask, draw
from helpers.server_settings import KEY, chat_section, png, t2i_section
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ltgc.clients.http import retry_after
from ltgc.data.synthetic import marked
from ltgc.pipeline.errors import LTGCError


@pytest.fixture
def script(running_server: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    running_server.reset()
    monkeypatch.setenv("TEST_KEY", KEY)
    return running_server


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("x\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def nearly(right: Any) -> st.SearchStrategy[Any]:
    """What the API promises, with anything at all in some places of it."""
    if isinstance(right, dict):
        whole = st.fixed_dictionaries({}, optional={name: nearly(value) for name, value in right.items()})
    elif isinstance(right, list):
        whole = st.lists(nearly(right[0]), max_size=2)
    else:
        whole = st.just(right)
    return st.one_of(whole, whole, whole, ANY)


TOKENS = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "completion_tokens_details": {"a": 1}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MESSAGE = {"role": "tool", "content": [{"type": "text", "text": "x"}], "refusal": "no", "tool_calls": [CALL]}
CHAT = {
    "id": "x", "object": "y", "created": 0, "model": "m", "usage": TOKENS, "service_tier": "default",
    "choices": [{"index": 0, "finish_reason": "stop", "logprobs": {"content": [1]}, "message": MESSAGE}],
}  # fmt: skip
ERROR = {"error": {"message": "seed", "code": "content_filter", "param": "seed", "type": "x"}}
IMAGES = {"created": 0, "data": [{"b64_json": "aGVsbG8=", "revised_prompt": "x"}], "usage": {"input_tokens": 1}}
NUMBERS = itertools.count()  # another question for each example: the pool knows the others
FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ", "8")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(body=nearly(CHAT) | nearly(ERROR), status=st.sampled_from([200, 200, 200, 400, 403, 422]))
def test_any_json_in_place_of_a_chat_reply_is_an_outcome(script, tmp_path_factory, body, status):
    outcome(script, body, status, lambda folder, n: ask(chat_section(script), folder, f"{n}"), tmp_path_factory)


@FUZZ
@given(body=nearly(IMAGES) | nearly(ERROR), status=st.sampled_from([200, 200, 200, 400, 403]))
def test_any_json_in_place_of_a_drawing_is_an_outcome(script, tmp_path_factory, body, status):
    outcome(
        script,
        body,
        status,
        lambda folder, n: draw(t2i_section(script), folder, (f"rose {n}", 7)),
        tmp_path_factory,
    )


def outcome(script: Script, body: Any, status: int, run: Any, tmp_path_factory: Any) -> None:
    """Nothing but one line is raised, and the same answer again changes nothing."""
    answer = Raw(json.dumps(body).encode(), status=status)
    script.chat = script.image = lambda request: answer
    ends, number = [], next(NUMBERS)
    for _ in range(2):
        try:
            ends.append(run(tmp_path_factory.mktemp("store"), number))
        except LTGCError as error:
            assert "\n" not in str(error)
            ends.append("stops")
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    "choice, unusable",
    [
        ({"message": None}, "empty"),
        ({"message": {"role": "user", "content": "x"}}, None),
        ({"message": {"role": "assistant", "content": 5}}, "empty"),
        ({"message": {"role": "assistant", "content": "x", "tool_calls": "f"}, "logprobs": 7}, None),
        ({"message": {"role": "assistant", "content": [{"type": "text", "text": "x"}]}}, None),
        ({}, "empty"),
    ],
)
@pytest.mark.parametrize(
    "usage", ["x", None, {"prompt_tokens": "9"}, {"prompt_tokens": -1, "completion_tokens": 1}]
)
def test_a_reply_with_odd_fields_is_read_for_what_it_says_and_stored(script, tmp_path, choice, unusable, usage):
    script.chat = lambda request: Body({"choices": [choice], "usage": usage})
    (reply,) = ask(chat_section(script), tmp_path, "a")
    assert (reply.unusable, reply.tokens_estimated) == (unusable, True)
    assert ask(chat_section(script), tmp_path, "a") == [reply] and script.calls == 1


@pytest.mark.parametrize(
    "data", [b'{"a":' * 5000 + b"1" + b"}" * 5000, b"[" * 100_000, b'{"data": {}}', b'"\\ud800"']
)
def test_json_that_libraries_choke_on_is_a_failure_of_the_item(script, tmp_path, data):
    script.chat = script.image = lambda request: Raw(data)
    assert ask(chat_section(script), tmp_path, "a")[0].failure == "malformed_reply"
    assert draw(t2i_section(script), tmp_path, ("a rose", 7))[0].reason == "malformed_reply"


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "inf"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "Fri, 31 Dec 100000000000000000000 23:59:59 GMT"}, 0),
        ({"retry-after": "Sun, 99 Foo 2026 99:99:99 GMT"}, 0),
        ({}, 0),
    ],
)
def test_any_retry_after_is_read_or_left_alone(headers, seconds):
    import httpx2

    assert retry_after(httpx2.Headers(headers)) == seconds


# --- one item, not the run ---


@pytest.mark.parametrize(
    "answer, reason",
    [
        (Fault(403, None, "Your request was flagged by our moderation system"), "refused"),
        (Fault(403, "moderation_blocked"), "refused"),
        (Fault(400, None, "Invalid prompt: a sunflower seed in the shape of a size is not allowed"), "http_400"),
    ],
)
def test_a_request_that_is_refused_for_its_words_fails_alone(script, tmp_path, answer, reason):
    script.chat = lambda request: answer
    assert ask(chat_section(script), tmp_path, "a")[0].unusable == reason


def test_once_a_request_was_answered_the_key_the_model_and_the_parameters_are_right(script, tmp_path):
    faults = [Fault(403), Fault(404), Fault(400, None, "Unsupported parameter: 'seed'")]
    script.replies = ["x", *faults]
    replies = ask(chat_section(script, concurrency=1), tmp_path, *"abcd")
    assert [reply.unusable for reply in replies] == [None, "http_403", "http_404", "http_400"]


# --- secrets ---


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key_env": "sk-proj-0123456789abcdef"},
        {"api_key_env": "sk_0123456789abcdef"},
        {"base_url": "https://me:sk-0123456789@host/v1"},
        {"base_url": "https://host/v1?api-key=0123456789"},
        {"headers": {"Authorization": "Bearer 0123456789"}},
        {"headers": {"api-key": "$ 0123456789"}},
        {"base_url": "http://10.0.0.7:8000/v1"},
        {"base_url": "http://[::1/v1"},
    ],
)
def test_what_would_give_a_secret_away_is_refused_and_not_repeated(tmp_path, changes):
    import yaml
    from helpers.paths import ROOT

    from ltgc.pipeline import params

    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["servers"] |= changes
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(LTGCError) as error:
        params.load("servers", path=tmp_path / "params.yaml")
    assert "0123456789" not in str(error.value) and "\n" not in str(error.value)


def test_plain_http_to_another_machine_is_for_those_who_say_so(script):
    assert chat_section(script, base_url="http://10.0.0.7:8000/v1", plain_http=True).plain_http
    assert chat_section(script, headers={"X-Title": "LTGC", "api-key": "$AZURE_KEY"}).headers


def test_a_redirect_names_the_address_without_the_key_in_it(script, tmp_path):
    address = f"https://me:{KEY}@elsewhere.org/v1?key={KEY}"
    script.chat = lambda request: Fault(307, headers={"location": address})
    with pytest.raises(LTGCError, match=r"write the address of https://elsewhere.org/v1$") as error:
        ask(chat_section(script), tmp_path, "a")
    assert KEY not in str(error.value)


# --- outages ---


def test_an_outage_is_waited_out_for_ten_minutes_in_all_and_the_wait_is_told(script, tmp_path, monkeypatch, capfd):
    import anyio

    from ltgc.clients import server

    now = 1000.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(anyio, "sleep", sleep)
    monkeypatch.setattr(server, "monotonic", lambda: now)
    script.chat = lambda request: Fault(429, headers={"retry-after": "119"})
    with pytest.raises(LTGCError, match=r"HTTP 429, and no answer for \d+ s; run again"):
        ask(chat_section(script, retries=6, concurrency=2), tmp_path, *map(str, range(40)))
    assert 600 < now - 1000 < 900
    assert "HTTP 429, asks to wait 119 s" in capfd.readouterr().err


def test_an_answer_in_between_starts_the_ten_minutes_again(script, tmp_path, monkeypatch):
    import anyio

    async def sleep(seconds: float) -> None:
        pass

    monkeypatch.setattr(anyio, "sleep", sleep)
    script.image = lambda request: png()
    script.replies = [Fault(503)] * 5
    assert draw(t2i_section(script, retries=6), tmp_path, ("a rose", 7))[0].image == marked(png())
