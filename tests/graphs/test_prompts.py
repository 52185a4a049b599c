"""The files of prompts: the words that replies were paid for, and what happens to a wrong place."""

import hashlib
import json
from itertools import product
from pathlib import Path

import pytest
from helpers.paths import ROOT
from langchain_core.messages import BaseMessage

from graphs import prompts
from ltgc.pipeline.errors import LTGCError

# SHA-256 of every question below, in the words in which the stored replies were asked for. Another word in a file
# of prompts/ is another question: its replies are paid for again. If that is meant, put the new digest here.
WORDS = "7eae59c3d1bae4fd751bf0066065fb38462733899f6a68a6ea25d11edf70cf51"
NAMES = ["Bellis perennis", 'a "quoted" {braced} {{twice}} %s $x {% if %} name', "two\nlines <b>&amp;"]
LISTS = [[], ["A photo of the class x, a, in b."], ["one {a}", "two {{ b }} & <c>", "three"]]
CONTEXTS = [None, "", "Plantae >\nAsterales"]
LOW, REFUSED = ("d", None), ("d", "refused")
TRIED = [[LOW], [REFUSED], [REFUSED, ("e", None)], [("a", None), REFUSED, ("e {{x}}", None)]]


def every_question(words: prompts.Prompts) -> list[list[BaseMessage]]:
    asked = []
    for name, context in product(NAMES, CONTEXTS):
        asked.append(described := words.describe(name, "data:x", context))
        for listed in LISTS:
            asked.append(words.summarize(name, listed, context))
            asked += [words.extend(name, listed, 20, stalled, context) for stalled in (0, 1, 2)]
        replies = product(("empty", "has_scene", "http_500"), ("", "No.\nNever.", "x" * 3000))
        asked += [words.again(described, reply, reason, 2) for reason, reply in replies]
    asked += [words.repetition_check(*lists) for lists in product(NAMES, LISTS, LISTS)]
    for name, tried, unusable in product(NAMES, TRIED, (None, "empty", "http_500")):
        asked.append(words.refine(name, tried, unusable, len(tried)))
    of_tags = [
        words.tags("data:x"),
        words.classify_tags(prompts.class_list(NAMES), "Tags: {{a}}\nCaptions:\n- b.\n"),
    ]
    return [*asked, words.classify(prompts.class_list(NAMES), "data:x"), *of_tags]


def test_the_words_are_those_that_the_stored_replies_were_asked_for_with(monkeypatch):
    monkeypatch.chdir(ROOT)
    said = [[[m.type, m.content] for m in question] for question in every_question(prompts.load())]
    assert hashlib.sha256(json.dumps(said).encode()).hexdigest() == WORDS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    return tmp_path / "prompts"


def test_a_user_may_word_a_prompt_and_leave_places_out(folder):
    (folder / "describe.txt").write_text("{# ours #}\nWhat is this {{ class_name }} like?\n\n")
    ((question,),) = [prompts.load("describe").describe("two\nlines {{ x }}", "data:x")]
    assert question.text == "What is this two lines {{ x }} like?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{{ clas_name }}",
            r"prompts/describe.txt: no place is called clas_name; its places are class_name, context",
        ),
        ("a\n{{ class_name }", r"prompts/describe.txt, line 2: unexpected '}'.* are class_name, context"),
        ("{% if context %}", r"prompts/describe.txt, line 1: .*"),
        (b"\xff", r"prompts/describe.txt: not UTF-8 \(invalid start byte\); save it as UTF-8"),
        (None, r"prompts/describe.txt: not there; get it back with `git checkout prompts/describe.txt`"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_that_names_it(folder, text, message):
    if text is not None:
        (folder / "describe.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LTGCError, match=f"^{message}$"):
        prompts.load("describe")


def test_a_place_that_fails_when_it_is_filled_is_one_line_too(folder):
    (folder / "describe.txt").write_text("{{ class_name.first }}")
    with pytest.raises(LTGCError, match=r"^prompts/describe.txt: 'str object' has no attribute 'first'$"):
        prompts.load("describe").describe("rose", "data:x")
