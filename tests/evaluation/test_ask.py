"""Asking the vision model for the class: what its answers name, which images it is shown, and its score."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import finished_pipeline
from helpers.openai_server import Fault, Script, chat_body, said
from helpers.photo_folders import image_record

from embedded import field_guide
from graphs import prompts
from graphs.class_names import Names
from graphs.parse.reply import Unusable
from ltgc.data.synonyms import read_synonyms
from ltgc.evaluation.asking import ask_metrics, sample_images
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.asking import ANSWERS, ASK, Answer, AskMetrics
from ltgc.pipeline.artifacts.dataset import MANIFEST, SYNONYMS, ClassRecord, ImageRecord, Synonym
from ltgc.pipeline.artifacts.replies import CALLS
from ltgc.pipeline.errors import LTGCError
from stages import ask as stage

NAMES = ["Rose", "Rose hip", "Field poppy", "Box", "Crane fly", "Glass", "Glasses", "Sorry", "Água/viva"]
OTHER_NAMES = [
    Synonym(class_name="Field poppy", synonym="corn rose"),
    Synonym(class_name="Crane fly", synonym="daddy longlegs"),
]


def records(names: list[str], test: int = 4) -> list[ClassRecord]:
    return [
        ClassRecord(label=n, name=name, slug=f"{n:04d}", train=1, val=0, test=test, shot="few")
        for n, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        ("Rose", "Rose"),
        ("ROSE.", "Rose"),
        ("**Field Poppies**", "Field poppy"),
        ("The image shows field-poppy flowers.", "Field poppy"),
        ("A daddy longlegs", "Crane fly"),
        ("boxes", "Box"),
        ("roses", "Rose"),
        ("This is a rose hip.", "Rose hip"),
        ("That is a corn rose, a field poppy.", "Field poppy"),  # two names of one class
        ("glasses", "Glasses"),  # where the plural is all that tells two classes apart
        ("glass", "Glass"),
        ("Sorry", "Sorry"),
        ("<think>a rose? no</think>água viva", "Água/viva"),
    ],
)
def test_a_class_is_found_whatever_the_case_the_plural_and_the_words_around_it(reply, name):
    assert NAMES[Names(records(NAMES), OTHER_NAMES).find(reply)] == name


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I'm sorry, I cannot tell a rose from a box.", "refused"),
        ("A tulip", "unknown_class"),
        ("A prose boxer", "unknown_class"),  # words, not parts of words
        ("A rose or a box", "several_classes"),
        ("...", "unknown_class"),
    ],
)
def test_what_is_no_answer_says_why(reply, reason):
    with pytest.raises(Unusable, match=reason):
        Names(records(NAMES), OTHER_NAMES).find(reply)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Rose,Box", "'Box' is given to 'Rose' and names another class too"),
        ("Tulip,tulipa", "'Tulip' is no class"),
        ("Rose,", "line 2: class_name and synonym must both be there"),
    ],
)
def test_a_wrong_line_of_the_synonyms_is_named(tmp_path, line, says):
    (tmp_path / SYNONYMS.name).write_text(f"class_name,synonym\n{line}\n", encoding="utf-8")
    with pytest.raises(LTGCError, match=says):
        Names(records(NAMES), read_synonyms(tmp_path))


def test_images_are_spread_over_the_classes_and_a_larger_sample_holds_the_smaller():
    test = [
        ImageRecord(path=f"{label}/{n}.png", label=label, class_name=str(label), split="test", hash="00")
        for label, count in enumerate([50, 3, 7])
        for n in range(count)
    ]
    small, large = sample_images(test, 9, seed=0), sample_images(test, 14, seed=0)
    assert [sum(i.label == label for i in small) for label in range(3)] == [3, 3, 3]
    assert {i.path for i in small} < {i.path for i in large}
    assert [i.path for i in sample_images(test, 9, seed=1)] != [i.path for i in small]
    assert sample_images(test, 1000, seed=0) == test
    assert sample_images(test, 0, seed=0) == []


def test_all_weighs_classes_by_their_test_images_and_shot_groups_do_not():
    def answer(label: int, right: bool, reason: str | None = None) -> Answer:
        return Answer(path="x", label=label, reply="", prediction=label if right else None, reason=reason)

    classes = [
        c.model_copy(update={"test": n}) for c, n in zip(records(["a", "b", "c"]), [90, 10, 50], strict=True)
    ]
    classes[0] = classes[0].model_copy(update={"shot": "many"})
    scores = ask_metrics([answer(0, True), answer(1, False, "refused"), answer(1, True)], classes)
    assert scores == AskMetrics(
        images=3, of=150, all=95.0, many=100.0, medium=None, few=50.0, refused=1, no_class=0
    )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running_server: Script) -> Script:
    """The small world with two test images a class, and a vision model that is a script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEST_KEY", "k")
    finished_pipeline.build(tmp_path)
    ASK.unlink()
    images = []
    for label, name in enumerate(finished_pipeline.NAMES):
        for n in range(2):
            path = f"test/{label}-{n}.png"
            finished_pipeline.draw(tmp_path / finished_pipeline.PHOTOS / path, (40 * label, 90 * n, 200), 3)
            images.append(image_record(tmp_path / finished_pipeline.PHOTOS, path, label, name, "test"))
    files.write_records_csv(MANIFEST, images, ImageRecord)
    files.write_records_csv(SYNONYMS, [], Synonym)
    running_server.reset()
    set_params(vision={"base_url": running_server.base_url, "model": "m", "api_key_env": "TEST_KEY", "retries": 0},
               ask={"max_images": 9})  # fmt: skip
    return running_server


def set_params(**sections: dict) -> None:
    values = yaml.safe_load(Path("params.yaml").read_text())
    for name, section in sections.items():
        values[name] |= section
    Path("params.yaml").write_text(yaml.safe_dump(values))


def test_the_stage_scores_answers_and_pays_for_each_image_once(world):
    world.replies = ["I'm sorry, I can't help with that.", "a tulip", chat_body("", refusal="no")]
    world.chat = lambda request: "It is a field poppy, I think."
    stage.main()
    assert world.calls == 9
    question = said(world.requests[0])
    assert all(name in question for name in finished_pipeline.NAMES)
    scores = files.read_record(ASK, AskMetrics)
    answers = files.read_jsonl(ANSWERS, Answer)
    right = sum(a.prediction == a.label == 0 for a in answers)
    assert (scores.images, scores.of, scores.refused, scores.no_class) == (9, 30, 2, 1)
    assert scores.many == 100 * right / sum(a.label == 0 for a in answers)
    assert scores.few == 0
    calls = json.loads((CALLS / "ask.json").read_text())
    assert (calls["calls"], calls["prompt_tokens"]) == (9, 90)
    assert calls["failures"] == {"refused": 2, "unknown_class": 1}
    before = ANSWERS.read_bytes()
    set_params(ask={"max_images": 12})
    stage.main()
    assert world.calls == 12
    assert ANSWERS.read_bytes() != before


def test_of_tags_the_llm_names_the_class_and_never_sees_the_image(world):
    def reply(request):
        text, sees = said(request), "image_url" in json.dumps(request["messages"])
        names = [name for name in finished_pipeline.NAMES if name in text]
        assert (request["model"], names) == (("m", []) if sees else ("l", finished_pipeline.NAMES))
        if sees:
            return refusals.pop() if refusals else "<think>A rose?</think>Tags: red, tall"
        assert "Tags: red, tall" in text and "<think>" not in text
        return finished_pipeline.NAMES[0]

    refusals = ["I'm sorry, I can't help with that.", chat_body("", refusal="no")]
    world.chat = reply
    same = {"base_url": world.base_url, "api_key_env": "TEST_KEY", "retries": 0}
    set_params(ask={"way": "tags"}, llm=same | {"model": "l"})
    stage.main()
    answers = files.read_jsonl(ANSWERS, Answer)
    assert sum(a.prediction == 0 for a in answers) == 7 and sum(a.reason == "refused" for a in answers) == 2
    calls = json.loads((CALLS / "ask.json").read_text())
    assert (calls["calls"], calls["llm"]["calls"], calls["failures"]) == (9, 7, {"refused": 2})


def test_a_server_that_is_down_is_no_wrong_answer(world):
    world.chat = lambda request: Fault(500)
    set_params(vision={"max_failed_fraction": 0.5, "concurrency": 16})
    with pytest.raises(LTGCError, match=r"9 of 9 got no usable answer"):
        stage.main()
    assert not ASK.exists()


@pytest.mark.parametrize("max_images", [0, None])
def test_turned_off_or_not_asked_for_it_asks_no_server_of_ours_and_has_no_score(world, monkeypatch, max_images):
    monkeypatch.delenv("TEST_KEY")
    set_params(ask={"max_images": max_images})
    stage.main()
    assert world.calls == 0
    assert files.read_record(ASK, AskMetrics).all is None
    assert ANSWERS.read_text() == ""


def test_the_embedded_model_names_what_it_sees_as_untidily_as_real_ones():
    kinds = list(field_guide.species().values())
    names = Names(records([kind.name for kind in kinds]), read_synonyms(field_guide.WORLD))
    class_list = prompts.class_list([kind.name for kind in kinds])
    question = prompts.load("classify").classify(class_list, "")[0].text
    right, of_tags, reasons, replies = 0, 0, [], set()
    rng = np.random.default_rng(0)
    for label, kind in enumerate(kinds):
        for _ in range(20):
            flower = kind.sample(rng)
            told = prompts.load("classify_tags").classify_tags(class_list, field_guide.tag(flower, rng))[0].text
            of_tags += kind.name.lower() in field_guide.answer(told, rng).lower()
            reply = field_guide.identify(question, vars(flower), rng)
            replies.add(reply)
            try:
                right += names.find(reply) == label
            except Unusable as unusable:
                reasons.append(str(unusable))
    assert 0.8 < right / (20 * len(kinds)) < 1
    assert 0.6 < of_tags / (20 * len(kinds)) < 1  # English names not counted
    assert set(reasons) == {"refused"}
    assert {"Digitalis purpurea", "digitalis purpurea", "foxglove"} <= replies
    assert any(reply.startswith("The flower in this image") for reply in replies)
    assert "can't say" in field_guide.identify("a list of\nroses", vars(kinds[0].sample(rng)), rng)
