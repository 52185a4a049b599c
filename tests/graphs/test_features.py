"""The scorer `ask`: what the vision model is asked about a drawing, and what becomes of what it says."""

import asyncio
import csv
import json
import re
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import scripted_world
from helpers.openai_server import Fault, openai_server, said
from helpers.scripted_world import STAGES
from helpers.server_settings import chat_section, png

from graphs import prompts
from graphs.features import FeatureQuestions
from graphs.parse.reply import REASONS, Unusable
from graphs.parse.yes_no import parse_answers, split_features
from ltgc.clients import server
from ltgc.clients.chat import Chat
from ltgc.clients.store import Store
from ltgc.clip.subject import Score, Subject
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, REAL_SCORES, Attempt
from ltgc.pipeline.artifacts.replies import CALLS
from ltgc.pipeline.settings.clip import FilterSettings
from stages import generate


@pytest.mark.parametrize(
    ("features", "one_by_one"),
    [
        (
            "with five blue petals, a yellow centre and broad leaves",
            ["five blue petals", "a yellow centre", "broad leaves"],
        ),
        ("large, pointed ears; black and white fur", ["large, pointed ears", "black and white fur"]),
        ("with red petals, Red petals, and with thorns", ["red petals", "thorns"]),
        ("petals", ["petals"]),
        ("", []),
    ],
)
def test_a_description_is_asked_about_feature_by_feature(features, one_by_one):
    assert split_features(features) == one_by_one


@pytest.mark.parametrize(
    "reply",
    [
        "1. Yes\n2. No\n3. Yes",
        "Here is what I see:\n\n1) **yes**\n2) **No**, no thorns.\n3) YES.",
        "1. Are there no thorns? Yes\n2. Is there no stem? No\n3. A leaf? Yes, there is no doubt.",
        "Yes, no, yes",
        '{"1": true, "2": false, "3": true}',
        "<think>1. no 2. no</think>1: yes 2: no 3: yes",
        "3. yes\n1. yes\n2. no",
    ],
)
def test_answers_are_read_however_they_are_written(reply):
    assert parse_answers(reply, 3) == [True, False, True]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [("1. Yes\n2. No", "unanswered"), ("Yes", "unanswered"), (" ", "empty"), ("I'm sorry, I can't.", "refused")],
)
def test_a_reply_that_leaves_a_question_open_is_no_answer(reply, reason):
    with pytest.raises(Unusable) as unusable:
        parse_answers(reply, 3)
    assert unusable.value.reason == reason and reason in REASONS


def test_a_drawing_is_asked_about_again_until_all_is_answered_and_has_no_score_where_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TEST_KEY", "k")
    rose = ClassRecord(label=0, name="rose", slug="0000-rose", train=1, val=0, test=1, shot="few")
    settings = FilterSettings(scorer="ask", threshold=1, offset=0.5, tries=2, max_refinements=0, text="templates")

    async def scores(script, *subjects: Subject) -> list[Score]:
        section = chat_section(script)
        with server.running(vision=section) as (vision,), Store(tmp_path / "store", [section]) as store:
            async with Chat(vision, store) as chat:
                questions = FeatureQuestions(chat, prompts.load("ask_features"), [rose], {0: ["buds"]}, settings)
                return [await questions.score(subject, png()) for subject in subjects]

    with openai_server() as script:
        script.replies = ["A lovely rose.", "1. yes\n2. no", *["Well."] * 2, Fault(500)]
        answered, silent, down = asyncio.run(
            scores(script, Subject(0, "with red petals and thorns"), Subject(0, "stem"), Subject(0))
        )
    assert (answered.score, answered.threshold) == (0.5, 1.0)
    assert answered.answers == {"red petals": True, "thorns": False}
    assert answered.counts["vision_calls"] == 2
    first, second = map(said, script.requests[:2])
    assert "1. red petals\n2. thorns" in first and "could not be used" not in first and "rose" not in first
    assert "did not answer each question" in second
    assert "1. buds" in said(script.requests[-1])  # of the class, where nothing is said of the drawing
    assert (silent.score, silent.reason) == (None, "questions: unanswered")
    assert (down.score, down.reason, down.counts["vision_calls"]) == (None, "questions: http_500", 1)
    assert script.calls == 5


def test_generate_asks_about_each_drawing_only_where_the_scorer_is_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LTGC_CACHE", str(tmp_path / "pool"))

    def chat(request: dict[str, Any]) -> str:
        question = said(request)
        if "yes or no" not in question:
            return scripted_world.answer(request)
        listed = re.findall(r"^\d+\. (.+)$", question, re.M)
        # Nothing is seen of a first drawing, all of a refined one.
        seen = any("better" in feature for feature in listed)
        return "\n".join(f"{n}. {'yes' if seen else 'no'}" for n, _ in enumerate(listed, 1))

    with openai_server() as script, chdir(tmp_path):
        scripted_world.build(tmp_path, script, {"rose": 9, "tulip": 2}, target=6)
        script.chat = chat
        for stage in STAGES:
            stage.main()
        assert not any("yes or no" in said(request) for request in script.requests if "messages" in request)
        assert '"answers"' not in ATTEMPTS.read_text()

        values = yaml.safe_load(Path("params.yaml").read_text())
        values["filter"] |= {"scorer": "ask", "threshold": 1.0}
        values["clip"]["model"] = "no-such-clip"  # it is not needed
        Path("params.yaml").write_text(yaml.safe_dump(values))
        calls = script.calls
        generate.main()
        attempts = files.read_jsonl(ATTEMPTS, Attempt)
        asked = [r for r in script.requests[calls:] if "messages" in r and "yes or no" in said(r)]
        with REAL_SCORES.open() as file:
            assert list(csv.reader(file))[1:] == []  # no photo is asked about
        counted = json.loads((CALLS / "generate.json").read_text())
    assert len(attempts) == 8 and [a.verdict for a in attempts] == ["refined", "accepted"] * 4
    assert attempts[1].score == 1 and attempts[1].answers and all(attempts[1].answers.values())
    assert counted["vision_calls"] == counted["drawings"] == 8 and counted["calls"] == 4
    assert 0 < len(asked) <= 8
