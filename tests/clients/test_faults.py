"""Bad answers, bad servers: every row of docs/faults.md is put to a real server, and holds as it is written."""

import asyncio
import io
import json
import re
import traceback
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import anyio
import pytest
import yaml
from helpers.openai_server import Body, Drip, Fault, Hang, Raw, Reset, Script, chat_body, said, stream
from helpers.paths import ROOT, link_prompts
from langchain_core.messages import HumanMessage
from PIL import Image

from ltgc.clients import http, limits, server
from ltgc.clients.chat import MAX_TEXT, Chat, Reply
from ltgc.clients.limits import Pace
from ltgc.clients.openai_painter import OpenAIPainter
from ltgc.clients.painter import Drawing
from ltgc.clients.store import Store
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord, class_slug
from ltgc.pipeline.artifacts.descriptions import EXISTING, EXTENDED, TEMPLATES, ClassTemplate, ExistingDescription
from ltgc.pipeline.artifacts.replies import CALLS
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import ChatSettings, T2ISettings, completed
from stages import extend, templates

KEY = "sk-very-secret-0123456789"
SECRET = "header-secret-0123456789"
SLUG = "0000-rose"
STOPS: dict[str, str] = {  # the remedy that the line must name
    "400 naming a parameter": r"set llm\.seed: null",
    "401": r"check the key in \$TEST_KEY",
    "403": r"check the key in \$TEST_KEY",
    "404 unknown model": r"knows no 'm'; name one of its models",
    "307 to another address": r"write the address of http://there/v1",
    "429, Retry-After of an hour": r"to be asked again in 3,600 s",
    "429, the quota is used up": "quota is used up",
    "a link in place of the image": r"t2i\.response_format: .* set b64_json",
}


def picture(kind: str, size: tuple[int, int] = (4, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return file.getvalue()


def fault(status: int, code: str | None = None, said: str = "broken", **headers: str) -> Fault:
    """An error that repeats the key, as some servers do."""
    return Fault(status, code, f"{said}; your key {KEY}", {k.replace("_", "-"): v for k, v in headers.items()})


LINE = "A photo of the class rose, with red petals in snow.\n"
ANSWERS: dict[str, Callable[[], Any]] = {
    "empty content": lambda: "",
    "null content": lambda: None,
    "nothing but thinking": lambda: chat_body("", "length", thinking=97),
    "a refusal": lambda: chat_body(None, refusal=f"I will not, {KEY}"),
    "cut off at max_tokens": lambda: chat_body("half a", "length"),
    "half a JSON body": lambda: Raw(b'{"id": "x", "choices": [{"mess'),
    "200 with an HTML page": lambda: Raw(f"<html>{KEY}</html>".encode(), "text/html"),
    "invalid UTF-8": lambda: Raw(b'{"id": "\xff\xfe\xfa"}'),
    "JSON that is no chat completion": lambda: Body({"choices": None, "key": KEY}),
    "400 content policy": lambda: fault(400, "content_policy_violation"),
    "400 naming a parameter": lambda: fault(400, "unsupported_parameter", "Unsupported parameter: 'seed'"),
    "400 of another kind": lambda: fault(400),
    "401": lambda: fault(401),
    "403": lambda: fault(403),
    "404 unknown model": lambda: fault(404, "model_not_found"),
    "307 to another address": lambda: fault(307, location="http://there/v1"),
    "408": lambda: fault(408),
    "409": lambda: fault(409),
    "429": lambda: fault(429),
    "429, Retry-After in seconds": lambda: fault(429, retry_after="7"),
    "429, Retry-After as a date": lambda: fault(429, retry_after=formatdate(time() + 60, usegmt=True)),
    "429, Retry-After of an hour": lambda: fault(429, retry_after="3600"),
    "429, the quota is used up": lambda: fault(429, "insufficient_quota"),
    "500": lambda: fault(500),
    "502": lambda: fault(502),
    "503": lambda: fault(503),
    "reset in mid-body": Reset,
    "hang in mid-body": Hang,
    "a byte now and then, without end": lambda: Drip(0.05),
    "a stream that was not asked for": lambda: stream("x"),
    "10 MB of text": lambda: "x" * 10_000_000,
    "2,000 repeats of one line": lambda: LINE * 2000,
    "over 32 MiB": lambda: Raw(b'"' + b"x" * http.MAX_BODY + b'"'),
    "400 content policy, for a drawing": lambda: fault(400, "content_policy_violation"),
    "no image at all": lambda: Body({"created": 0, "data": []}),
    "a link in place of the image": lambda: Body({"created": 0, "data": [{"url": f"https://there/{KEY}"}]}),
    "not base64": lambda: Body({"created": 0, "data": [{"b64_json": "*"}]}),
    "bytes that are no image": lambda: b"no image",
    "a 1 x 1 PNG": lambda: picture("PNG", (1, 1)),
    "a GIF": lambda: picture("GIF"),
    "21 MB": lambda: b"\0" * 21_000_000,
    "50 MB": lambda: b"\0" * 50_000_000,
    "500, for a drawing": lambda: fault(500),
    "hang in mid-image": Hang,
}


def table(heading: str) -> list[tuple[str, str, str, str]]:
    """(answer, tried again, counted as, stored) of each row under a heading of docs/faults.md."""
    text = (ROOT / "docs/faults.md").read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    return [(row[0].strip(), row[1].strip(), row[2].strip(), row[4].strip()) for row in rows]


CHATS, IMAGES = table("Chats"), table("Images")


@pytest.fixture
def script(running_server: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    running_server.reset()
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("TEST_SECRET", SECRET)
    return running_server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would wait before retries, which pass at once."""
    seconds: list[float] = []

    async def sleep(delay: float) -> None:
        seconds.append(delay)

    monkeypatch.setattr(anyio, "sleep", sleep)
    return seconds


def section(script: Script, name: str = "llm", **changes: Any) -> Any:
    values = completed(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))[name]
    values |= {"base_url": script.base_url, "model": "m", "api_key_env": "TEST_KEY", "timeout": 20, "retries": 2}
    return (T2ISettings if name == "t2i" else ChatSettings).model_validate(values | changes)


def ask(settings: ChatSettings, folder: Path, *questions: str) -> list[Reply]:
    async def all_of_them() -> list[Reply]:
        with server.running(llm=settings) as (llm,), Store(folder, [settings]) as store:
            async with Chat(llm, store) as chat:
                return [await chat.ask(SLUG, [HumanMessage(question)]) for question in questions]

    return asyncio.run(all_of_them())


def draw(settings: T2ISettings, folder: Path) -> Drawing:
    async def one() -> Drawing:
        with server.running(t2i=settings) as (t2i,), Store(folder, [settings]) as store:
            async with OpenAIPainter(t2i, store) as painter:
                return await painter.draw(SLUG, "a rose", 7)

    return asyncio.run(one())


def stored(folder: Path) -> str:
    """What the store holds for the one question asked."""
    lines = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    if not lines:
        return "nothing"
    (line,) = lines
    return {"text": "the reply", "image": "the image", "failure": "the verdict"}[
        next(name for name in ("text", "image", "failure") if name in line)
    ]


def leaks(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and re.search(f"{KEY}|{SECRET}".encode(), p.read_bytes())]


# --- the table ---


def test_every_row_of_the_docs_has_an_answer_here_and_every_answer_a_row():
    assert [row[0] for row in CHATS + IMAGES] == list(ANSWERS)
    assert {row[0] for row in CHATS + IMAGES if row[2] == "stops"} == set(STOPS)


@pytest.mark.parametrize("name, again, counted, kept", CHATS, ids=[row[0] for row in CHATS])
def test_a_bad_answer_to_a_question_gets_what_the_docs_say(
    script, tmp_path, waits, capfd, name, again, counted, kept
):
    answer = ANSWERS[name]()
    script.chat = lambda request: answer
    settings = section(script, timeout=0.2 if counted == "timeout" else 20)
    text = ""
    if counted == "stops":
        with pytest.raises(LTGCError, match=STOPS[name]) as error:
            ask(settings, tmp_path, "a")
        text = "".join(traceback.format_exception(error.value))
        assert "\n" not in str(error.value)
    else:
        (reply,) = ask(settings, tmp_path, "a")
        assert (reply.unusable or "used") == counted
        assert len(reply.text) <= MAX_TEXT
        text = repr(reply)
    assert script.calls == (3 if again == "yes" else 1)
    assert stored(tmp_path) == kept
    assert not leaks(tmp_path) and KEY not in text + "".join(capfd.readouterr())

    if again == "yes":  # and a better answer to a retry is taken
        script.reset()
        script.replies = [answer]
        script.chat = lambda request: "better"
        assert ask(settings, tmp_path / "other", "a")[0].text == "better"
    elif counted != "stops":
        calls = script.calls
        ask(settings, tmp_path, "a")
        assert script.calls == calls + (kept == "nothing")


@pytest.mark.parametrize("name, again, counted, kept", IMAGES, ids=[row[0] for row in IMAGES])
def test_a_bad_answer_to_a_drawing_gets_what_the_docs_say(script, tmp_path, waits, name, again, counted, kept):
    answer = ANSWERS[name]()
    script.image = lambda request: answer
    settings = section(script, "t2i", timeout=0.2 if counted == "timeout" else 20)
    if counted == "stops":
        with pytest.raises(LTGCError, match=STOPS[name]) as error:
            draw(settings, tmp_path)
        assert KEY not in str(error.value) and script.calls == 1 and stored(tmp_path) == kept
        return
    drawing = draw(settings, tmp_path)
    assert (drawing.reason or "used") == counted
    assert (drawing.image is not None) == (counted == "used")
    assert script.calls == (3 if again == "yes" else 1)
    assert stored(tmp_path) == kept
    assert not leaks(tmp_path)
    calls = script.calls
    assert draw(settings.model_copy(update={"retries": 0}), tmp_path) == drawing
    assert script.calls == calls + (kept == "nothing")


# --- retries ---


def test_backoff_doubles_from_half_a_second_to_eight_with_jitter(script, tmp_path, waits):
    script.chat = lambda request: fault(500)
    ask(section(script, retries=6), tmp_path, "a")
    assert len(waits) == 6
    for wait, most in zip(waits, (0.5, 1, 2, 4, 8, 8), strict=True):
        assert 0.75 * most <= wait <= most
    assert len({wait / most for wait, most in zip(waits, (0.5, 1, 2, 4, 8, 8), strict=True)}) > 1


@pytest.mark.parametrize(
    "header, low, high",
    [("7", 7, 7), ("0.25", 0.25, 0.25), ("date", 50, 60), ("soon", 0.375, 0.5), ("-3", 0.375, 0.5)],
)
def test_retry_after_is_waited_for_in_seconds_and_as_a_date(script, tmp_path, waits, header, low, high):
    value = formatdate(time() + 60, usegmt=True) if header == "date" else header
    script.replies = [fault(429, retry_after=value), "x"]
    assert ask(section(script), tmp_path, "a")[0].text == "x"
    assert len(waits) == 1 and low <= waits[0] <= high


def test_an_outage_stops_the_stage_instead_of_failing_every_class(script, tmp_path, waits):
    script.chat = lambda request: fault(503, said="down for repairs")
    settings = section(script, retries=0, concurrency=2)
    with pytest.raises(LTGCError, match=r"20 requests in a row failed; it said: .*down for repairs"):
        ask(settings, tmp_path, *map(str, range(30)))
    script.reset()
    script.chat = lambda request: fault(503) if int(said(request)) % 19 else "x"
    assert len(ask(settings, tmp_path, *map(str, range(30)))) == 30


# --- limits ---


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def test_no_minute_sees_more_than_the_rate_and_the_rate_is_reached():
    clock = Clock()
    pace = Pace(120, clock, clock.sleep)
    times = []

    async def one() -> None:
        await pace.take()
        times.append(clock.now)

    async def many() -> None:
        await asyncio.gather(*(one() for _ in range(601)))

    asyncio.run(many())
    assert times[-1] - times[0] == pytest.approx(300)
    assert all(sum(start <= t < start + 60 for t in times) <= 120 for start in times)


def test_tokens_that_were_not_used_come_back_to_those_who_wait():
    clock = Clock()
    pace = Pace(600, clock, clock.sleep)  # ten a second

    async def two() -> float:
        await pace.take(300)
        second = asyncio.create_task(pace.take(300))
        await asyncio.sleep(0)  # it waits now, for 30 s
        pace.give_back(200)
        await second
        return clock.now

    assert asyncio.run(two()) == pytest.approx(1010, abs=limits.LOOK)


def test_requests_a_minute_hold_for_retries_and_tokens_a_minute_for_what_replies_took(script, tmp_path, waits):
    taken: dict[str, list[int]] = {"requests": [], "tokens": []}

    def watch(llm: server.Server) -> None:
        for name, pace in (("requests", llm.limits.requests), ("tokens", llm.limits.tokens)):

            async def take(amount: int = 1, name: str = name) -> None:
                taken[name].append(amount)

            pace.take = take  # type: ignore[method-assign]
            pace.give_back = lambda amount, name=name: taken[name].append(-amount)  # type: ignore[assignment]

    async def one() -> None:
        settings = section(script, requests_per_minute=60, tokens_per_minute=1000, max_tokens=100)
        with server.running(llm=settings) as (llm,), Store(tmp_path, [settings]) as store:
            watch(llm)
            async with Chat(llm, store) as chat:
                for _ in range(2):  # the second time it is in the store
                    await chat.ask(SLUG, [HumanMessage("abcd" * 5)])

    script.replies = [fault(500), "x"]
    asyncio.run(one())
    assert taken["requests"] == [1, 1]
    assert sum(taken["tokens"]) == 13 and taken["tokens"][0] == 5 + 100


def test_sections_with_one_address_share_its_limits_and_the_strictest_counts(script):
    llm = section(script, concurrency=8, requests_per_minute=60)
    t2i = section(script, "t2i", concurrency=3, base_url=script.base_url + "/")
    with server.running(llm=llm, t2i=t2i) as (first, second):
        assert first.limits is second.limits
        assert first.limits.concurrency == 3 and second.limits.requests.seconds == 1.0
    elsewhere = section(script, "t2i", base_url=script.base_url.replace("127.0.0.1", "localhost"))
    with server.running(llm=llm, t2i=elsewhere) as (first, second):
        assert first.limits is not second.limits


# --- any server ---


def test_a_server_that_does_not_count_tokens_has_them_estimated_and_marked(script, tmp_path):
    script.chat = lambda request: chat_body("abcde", counted=False)
    fresh, again = ask(section(script), tmp_path, "abcd" * 5, "abcd" * 5)
    assert fresh == again and script.calls == 1
    assert (fresh.prompt_tokens, fresh.completion_tokens, fresh.tokens_estimated) == (5, 2, True)
    assert fresh.counts["calls_with_estimated_tokens"] == 1
    assert '"tokens_estimated": true' in (tmp_path / f"{SLUG}.jsonl").read_text()
    script.chat = lambda request: "counted"
    assert not ask(section(script), tmp_path, "b")[0].tokens_estimated


@pytest.mark.parametrize("usage", [True, False])
def test_a_server_that_only_streams_is_read_to_the_end(script, tmp_path, usage):
    def answer(request: dict[str, Any]) -> Any:
        return (
            stream("a rose in snow", usage) if request.get("stream") else fault(400, None, "stream must be true")
        )

    script.chat = answer
    (reply,) = ask(section(script, stream=True), tmp_path, "a")
    assert (reply.text, reply.unusable, reply.tokens_estimated) == ("a rose in snow", None, not usage)
    with pytest.raises(LTGCError, match=r"set llm\.stream: true"):
        ask(section(script), tmp_path, "b")
    assert ask(section(script), tmp_path, "a") == [reply]  # the pool does not care how it came


def test_a_stream_that_breaks_off_is_tried_again(script, tmp_path, waits):
    script.replies = [Reset(), stream("whole")]
    assert ask(section(script, stream=True), tmp_path, "a")[0].text == "whole"


@pytest.mark.parametrize(
    "message, remedy",
    [
        ("Unrecognized request argument supplied: max_completion_tokens", "llm.max_tokens_param: max_tokens"),
        (
            "Unsupported parameter: 'max_tokens' is not supported; use 'max_completion_tokens' instead.",
            "llm.max_tokens_param: max_completion_tokens",
        ),
        (
            "Unsupported value: 'temperature' does not support 0.7 with this model.",
            "llm.temperature: null (or reasoning_effort: none)",
        ),
        ("Extra inputs are not permitted: seed", "llm.seed: null"),
        ("Only streaming requests are served", "llm.stream: true"),
    ],
)
def test_a_rejected_parameter_is_named_with_what_to_set(script, tmp_path, message, remedy):
    script.chat = lambda request: Fault(400, None, message)
    param = "max_tokens" if remedy.endswith("max_completion_tokens") else "max_completion_tokens"
    with pytest.raises(LTGCError, match=re.escape(f"set {remedy};")):
        ask(section(script, max_tokens_param=param), tmp_path, "a")


@pytest.mark.parametrize(
    "message, remedy",
    [
        ("Unknown parameter: 'seed'.", "t2i.send_seed: false"),
        ("Unknown parameter: 'response_format'.", "t2i.response_format: null"),
    ],
)
def test_a_rejected_parameter_of_a_drawing_is_named_with_what_to_set(script, tmp_path, message, remedy):
    script.image = lambda request: Fault(400, None, message)
    with pytest.raises(LTGCError, match=re.escape(f"set {remedy};")):
        draw(section(script, "t2i"), tmp_path)


def test_a_prompt_over_the_context_is_no_rejected_parameter(script, tmp_path):
    said = (
        "This model's maximum context length is 4096 tokens; you asked for 5000 (2000 in max_completion_tokens)."
    )
    script.chat = lambda request: Fault(400, "context_length_exceeded", said)
    assert ask(section(script), tmp_path, "a")[0].failure == "http_400"


def test_what_is_null_is_not_sent_and_older_servers_get_the_name_they_know(script, tmp_path):
    script.chat = lambda request: "x"
    ask(section(script), tmp_path, "a")
    ask(section(script, seed=None, temperature=None, max_tokens_param="max_tokens"), tmp_path, "a")
    sent, older = script.requests
    assert sent["max_completion_tokens"] == 2000 and "max_tokens" not in sent
    assert older["max_tokens"] == 2000
    assert not {"max_completion_tokens", "seed", "temperature", "n"} & set(older)


def test_headers_are_sent_and_those_from_the_environment_are_kept_secret(script, tmp_path, capfd, monkeypatch):
    script.chat = lambda request: f"{SECRET} and {KEY}" if said(request) == "a" else fault(403, said=SECRET)
    script.image = lambda request: picture("PNG")
    headers = {"X-Team": "botany", "api-key": "$TEST_SECRET"}
    assert ask(section(script, headers=headers), tmp_path, "a")[0].text == "*** and ***"
    draw(section(script, "t2i", headers=headers), tmp_path)
    for sent in script.headers:
        assert (sent["x-team"], sent["api-key"]) == ("botany", SECRET)
    with pytest.raises(LTGCError) as error:
        ask(section(script, headers=headers), tmp_path, "b")
    shown = "".join(traceback.format_exception(error.value)) + "".join(capfd.readouterr())
    assert not leaks(tmp_path) and SECRET not in shown and KEY not in shown
    monkeypatch.delenv("TEST_SECRET")
    with pytest.raises(LTGCError, match=r"llm.headers: api-key: \$TEST_SECRET is not set"):
        ask(section(script, headers=headers), tmp_path, "c")


def test_a_key_that_is_a_word_changes_no_reply(script, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "EMPTY")
    script.chat = lambda request: "AN EMPTY FIELD"
    assert ask(section(script), tmp_path, "a")[0].text == "AN EMPTY FIELD"


# --- classes that fail for good ---


@pytest.fixture
def garden(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten classes of two images, with params that point at the script."""
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["llm"] |= {"base_url": script.base_url, "api_key_env": "TEST_KEY", "retries": 0}
    values["llm"]["max_failed_fraction"] = 0.2
    values["extend"] |= {"target": 3, "repetition_check": False}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    link_prompts(tmp_path)
    classes = [
        ClassRecord(label=i, name=name, slug=class_slug(i, name), train=2, val=0, test=1, shot="few")
        for i, name in enumerate(NAMES)
    ]
    files.write_records_csv(CLASSES, classes, ClassRecord)
    files.write_jsonl(EXISTING, list[ExistingDescription]())
    return tmp_path


NAMES = ["aster", "borage", "clover", "daisy", "elder", "flax", "gorse", "heather", "iris", "jasmine"]


def failing(**faults: Any) -> Callable[[dict[str, Any]], Any]:
    def answer(request: dict[str, Any]) -> Any:
        name = next(name for name in NAMES if f'"{name}"' in said(request))
        if name in faults:
            return faults[name]
        if "Template 2" in said(request):
            return f"A photo of the class {name} with {{petals}}."
        return f"A photo of the class {name}, with petals in snow."

    return answer


def test_a_class_that_fails_is_recorded_and_the_others_go_on(script, garden, capfd):
    script.chat = failing(clover=fault(400, "content_filter"), iris=fault(500))
    extend.main()
    assert EXTENDED.read_text().count("in snow.") == 8
    line = capfd.readouterr().err
    assert "2 of 10 got no usable description (" in line
    assert "refused: clover" in line and "http_500: iris" in line

    script.chat = failing(clover="No.", iris=fault(500))
    templates.main()
    found = files.read_jsonl(TEMPLATES, ClassTemplate)
    assert {t.class_name: t.reason for t in found if t.reason} == {"clover": "not_in_template", "iris": "http_500"}
    counts = files.read_json(CALLS / "templates.json")
    assert counts["failures"] == {"http_500": 1, "not_in_template": 3}


def test_past_the_fraction_the_stage_fails_naming_classes_and_reasons_and_keeps_what_was_paid(script, garden):
    script.chat = failing(clover=fault(400, "content_filter"), iris=fault(500, said="no luck"), flax=fault(503))
    with pytest.raises(LTGCError, match=r"3 of 10 .*more than llm\.max_failed_fraction 0\.2 allows") as error:
        extend.main()
    for part in ("refused: clover", "http_500: iris", "http_503: flax"):
        assert part in str(error.value)
    assert KEY not in str(error.value) and not EXTENDED.exists()
    calls = script.calls
    script.chat = failing()
    extend.main()
    assert script.calls == calls + 2  # seven replies and a refusal, which is an answer too, are kept
    assert EXTENDED.read_text().count("in snow.") == 9
