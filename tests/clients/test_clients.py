"""Clients and their store: what is paid for is kept, failures are named, keys stay secret."""

import asyncio
import base64
import hashlib
import json
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.openai_server import Body, Fault, Reset, Script, chat_body, said
from helpers.paid_calls import ask, draw
from helpers.paths import ROOT, link_prompts
from helpers.photo_folders import image_record
from helpers.server_settings import KEY, SLUG, chat_section, png, t2i_section
from helpers.training_world import save_clip
from langchain_core.messages import HumanMessage

from graphs.parse.template_2 import class_template
from ltgc.clients import server
from ltgc.clients.chat import Chat, Reply
from ltgc.clients.openai_painter import OpenAIPainter
from ltgc.clients.painter import Drawing
from ltgc.clients.store import Store
from ltgc.clients.tally import Tally
from ltgc.data import images, shards
from ltgc.data.synthetic import marked
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord, class_slug
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import ACCEPTED, ATTEMPTS, REJECTED, Attempt
from ltgc.pipeline.artifacts.replies import CALLS, STORE
from ltgc.pipeline.concurrency import run_all
from ltgc.pipeline.errors import LTGCError
from stages import describe, extend, generate, templates


@pytest.fixture
def script(running_server: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    running_server.reset()
    monkeypatch.setenv("TEST_KEY", KEY)
    return running_server


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- the store ---


def test_a_second_run_asks_nothing_and_leaves_the_same_bytes(script, tmp_path):
    script.chat = lambda request: f"reply to {said(request)}"
    section = chat_section(script)
    first = ask(section, tmp_path, "b", "a", "c")
    stored = contents(tmp_path)
    assert ask(section, tmp_path, "c", "b", "a") == [first[2], first[0], first[1]]
    assert script.calls == 3
    assert contents(tmp_path) == stored
    keys = [json.loads(line)["key"] for line in stored[f"{SLUG}.jsonl"].splitlines()]
    assert keys == sorted(keys)
    assert first[0].counts == Counter(calls=1, prompt_tokens=10, completion_tokens=3)


def test_the_key_is_what_determines_a_reply_and_nothing_else(script, tmp_path):
    script.chat = lambda request: "x"
    section = chat_section(script)
    ask(section, tmp_path, "a")
    ask(section.model_copy(update={"timeout": 9.0, "retries": 3, "concurrency": 1}), tmp_path, "a")
    assert script.calls == 1
    for change in ({"model": "n"}, {"temperature": 0.6}, {"seed": None}, {"max_tokens": 99}):
        ask(section.model_copy(update=change), tmp_path, "a")
    assert script.calls == 5
    ask(section, tmp_path, "a")  # the replies to other settings did not push it out
    assert script.calls == 5
    assert "seed" not in script.requests[3]


def test_images_are_known_by_their_pixels(script, tmp_path):
    async def show(*pictures: bytes) -> int:
        section = chat_section(script)
        with server.running(llm=section) as (llm,), Store(tmp_path, [section]) as store:
            async with Chat(llm, store) as chat:
                for data in pictures:
                    url = "data:image/png;base64," + base64.b64encode(data).decode()
                    await chat.ask(SLUG, [HumanMessage([{"type": "image_url", "image_url": {"url": url}}])])
        return script.calls

    script.chat = lambda request: "x"
    assert asyncio.run(show(png(), png(comment="packed otherwise"))) == 1
    assert asyncio.run(show(png("blue"), png(size=(2, 8)), png(size=(8, 2)))) == 4


def test_what_was_paid_for_is_kept_when_the_stage_fails(script, tmp_path):
    script.replies = ["x", Fault(401)]
    section = chat_section(script, concurrency=1)
    with pytest.raises(LTGCError):
        ask(section, tmp_path, "a", "b")
    script.chat = lambda request: "y"
    assert [reply.text for reply in ask(section, tmp_path, "a", "b")] == ["x", "y"]
    assert script.calls == 3


def test_the_same_question_at_once_is_paid_for_once(script, tmp_path):
    script.chat = lambda request: f"reply {script.calls}"
    assert {reply.text for reply in ask(chat_section(script), tmp_path, *"aaaa")} == {"reply 1"}


# --- chat ---


def test_no_more_requests_are_in_flight_than_concurrency_allows(script, tmp_path):
    script.chat = lambda request: "x"
    ask(chat_section(script, concurrency=3), tmp_path, *map(str, range(30)))
    assert script.calls == 30 and script.most_at_once <= 3


@pytest.mark.parametrize(
    "answer, expected",
    [
        (None, "empty"),
        (chat_body(None, refusal="I will not"), "refused"),
        (chat_body("half a", "length"), "truncated"),
        (chat_body("", "content_filter"), "refused"),
        (Fault(400, "content_filter"), "refused"),
        (Fault(400), "http_400"),
        (Fault(429), "http_429"),
        (Fault(503), "http_503"),
        (Reset(), "connection_lost"),
        (Body({"choices": None}), "malformed_reply"),
        (Body({"choices": []}), "malformed_reply"),
        (Body({"error": {"message": "no"}}), "malformed_reply"),
        (Body("<html>"), "malformed_reply"),
    ],
)
def test_a_reply_without_use_gives_one_word_for_why(script, tmp_path, answer, expected):
    script.replies = [answer]
    assert ask(chat_section(script), tmp_path, "a")[0].unusable == expected


def test_a_request_that_takes_too_long_is_a_timeout(script, tmp_path):
    release = threading.Event()
    script.chat = lambda request: release.wait(10) or "late"

    async def impatient() -> Reply:
        section = chat_section(script, timeout=0.2)
        with server.running(llm=section) as (llm,), Store(tmp_path, [section]) as store:
            async with Chat(llm, store) as chat:
                return await chat.ask(SLUG, [HumanMessage("a")])

    try:
        assert asyncio.run(impatient()).failure == "timeout"
    finally:
        release.set()


def test_failed_requests_are_tried_again_and_retry_after_is_heeded(script, tmp_path):
    soon = {"retry-after-ms": "1"}
    script.replies = [Fault(429, headers=soon), Fault(500, headers=soon), "x"]
    assert ask(chat_section(script, retries=2), tmp_path, "a")[0].text == "x"
    assert script.calls == 3


@pytest.mark.parametrize(
    "fault, message",
    [
        (Fault(401, message=f"Incorrect API key provided: {KEY}"), r"check the key in \$TEST_KEY"),
        (Fault(403), r"check the key in \$TEST_KEY"),
        (Fault(404, "model_not_found"), "llm.model: .* knows no 'm'"),
        (Fault(400, "model_not_found"), "llm.model: .* knows no 'm'"),
        (Fault(429, "insufficient_quota"), "quota is used up"),
    ],
)
def test_what_no_other_request_can_do_better_stops_the_stage_with_the_remedy(script, tmp_path, fault, message):
    script.replies = [fault]
    with pytest.raises(LTGCError, match=message) as error:
        ask(chat_section(script), tmp_path, "a")
    assert KEY not in str(error.value)


def test_an_address_where_nothing_answers_is_named(script, tmp_path):
    with pytest.raises(LTGCError, match=r"llm.base_url http://127.0.0.1:9/v1: nothing answers"):
        ask(chat_section(script, base_url="http://127.0.0.1:9/v1"), tmp_path, "a")


@pytest.mark.parametrize(
    "base_url, key, message",
    [
        ("https://api.example.com/v1", None, r"\$TEST_KEY is not set"),
        ("https://api.example.com/v1", "  ", r"\$TEST_KEY is not set"),
        ("https://api.example.com/v1", "sk\nx", "holds characters that no key has"),
        ("api.example.com/v1", "sk", "is no address"),
    ],
)
def test_a_missing_key_or_a_malformed_address_is_an_error_before_anything_is_asked(
    script, monkeypatch, base_url, key, message
):
    monkeypatch.delenv("TEST_KEY")
    if key is not None:
        monkeypatch.setenv("TEST_KEY", key)
    with pytest.raises(LTGCError, match=message), server.running(llm=chat_section(script, base_url=base_url)):
        pass


def test_a_local_server_needs_no_key_and_gets_the_one_there_is(script, tmp_path, monkeypatch):
    script.chat = lambda request: "x"
    ask(chat_section(script), tmp_path, "a")
    assert script.keys == {f"Bearer {KEY}"}
    monkeypatch.delenv("TEST_KEY")
    ask(chat_section(script), tmp_path, "b")
    assert len(script.keys) == 2


def test_the_key_is_in_no_file_and_in_no_message(script, tmp_path, capfd):
    script.chat = lambda request: Fault(500, message=f"key {KEY} is odd") if said(request) == "a" else "x"
    with server.running(llm=chat_section(script)) as (llm,):

        async def both():
            with Store(tmp_path, [llm.section]) as store:
                async with Chat(llm, store) as chat:
                    for question in "ab":
                        await chat.ask(SLUG, [HumanMessage(question)])

        asyncio.run(both())
        with pytest.raises(LTGCError, match=r"key \*\*\* is odd") as error:
            llm.check_failures({"a": "http_500"}, 2, "reply")
    assert KEY not in str(error.value)
    assert all(KEY.encode() not in data for data in contents(tmp_path).values())
    assert KEY not in "".join(capfd.readouterr())


# --- images ---


def test_an_image_is_stored_with_the_mark_of_a_drawing_and_drawn_once(script, tmp_path):
    data = png(comment="kept")
    script.image = lambda request: data
    section = t2i_section(script)
    (drawing,) = draw(section, tmp_path, ("a rose", 7))
    assert drawing == Drawing(7, marked(data))
    assert draw(section, tmp_path, ("a rose", 7)) == [drawing]
    assert script.calls == 1
    request = script.requests[0]
    assert request == {
        "model": "m", "prompt": "a rose", "size": "64x64", "n": 1, "seed": 7, "response_format": "b64_json",
    }  # fmt: skip
    (line,) = (tmp_path / f"{SLUG}.jsonl").read_text().splitlines()
    assert json.loads(line)["image"] == hashlib.sha256(marked(data)).hexdigest()


def test_gpt_image_is_not_sent_what_it_refuses_and_the_seed_still_tells_drawings_apart(script, tmp_path):
    script.image = lambda request: png()
    section = t2i_section(script, model="gpt-image-2.5-flare", quality="low", response_format="b64_json")
    draw(section, tmp_path, ("a rose", 7), ("a rose", 8))
    assert script.calls == 2
    assert all(request.keys() == {"model", "prompt", "size", "quality", "n"} for request in script.requests)
    with pytest.raises(ValueError, match="style: gpt-image models take none"):
        t2i_section(script, model="gpt-image-2.5-flare", style="vivid")


def test_quality_and_style_are_sent_where_they_are_set_and_another_quality_is_another_drawing(script, tmp_path):
    script.image = lambda request: png()
    draw(t2i_section(script, quality="hd", style="natural"), tmp_path, ("a rose", 7))
    assert script.requests[0]["quality"] == "hd" and script.requests[0]["style"] == "natural"
    draw(t2i_section(script, quality="hd"), tmp_path, ("a rose", 7))
    assert script.calls == 2
    script.image = lambda request: Fault(400, message="Unknown parameter: 'style'.")
    with pytest.raises(LTGCError, match=r"set t2i\.style: null"):
        draw(t2i_section(script, style="natural"), tmp_path, ("a rose", 7))


@pytest.mark.parametrize(
    "answer, reason, refinable",
    [
        (Fault(400, "content_policy_violation"), "refused", True),
        (Body({"created": 0, "data": []}), "no_image", True),
        (b"no image", "unusable_image: not an image", True),
        (png()[:-30], "unusable_image: truncated", True),
        (png(size=(1, 5)), "unusable_image: 1 x 5 pixels", True),
        (b"\0" * 20_000_001, "unusable_image: over", True),
        (Body({"created": 0, "data": [{"b64_json": "*"}]}), "unusable_image: ", True),
        (Fault(500), "http_500", False),
    ],
)
def test_an_image_that_cannot_be_used_gives_the_reason(script, tmp_path, answer, reason, refinable):
    script.replies = [answer]
    (drawing,) = draw(t2i_section(script), tmp_path, ("a rose", 7))
    assert drawing.image is None and drawing.refinable is refinable
    assert drawing.reason and drawing.reason.startswith(reason)
    draw(t2i_section(script), tmp_path, ("a rose", 7))
    assert script.calls == (1 if refinable else 2)  # only what may be better next time is asked again


def test_seeds_differ_for_every_drawing_and_do_not_depend_on_labels(script, tmp_path):
    section = t2i_section(script)
    with server.running(t2i=section) as (t2i,), Store(tmp_path, [section]) as store:
        painter = OpenAIPainter(t2i, store)
        seeds = {painter.seed(name, i, r) for name in ("rose", "tulip") for i in range(9) for r in range(4)}
        assert len(seeds) == 72 and all(0 <= seed < 2**31 for seed in seeds)
        asyncio.run(painter.__aexit__())


# --- running many ---


def test_the_first_error_a_user_can_mend_cancels_the_rest():
    async def work(i: int) -> int:
        if i == 3:
            raise LTGCError("the key is wrong")
        await asyncio.Event().wait()
        return i

    with pytest.raises(LTGCError, match="the key is wrong"):
        asyncio.run(run_all("x", range(10), work, Tally()))


def test_at_most_so_many_are_under_way_and_results_keep_their_order(capfd):
    under_way = []

    async def work(i: int) -> int:
        under_way.append(i)
        most = len(under_way)
        await asyncio.sleep(0)
        under_way.remove(i)
        assert most <= 3
        return -i

    assert asyncio.run(run_all("count", range(9), work, Tally(1, 2, 3), 3)) == [-i for i in range(9)]
    assert "count: 9 in" in (out := capfd.readouterr().err) and "1 calls, 3 tokens, 2 from the pool" in out


# --- stages ---


@pytest.fixture
def world(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes, "rose" with 9 training images and "<tulip>/" with 2, and params that point at the script."""
    monkeypatch.chdir(tmp_path)
    section = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name in ("llm", "vision", "t2i"):
        section[name] |= {"base_url": script.base_url, "api_key_env": "TEST_KEY", "retries": 0, "timeout": 5}
    section["data"] |= {"source": "folder", "root": str(tmp_path / "photos")}
    section["llm"]["max_failed_fraction"] = 0.5
    section["extend"] |= {"target": 5, "repetition_check": False}
    write_params(section)
    link_prompts(tmp_path)
    classes, images = [], []
    for label, (name, count) in enumerate({"rose": 9, "<tulip>/": 2}.items()):
        slug = class_slug(label, name)
        classes.append(ClassRecord(label=label, name=name, slug=slug, train=count, val=0, test=1, shot="few"))
        for i in range(count):
            path = tmp_path / f"photos/{slug}/{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(f"#{label}{i}0000"[:7], secret="metadata"))
            images.append(image_record(tmp_path / "photos", f"{slug}/{i}.png", label, name))
    files.write_records_csv(CLASSES, classes, ClassRecord)
    files.write_records_csv(MANIFEST, images, ImageRecord)
    return tmp_path


def write_params(section: dict) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(section))


def answer(request: dict) -> str:
    question = said(request)
    if "Template 2" in question:
        return "A photo of the class rose with {petals}." if '"rose"' in question else "No."
    features = "described" if "describe this image" in question else f"feature {len(question)}"
    return f"A photo of the class <tulip>/, {{{features}}}{{in a garden}}."


def test_only_tail_classes_are_described_and_extended_and_each_class_gets_a_template(script, world, capfd):
    script.chat = answer
    describe.main()
    existing = files.read_jsonl(EXISTING, ExistingDescription)
    assert [(e.label, e.image, e.kept, e.replies) for e in existing] == [
        (1, "0001-tulip/0.png", True, 1),
        (1, "0001-tulip/1.png", True, 1),
    ]
    sent = json.dumps(script.requests)
    assert "data:image/png;base64," in sent and "c2VjcmV0" not in sent  # "secret" in base64

    extend.main()
    extended = files.read_jsonl(EXTENDED, ExtendedDescription)
    assert [(e.label, e.index, e.round, e.kept) for e in extended] == [(1, i, i + 1, True) for i in range(3)]

    templates.main()
    rose, tulip = (json.loads(line) for line in TEMPLATES.read_text().splitlines())
    assert (rose["template"], rose["source"]) == ("A photo of the class rose with petals.", "llm")
    assert (tulip["template"], tulip["source"]) == ("A photo of the class <tulip>/.", "class_name")
    assert tulip["reason"] == "not_in_template"
    assert "its name stands in (not_in_template: <tulip>/)" in capfd.readouterr().err
    counts = files.read_json(CALLS / "templates.json")
    assert counts == {
        "calls": 4, "prompt_tokens": 40, "completion_tokens": 12, "rejected_replies": 3,
        "failures": {"not_in_template": 3},
    }  # fmt: skip


def test_a_stage_that_was_stopped_pays_only_for_the_rest_and_ends_the_same(script, world, monkeypatch):
    script.chat = answer
    describe.main()
    extend.main()
    whole = {name: contents(world / name) for name in ("descriptions", "store", "metrics")}
    for name in whole:
        shutil.rmtree(world / name)
    monkeypatch.setenv("LTGC_CACHE", str(world / "another pool"))
    script.reset()
    describe_calls = 2
    script.chat = lambda request: answer(request) if script.calls <= describe_calls + 1 else Fault(401)
    describe.main()
    with pytest.raises(LTGCError, match="check the key"):
        extend.main()
    assert not EXTENDED.exists()
    script.chat = answer
    extend.main()
    assert script.calls == describe_calls + 1 + 1 + 2  # one was paid for, one failed, two were left
    assert {name: contents(world / name) for name in whole} == whole
    script.chat = lambda request: Fault(401)
    describe.main()
    extend.main()
    assert {name: contents(world / name) for name in whole} == whole


def test_without_a_tail_nothing_is_asked_and_empty_artifacts_are_written(script, world):
    section = yaml.safe_load(Path("params.yaml").read_text())
    section["extend"]["target"] = 0
    section["templates"]["source"] = "class_name"
    for name in ("llm", "vision", "t2i"):
        section[name] |= {"base_url": "https://api.example.com/v1", "api_key_env": "NO_SUCH_KEY"}
    write_params(section)
    for stage in (describe, extend, templates, generate):
        stage.main()
    assert script.calls == 0
    assert [EXISTING.read_text(), EXTENDED.read_text(), ATTEMPTS.read_text()] == [""] * 3
    assert ACCEPTED.is_dir() and REJECTED.is_dir()
    assert all((STORE / name).is_dir() for name in ("describe", "extend", "templates", "generate"))
    assert "A photo of the class rose." in TEMPLATES.read_text()
    for name in ("describe", "extend", "templates", "generate"):
        assert files.read_json(CALLS / f"{name}.json")["calls"] == 0


def test_a_stage_fails_when_every_request_failed_and_says_what_the_server_said(script, world):
    script.chat = lambda request: Fault(400, message="temperature does not support 0.2")
    with pytest.raises(
        LTGCError,
        match=r"set vision.temperature: null \(or reasoning_effort: none\); it said: .*does not support 0\.2",
    ):
        describe.main()
    assert not EXISTING.exists()


def test_generate_keeps_every_image_as_it_came_but_marked_and_sorts_them_by_verdict(script, world):
    section = yaml.safe_load(Path("params.yaml").read_text())
    section["clip"] = {"model": save_clip(world / "clip"), "pretrained": None}
    section["filter"] |= {"scorer": "cosine", "threshold": 2.0, "offset": 0.0, "max_refinements": 1}
    write_params(section)
    kept: dict[str, Any] = {"features": "a", "scene": "b", "kept": True, "reason": None, "round": 1}
    text = "A photo of the class <tulip>/, petals in {}."
    records = [
        ExtendedDescription(label=1, class_name="<tulip>/", index=i, description=text.format(place), **kept)
        for i, place in ((0, "snow"), (3, "rain"))
    ]
    records.append(records[0].model_copy(update={"index": 1, "kept": False, "reason": "repeats"}))
    files.write_jsonl(EXISTING, [])
    files.write_jsonl(EXTENDED, records)
    names = ("rose", "<tulip>/")
    files.write_jsonl(TEMPLATES, [class_template(c, [], "asked_not_to") for c in map(class_of, names)])
    script.chat = lambda request: "A photo of the class <tulip>/, better petals in rain."
    script.image = lambda request: png(f"#{request['seed'] % 0x1000000:06x}", comment=request["prompt"])

    generate.main()
    attempts = files.read_jsonl(ATTEMPTS, Attempt)
    assert [(a.index, a.round, a.verdict, a.refines) for a in attempts] == [
        (0, 0, "refined", None),
        (0, 1, "rejected", "0001-tulip/0000-0"),
        (3, 0, "refined", None),
        (3, 1, "rejected", "0001-tulip/0003-0"),
    ]
    for attempt in attempts:
        assert attempt.image == f"generated/rejected/{attempt.id.replace('/', '.tar/')}.png"
        assert images.read(attempt.image) == marked(
            png(f"#{attempt.seed % 0x1000000:06x}", comment=attempt.prompt)
        )
        assert attempt.score is not None and attempt.threshold == 2.0
    assert attempts[0].prompt == "A photo of the class <tulip>/, petals in snow."
    assert not list(ACCEPTED.iterdir())

    calls, made = script.calls, {name: contents(world / name) for name in ("generated", "store", "metrics")}
    generate.main()
    assert script.calls == calls and {name: contents(world / name) for name in made} == made
    section["filter"]["threshold"] = -1.0  # another threshold draws nothing again
    write_params(section)
    generate.main()
    assert script.calls == calls
    (shard,) = ACCEPTED.iterdir()
    assert shards.names(shard) == ["0000-0.png", "0000-0.json", "0003-0.png", "0003-0.json"]
    assert not contents(REJECTED)

    section["filter"]["threshold"] = 2.0
    section["llm"]["model"] = "another"
    write_params(section)
    script.chat = lambda request: Fault(500)
    with pytest.raises(LTGCError, match=r"2 of 2 got no usable refinement \(refinement: http_500: 0001-tulip/"):
        generate.main()
    script.image = lambda request: Fault(500, message="no paint left")
    section["t2i"]["model"] = "another"
    write_params(section)
    with pytest.raises(LTGCError, match=r"2 of 2 got no usable image \(http_500: .*it said: .*no paint left"):
        generate.main()
    assert len(shards.names(shard)) == 4  # what was there stays until a run succeeds


def test_generate_draws_on_this_machine_where_the_backend_says_so(script, world, capfd):
    from helpers.random_diffusers import save_pipeline  # takes seconds to import

    section = yaml.safe_load(Path("params.yaml").read_text())
    section["clip"] |= {"model": save_clip(world / "clip"), "pretrained": None, "revision": None}
    section["filter"] |= {"scorer": "cosine", "threshold": -1.0, "offset": 0.0}
    section["t2i"] |= {"backend": "diffusers", "model": save_pipeline(world / "pipeline"), "size": "16x16"}
    section["t2i"]["diffusers"] |= {"dtype": "float32", "device": "cpu", "steps": 2}
    write_params(section)
    kept: dict[str, Any] = {"features": "a", "scene": "b", "kept": True, "reason": None, "round": 1}
    texts = ["A photo of the class <tulip>/, red.", "A photo of the class <tulip>/, red" + " and red" * 20]
    files.write_jsonl(EXISTING, [])
    files.write_jsonl(
        EXTENDED,
        [
            ExtendedDescription(label=1, class_name="<tulip>/", index=i, description=text, **kept)
            for i, text in enumerate(texts)
        ],
    )
    files.write_jsonl(
        TEMPLATES, [class_template(c, [], "asked_not_to") for c in map(class_of, ("rose", "<tulip>/"))]
    )
    generate.main()
    attempts = files.read_jsonl(ATTEMPTS, Attempt)
    assert [(a.index, a.verdict, a.prompt) for a in attempts] == [(i, "accepted", t) for i, t in enumerate(texts)]
    assert files.read_json(CALLS / "generate.json")["prompts_cut"] == 1
    assert "1 prompts were cut" in capfd.readouterr().err
    assert script.calls == 0  # no server is asked


def class_of(name: str) -> ClassRecord:
    (found,) = [c for c in files.read_csv(CLASSES, ClassRecord) if c.name == name]
    return found
