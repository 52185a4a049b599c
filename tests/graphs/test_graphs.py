"""The state machines against a real server: what they ask, when they stop, what they record."""

import asyncio
import re
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

import pytest
from helpers.openai_server import Fault, Script, chat_body, openai_server, said
from helpers.paths import ROOT
from langchain_core.messages import HumanMessage

from graphs import describe, prompts, refine, reflect, template
from graphs.parse.repeats import match_entries
from graphs.review import Review
from graphs.state import (
    DescribeContext,
    DescribeState,
    RefineContext,
    RefineState,
    ReflectContext,
    ReflectState,
    TemplateContext,
    TemplateState,
)
from ltgc.clients import server
from ltgc.clients.chat import Chat
from ltgc.clients.painter import Drawing
from ltgc.clients.start import Start
from ltgc.clients.store import Store
from ltgc.clip.subject import Score, Subject
from ltgc.data.images import ImageFile
from ltgc.pipeline.artifacts.dataset import ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.descriptions import ExtendedDescription
from ltgc.pipeline.artifacts.feedback import Feedback
from ltgc.pipeline.settings.servers import ChatSettings

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)
DOCS = ROOT / "docs/architecture.md"
PROMPTS = prompts.load()
IMAGE = ImageRecord(path="rose/1.png", label=0, class_name="rose", split="train", hash="")


def rose(train: int = 1) -> ClassRecord:
    return ClassRecord(label=0, name="rose", slug="0000-rose", train=train, val=0, test=1, shot="few")


@pytest.fixture(scope="module")
def running_server():
    with openai_server() as script:
        yield script


@pytest.fixture
def script(running_server: Script) -> Script:
    running_server.reset()
    return running_server


@pytest.fixture
def ask(script: Script, tmp_path: Path):
    """Run a graph to its end with a chat model behind the scripted server."""

    @asynccontextmanager
    async def chat_model():
        section = ChatSettings(
            base_url=script.base_url, model="m", api_key_env="NO_SUCH_KEY", temperature=0, seed=0, max_tokens=500,
            timeout=5, retries=0, concurrency=4,
        )  # fmt: skip
        with server.running(llm=section) as (llm,), Store(tmp_path / "store", [section]) as store:
            async with Chat(llm, store) as chat:
                yield chat

    async def run(graph, state, context):
        async with chat_model() as chat:
            return await graph.ainvoke(state, context=context(chat))

    return lambda graph, state, context: asyncio.run(run(graph, state, context))


def listed(*pairs: tuple[str, str], name: str = "rose") -> str:
    return "\n".join(f"{i}. A photo of the class {name}, {{{f}}}{{{s}}}." for i, (f, s) in enumerate(pairs, 1))


# --- describe ---


def describe_one(ask, tries: int = 3):
    state = DescribeState(class_record=rose(), image=IMAGE, image_url=PIXEL)
    return ask(describe.graph, state, lambda chat: DescribeContext(chat, PROMPTS, tries))


def test_describe_sends_the_image_and_keeps_a_reply_in_the_template(script, ask):
    script.replies = ["**A photo of the class rose**, {with red petals}{in a garden}."]
    end = describe_one(ask)
    record = end["record"]
    assert record.description == "A photo of the class rose, with red petals in a garden."
    assert (record.kept, record.reason, record.replies, end["counts"]["calls"]) == (True, None, 1, 1)
    (message,) = script.requests[0]["messages"]
    assert message["content"][1]["image_url"]["url"] == PIXEL
    assert 'describe this image of the class "rose"' in said(script.requests[0])


def test_describe_asks_again_saying_what_was_wrong_until_the_reply_can_be_used(script, ask):
    script.replies = ["What a lovely rose.", None, "A photo of the class rose, {with red petals}{in a garden}."]
    end = describe_one(ask)
    assert end["record"].kept and end["record"].replies == 3
    second, third = script.requests[1], script.requests[2]
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == "What a lovely rose."
    assert "did not follow the template" in second["messages"][2]["content"]
    assert "it was empty" in third["messages"][2]["content"]
    assert end["failures"] == {"not_in_template": 1, "empty": 1}


def test_describe_gives_up_after_its_tries_with_the_last_reason(script, ask):
    script.chat = lambda request: "I'm sorry, I can't help with that."
    end = describe_one(ask, tries=2)
    assert (end["record"].description, end["record"].reason, script.calls) == (None, "refused", 2)


def test_a_truncated_reply_and_a_refusal_the_api_marks_are_no_descriptions(script, ask):
    whole = "A photo of the class rose, {with red petals}{in a garden}."
    script.replies = [
        chat_body(whole, "length"),
        chat_body(None, refusal="no"),
        chat_body(whole, "content_filter"),
    ]
    end = describe_one(ask)
    assert not end["record"].kept and script.calls == 3
    assert end["failures"] == {"truncated": 1, "refused": 2}


def test_a_server_that_fails_is_not_told_to_mind_the_template(script, ask):
    script.chat = lambda request: Fault(500)
    end = describe_one(ask)
    assert (end["record"].reason, script.calls) == ("http_500", 1)


# --- reflect ---


def extend(
    ask, target: int = 4, images: int = 1, existing: list[str] | None = None, characters: int = 10_000, **bounds
):
    state = ReflectState(class_record=rose(train=images), existing=existing or [])
    defaults = {"max_rounds": 12, "max_stalled": 2, "repetition_check": False}

    def context(chat):
        return ReflectContext(chat, PROMPTS, target, check_characters=characters, **(defaults | bounds))

    return ask(reflect.graph, state, context)


def reasons(end) -> list[str | None]:
    return [entry.reason for entry in end["extended"]]


def test_number_check_asks_with_the_growing_list_until_images_and_descriptions_reach_the_target(script, ask):
    existing = ["A photo of the class rose, with red petals in a garden."]
    script.replies = [
        listed(("pink petals", "in rain")),
        listed(("white petals", "in snow"), ("thorns", "at dusk")),
    ]
    end = extend(ask, target=4, images=1, existing=existing)
    assert [entry.description for entry in end["extended"]] == [
        "A photo of the class rose, pink petals in rain.",
        "A photo of the class rose, white petals in snow.",
        "A photo of the class rose, thorns at dusk.",
    ]
    assert [entry.round for entry in end["extended"]] == [1, 2, 2]
    assert end["counts"]["rounds"] == script.calls == 2
    first, second = map(said, script.requests)
    assert "with red petals in a garden" in first and "pink petals in rain" not in first
    assert "with red petals in a garden" in second and "pink petals in rain" in second
    assert "up to 3 descriptions" in first and "up to 2 descriptions" in second


def test_what_is_too_much_known_or_no_description_is_dropped_with_the_reason(script, ask):
    existing = ["A photo of the class rose, red petals in a garden."]
    script.replies = [
        "Sure! Here is a list:\n"
        + listed(("Red petals", "in a garden!"), ("pink petals", "in rain"), ("pink petals", "in rain"))
        + "\nA photo of the class tulip, {pink petals}{in snow}.\n"
        + listed(("thorns", "at dusk"), ("hips", "at dawn"))
    ]
    end = extend(ask, target=3, images=1, existing=existing)
    assert reasons(end) == [
        "not_in_template", "duplicate", None, "duplicate", "wrong_class", None, "over_target",
    ]  # fmt: skip


def test_a_model_that_brings_nothing_new_is_told_so_and_stops_the_number_check(script, ask):
    script.replies = [listed(("thorns", "at dusk"))]
    script.chat = lambda request: listed(("thorns", "at dusk"))
    end = extend(ask, target=40, max_stalled=3)
    assert end["stalled"] == 3 and script.calls == 4
    assert reasons(end) == [None, "duplicate", "duplicate", "duplicate"]
    questions = [said(request) for request in script.requests]
    assert len(set(questions)) == 4  # the same question would get the same reply from the store
    assert "nothing new" not in questions[1] and "last 2 of your replies brought nothing new" in questions[3]


def test_rounds_are_bounded_though_each_brings_something(script, ask):
    script.chat = lambda request: listed((f"{script.calls} petals", "at dusk"))
    end = extend(ask, target=40, max_rounds=5)
    assert script.calls == 5 and reasons(end) == [None] * 5


def test_refusals_empty_replies_and_failures_count_as_rounds_without_anything_new(script, ask):
    script.replies = ["I'm sorry, I can't.", None, Fault(500), listed(("thorns", "at dusk"), ("hips", "at dawn"))]
    end = extend(ask, target=3, max_stalled=4)
    assert reasons(end) == [None, None]
    assert end["failures"] == {"refused": 1, "empty": 1, "http_500": 1}


def test_the_last_entry_of_a_truncated_list_is_dropped(script, ask):
    script.replies = [chat_body(listed(("thorns", "at dusk"), ("red pet", "in a gar")), "length")]
    assert reasons(extend(ask, max_rounds=1)) == [None, "truncated"]


FOUR = [
    ("pink petals", "in rain"),
    ("red petals", "in snow"),
    ("rosy petals", "in the rain"),
    ("thorns", "at dusk"),
]


def check(script, ask, reply, entries=FOUR):
    """The reasons after one round of `entries` and a repetition check answered with `reply`."""
    script.replies = [listed(*entries), reply]
    end = extend(ask, target=1 + len(entries), repetition_check=True)
    assert "exclude the repetitive ones" in said(script.requests[1])
    return reasons(end), end["counts"]


def test_repetition_check_drops_what_the_model_leaves_out_though_it_renumbers_and_rewrites(script, ask):
    reply = "Here is the list:\n1. A photo of the class rose, pink petals in rain.\n2. **A photo of the class "
    reply += "rose, red petals in snow**\n3. A photo of the class rose: thorns, at dusk"
    dropped, counts = check(script, ask, reply)
    assert dropped == [None, None, "repeats", None]
    assert counts["repetition_checks"] == 1
    assert counts["invented_entries"] == counts["unusable_repetition_checks"] == 0


def test_entries_the_model_invents_in_the_repetition_check_are_counted_and_not_accepted(script, ask):
    kept = listed(*FOUR[:2], FOUR[3], ("golden hips and leaves", "on a wall in autumn"))
    dropped, counts = check(script, ask, kept)
    assert dropped == [None, None, "repeats", None]
    assert counts["invented_entries"] == 1


@pytest.mark.parametrize(
    "reply",
    [
        None,
        "I'm sorry, I can't.",
        "Entries 1 and 3 say the same.",
        "1, 2, 4",
        listed(("golden hips", "on a wall")),
        chat_body(listed(*FOUR[:2]), "length"),
        Fault(500),
    ],
)
def test_a_repetition_check_that_cannot_be_used_is_not_obeyed(script, ask, reply):
    dropped, counts = check(script, ask, reply)
    assert dropped == [None] * 4
    assert counts["unusable_repetition_checks"] == 1


def test_a_repetition_check_that_would_drop_almost_everything_is_not_obeyed(script, ask):
    many = [(f"{n} petals", f"in year {n}") for n in range(10)]
    dropped, counts = check(script, ask, listed(many[0]), many)
    assert dropped == [None] * 10
    assert counts["unusable_repetition_checks"] == 1


def test_a_small_edit_of_an_entry_is_the_entry_and_a_different_one_is_not():
    entries = [
        "A photo of the class rose, with five pink petals and a yellow centre in a meadow at dusk with grass.",
        "A photo of the class rose, with thorny stems and round red hips on a brick wall.",
    ]
    edited = entries[0].replace("and a yellow", "and yellow")
    assert match_entries(f"7. {edited}", entries) == ({0}, 0)
    other = "1. A photo of the class rose, with black spots on its leaves in a pot."
    assert match_entries(other, entries) == (set(), 1)


def test_the_repetition_check_is_shown_what_exists_and_what_remained_of_the_parts_before(script, ask):
    shown = []

    def answer(request):
        before, _, listed_ = said(request).partition("Here is a list")
        shown.append([line.removeprefix("- ") for line in before.splitlines() if line.startswith("- ")])
        known = "\n".join(shown[-1])  # a model may say again what it was shown: that keeps nothing
        entries = re.findall(r"^\d+\. (.*)$", listed_, re.M)
        return "\n".join([known, *(entries[:1] if len(entries) > 1 else entries)])

    existing = ["A photo of the class rose, red hips on a wall."]
    script.replies = [listed(*FOUR)]
    script.chat = answer
    end = extend(ask, target=5, existing=existing, repetition_check=True, characters=120)
    kept = [entry.description for entry in end["extended"] if entry.kept]
    assert len(kept) == 2
    assert shown[0] == existing
    assert shown[1][:1] == existing and shown[1][1:] == [kept[0]]
    assert end["counts"]["invented_entries"] == 0


def test_a_round_of_feedback_goes_on_with_the_list_and_checks_only_what_it_brought(script, ask):
    script.replies = [listed(*FOUR[:2])]
    end = extend(ask, target=3, images=1)
    script.replies = [
        listed(FOUR[0], ("thorns", "at dusk"), ("spines", "at dusk")),
        listed(("hips", "in autumn")),
        listed(("thorns", "at dusk"), ("hips", "in autumn")),
    ]
    asks = Feedback(round=2, class_name="rose", descriptions=3, rivals=["briar\nrose", "peony"])
    start = reflect.next_round(end, asks)

    def context(chat):
        return ReflectContext(chat, PROMPTS, 3, 12, 2, True, check_characters=10_000)

    after = ask(reflect.graph, start, context)
    assert after["extended"][:2] == end["extended"]
    assert [(e.index, e.feedback, e.reason) for e in after["extended"][2:]] == [
        (2, 2, "duplicate"), (3, 2, None), (4, 2, "repeats"), (5, 2, None),
    ]  # fmt: skip
    first, second, check = map(said, script.requests[1:])
    assert 'often taken for "briar rose" or "peony": describe images' in first and "up to 3 descriptions" in first
    assert "up to 1 descriptions" in second
    known, _, shown = check.partition("Here is a list")
    assert "pink petals" in known and "pink petals" not in shown and "thorns" in shown
    assert after["counts"]["rounds"] == 3


# --- template ---


def summarize(ask, descriptions=("A photo of the class rose, red petals in a garden.",), tries: int = 3):
    state = TemplateState(class_record=rose(), descriptions=list(descriptions))
    return ask(template.graph, state, lambda chat: TemplateContext(chat, PROMPTS, tries))


def test_template_holds_features_and_asks_again_when_a_scene_is_among_them(script, ask):
    script.replies = [
        "A photo of the class rose with {red petals}{in a garden}.",
        "A photo of the class rose with {red petals}{thorny stems}.",
    ]
    end = summarize(ask)
    assert (end["template"].features, end["template"].reason) == (["red petals", "thorny stems"], None)
    assert end["replies"] == 2
    assert "summarize the most distinctive features" in said(script.requests[0])
    assert "red petals in a garden" in said(script.requests[0])
    assert "only features are asked for" in script.requests[1]["messages"][2]["content"]
    assert end["failures"] == {"has_scene": 1}


def test_template_gives_up_after_its_tries_with_the_reason(script, ask):
    script.chat = lambda request: "Roses are red."
    end = summarize(ask, descriptions=(), tries=2)
    template = end["template"]
    assert (template.features, template.reason, script.calls) == ([], "not_in_template", 2)
    assert (template.template, template.source) == ("A photo of the class rose.", "class_name")
    assert "Descriptions of images" not in said(script.requests[0])  # a head class has none


# --- refine ---


class Painter:
    """Draws its prompt, or fails with what the test says for it."""

    def __init__(self, failures: dict[str, str] | None = None) -> None:
        self.failures = failures or {}
        self.drawn: list[str] = []
        self.starts: list[Start | None] = []

    def seed(self, class_name: str, index: int, round: int) -> int:
        return 100 * index + round

    async def draw(self, slug: str, prompt: str, seed: int, start: Start | None) -> Drawing:
        self.drawn.append(prompt)
        self.starts.append(start)
        reason = self.failures.get(prompt)
        return Drawing(seed, None if reason else prompt.encode(), reason, refinable=reason == "refused")


class Scorer:
    """The more stars a prompt has, the better."""

    async def score(self, subject: Subject, image: bytes) -> Score:
        return Score(float(image.count(b"star")), 2.0)


START = "A photo of the class rose, petals in rain."
FIRST = ExtendedDescription(
    label=0, class_name="rose", index=7, round=1, description=START, features="petals", scene="in rain", kept=True,
    reason=None,
)  # fmt: skip


def generate(ask, painter=None, max_refinements: int = 3, start: Start | None = None, score=None):
    state = RefineState(slug="0000-rose", description=FIRST, start=start)

    scorer = type("Judge", (), {"score": score})() if score else Scorer()

    def context(chat):
        return RefineContext(chat, PROMPTS, Review(), painter or Painter(), scorer, max_refinements)

    return ask(refine.graph, state, context)


def better(stars: int) -> str:
    return f"Certainly! Here it is:\n\nA photo of the class rose, {{petals {'star ' * stars}}}{{in rain}}."


def test_a_low_quality_image_is_refined_and_drawn_again_until_it_passes(script, ask):
    script.replies = [better(1), better(2)]
    end = generate(ask)
    attempts = end["attempts"]
    assert [attempt.verdict for attempt in attempts] == ["refined", "refined", "accepted"]
    assert [attempt.round for attempt in attempts] == [0, 1, 2]
    assert [attempt.seed for attempt in attempts] == [700, 701, 702]
    assert [attempt.score for attempt in attempts] == [0.0, 1.0, 2.0] and {
        attempt.threshold for attempt in attempts
    } == {2.0}
    assert attempts[1].prompt == "A photo of the class rose, petals star in rain."
    first, second = map(said, script.requests)
    assert START in first and 'does not represent the class "rose"' in first and "refine" in first
    assert attempts[1].prompt in second and START in second  # what was tried before is not to come again


def test_an_image_that_passes_at_once_asks_the_llm_nothing(script, ask):
    painter = Painter()
    painter.draw = lambda *asked: Painter.draw(painter, "", "star star", *asked[2:])  # type: ignore[method-assign]
    assert [attempt.verdict for attempt in generate(ask, painter)["attempts"]] == ["accepted"]
    assert script.calls == 0


def test_what_starts_from_a_photo_is_held_against_its_class_alone_until_nothing_is_left_of_it(script, ask):
    script.replies = [better(2), better(2)]
    judged: list[str | None] = []

    async def score(self, subject: Subject, image: bytes) -> Score:
        judged.append(subject.features)
        return Score(float(image.count(b"star")), 2.0)

    for strength in (0.5, 1.0):
        start = Start("rose/1.png", ImageFile("rose/1.png"), strength)
        painter = Painter()
        attempts = generate(ask, painter, start=start, score=score)["attempts"]
        assert painter.starts == [start, start]  # a refinement starts from the same photo
        assert [(a.photo, a.strength) for a in attempts] == [("rose/1.png", strength)] * 2
    assert judged == [None, None, "petals", "petals star star"]
    plain = generate(ask)["attempts"][0].model_dump_json()
    assert '"photo"' not in plain and '"strength"' not in plain


def test_what_never_passes_is_rejected_after_r_refinements(script, ask):
    script.chat = lambda request: better(0)
    end = generate(ask, max_refinements=2)
    assert [attempt.verdict for attempt in end["attempts"]] == ["refined", "refined", "rejected"]
    assert script.calls == 2
    assert [attempt.verdict for attempt in generate(ask, max_refinements=0)["attempts"]] == ["rejected"]


def test_a_description_that_cannot_be_drawn_is_refined_like_a_bad_image(script, ask):
    script.replies = [better(2)]
    attempts = generate(ask, Painter({START: "refused"}))["attempts"]
    assert [(attempt.verdict, attempt.reason) for attempt in attempts] == [
        ("failed", "refused"),
        ("accepted", None),
    ]
    assert "no image could be drawn from it" in said(script.requests[0])


def test_a_server_that_draws_nothing_is_not_asked_with_other_words(script, ask):
    attempts = generate(ask, Painter({START: "http_500"}))["attempts"]
    assert [(attempt.verdict, attempt.reason) for attempt in attempts] == [("failed", "http_500")]
    assert script.calls == 0


def test_an_unusable_refinement_is_asked_for_again_while_rounds_remain(script, ask):
    script.replies = ["No.", better(2)]
    end = generate(ask)
    assert [(attempt.round, attempt.verdict) for attempt in end["attempts"]] == [(0, "refined"), (2, "accepted")]
    assert "could not be used" in said(script.requests[1])


@pytest.mark.parametrize("reply, reason", [("No.", "not_in_template"), (Fault(500), "http_500")])
def test_an_image_that_cannot_be_refined_failed(script, ask, reply, reason):
    script.chat = lambda request: reply
    end = generate(ask, max_refinements=2)
    assert [(attempt.verdict, attempt.reason) for attempt in end["attempts"]] == [
        ("failed", f"refinement: {reason}")
    ]
    assert script.calls == (2 if reason == "not_in_template" else 1)


# --- prompts and pictures ---


@pytest.mark.parametrize("name", ['a "quoted" {braced} %s name', "two\nlines", "🌸" * 300])
def test_any_class_name_can_be_asked_about(name):
    on_one_line = " ".join(name.split())
    questions = [
        PROMPTS.describe(name, PIXEL),
        PROMPTS.extend(name, ["d"], 5, 1),
        PROMPTS.repetition_check(name, ["d"]),
        PROMPTS.summarize(name, ["d"]),
        PROMPTS.refine(name, [("d", "refused"), ("e", None)], "empty", 2),
    ]
    for (message,) in questions:
        assert isinstance(message, HumanMessage)
        assert f'the class "{on_one_line}"' in message.text


def test_the_wider_taxonomy_is_told_where_it_is_known_and_nowhere_else():
    def questions(context):
        return [
            PROMPTS.describe("Bellis perennis", PIXEL, context),
            PROMPTS.extend("Bellis perennis", ["d"], 5, 0, context),
            PROMPTS.summarize("Bellis perennis", ["d"], context),
        ]

    told, plain = questions("Plantae >\nAsterales"), questions(None)
    for (with_it,), (without,) in zip(told, plain, strict=True):
        assert with_it.text == without.text.replace(
            without.text.split("\n\nTemplate")[0],
            without.text.split("\n\nTemplate")[0] + " In the wider taxonomy it belongs to Plantae > Asterales.",
        )


@pytest.mark.parametrize("name", ["describe", "reflect", "template", "refine", "classify"])
def test_the_drawings_in_the_docs_have_the_edges_of_the_graphs(name):
    drawing = import_module(f"graphs.{name}").graph.get_graph().draw_mermaid()
    section = DOCS.read_text(encoding="utf-8").split(f"\n### {name}: ")[1].split("\n##")[0]
    assert edges(section) == edges(drawing)


def edges(text: str) -> set[str]:
    """The arrows of a Mermaid drawing; the colours around them change with LangGraph's version."""
    return set(re.findall(r"^\s*(\w+ -.*> \w+);$", text, re.M))
