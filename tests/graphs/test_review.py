"""review.csv: what each verdict changes in what the stages write, and that nothing else is asked or drawn."""

import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from helpers import scripted_world
from helpers.openai_server import Fault, Script, openai_server, said
from helpers.paths import ROOT
from helpers.scripted_world import MADE, STAGES, answer, contents, paint

from graphs import review
from ltgc.data import images
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, Attempt
from ltgc.pipeline.artifacts.review import REVIEW, ReviewRow
from ltgc.pipeline.errors import LTGCError
from stages import describe, extend, generate, templates

HEAD = "A photo of the class tulip, "


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Script]]:
    """A world of 9 roses and 2 tulips, in which the stages have run without a review."""
    folder = tmp_path_factory.mktemp("world")
    with openai_server() as script, pytest.MonkeyPatch.context() as patch, chdir(folder):
        patch.setenv("LTGC_CACHE", str(folder / "pool"))
        scripted_world.build(folder, script, {"rose": 9, "tulip": 2}, target=6)
        for stage in STAGES:
            stage.main()
        for name in MADE:
            shutil.copytree(name, f"as it was/{name}")
        yield folder, script


@pytest.fixture
def world(finished: tuple[Path, Script], monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """That world, put back afterwards to how it was without a review."""
    folder, script = finished
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LTGC_CACHE", str(folder / "pool"))
    script.reset()
    script.chat, script.image = answer, paint
    yield script
    REVIEW.unlink(missing_ok=True)
    for name in MADE:
        shutil.rmtree(name)
        shutil.copytree(f"as it was/{name}", name)


def decide(item: str, which: str | None, verdict: str, text: str | None = None) -> None:
    found = files.read_csv(REVIEW, ReviewRow) if REVIEW.exists() else []
    values = {"item": item, "class_name": "tulip", "which": which, "verdict": verdict, "text": text}
    files.write_records_csv(REVIEW, [*found, ReviewRow.model_validate(values)], ReviewRow)


def asked(script: Script) -> list[str]:
    """What the server was told since the world was made."""
    return [request["prompt"] if "prompt" in request else said(request) for request in script.requests]


def extended() -> list[tuple[str, bool, str | None]]:
    return [(e.description, e.kept, e.reason) for e in files.read_jsonl(EXTENDED, ExtendedDescription)]


def test_a_review_without_verdicts_changes_no_byte_and_asks_nothing(world):
    before = contents(*MADE)
    REVIEW.write_bytes((ROOT / REVIEW).read_bytes())
    for stage in STAGES:
        stage.main()
    assert contents(*MADE) == before
    assert not world.requests


def test_the_repository_has_a_review_without_verdicts():
    assert (ROOT / REVIEW).read_text() == ",".join(ReviewRow.model_fields) + "\n"


def test_photos_that_a_person_described_or_rejected_change_what_is_asked_about_their_class_alone(world):
    world.chat = lambda request: Fault(500) if "describe this image" in said(request) else answer(request)
    decide("existing", "0001-tulip/0.png", "reject")
    decide("existing", "0001-tulip/1.png", "reword", HEAD + "{striped petals}{on a hill}.")
    describe.main()
    first, second = files.read_jsonl(EXISTING, ExistingDescription)
    assert (first.kept, first.reason, first.features) == (False, "rejected_in_review", "red petals")
    assert (second.kept, second.features, second.scene) == (True, "striped petals", "on a hill")
    assert not world.requests
    extend.main()
    assert world.calls and all("striped petals" in question for question in asked(world))
    assert not any("red petals" in question for question in asked(world))


def test_extended_descriptions_are_accepted_rejected_and_reworded_without_asking_for_others(world):
    (first, second, raw, *others) = before = extended()
    assert first[1] and second[1] and raw == ("What a flower.", False, "not_in_template")
    decide("extended", first[0], "reject")
    decide("extended", second[0], "reword", HEAD + "{blue petals}{at night}.")
    decide("extended", raw[0], "accept")
    extend.main()
    assert not world.requests
    changed = [
        (first[0], False, "rejected_in_review"),
        (HEAD + "blue petals at night.", True, None),
        ("What a flower.", True, None),
    ]
    assert extended() == [*changed, *others]
    assert len(before) == len(extended())
    generate.main()
    assert asked(world) == ["A photo of the class tulip, blue petals at night.", "What a flower."]


def test_a_template_that_a_person_wrote_is_used_and_not_asked_for(world):
    decide("template", None, "reword", "A photo of the class tulip with {six petals}{a cup}.")
    templates.main()
    rose, tulip = files.read_jsonl(TEMPLATES, ClassTemplate)
    assert (tulip.template, tulip.source) == ("A photo of the class tulip with six petals, a cup.", "review")
    assert rose.source == "llm" and not world.requests
    REVIEW.unlink()
    decide("template", None, "reject")
    templates.main()
    _, tulip = files.read_jsonl(TEMPLATES, ClassTemplate)
    assert (tulip.template, tulip.source) == ("A photo of the class tulip.", "class_name")
    assert tulip.reason == "rejected_in_review"


def test_a_drawing_that_a_person_rejects_or_rewords_is_drawn_anew_and_no_other(world):
    before = files.read_jsonl(ATTEMPTS, Attempt)
    assert {a.verdict for a in before} == {"accepted"}
    rejected, described, *rest = before
    decide("drawing", images.content_hash(images.read(rejected.image)), "reject")
    decide("drawing", images.content_hash(images.read(described.image)), "reword", HEAD + "a bud in a vase.")
    generate.main()
    refinement, *drawn = sorted(asked(world), key=len, reverse=True)
    assert f"shows little of it.\n\n{rejected.prompt}" in refinement
    assert drawn == [HEAD + "better petals in rain.", HEAD + "a bud in a vase."]
    after = files.read_jsonl(ATTEMPTS, Attempt)
    assert [(a.index, a.round, a.verdict, a.reason) for a in after if a.index in (0, 1)] == [
        (0, 0, "refined", "rejected_in_review"),
        (0, 1, "accepted", None),
        (1, 0, "refined", "reworded_in_review"),
        (1, 1, "accepted", None),
    ]
    assert [a for a in after if a.index > 1] == rest
    # The last round is over: a rejection is final, and what a person words is drawn all the same.
    for attempt, verdict, text in ((after[1], "reject", None), (after[3], "reword", HEAD + "a field in bloom.")):
        decide("drawing", images.content_hash(images.read(attempt.image)), verdict, text)
    generate.main()
    last = files.read_jsonl(ATTEMPTS, Attempt)
    assert (last[1].verdict, last[1].reason) == ("rejected", "rejected_in_review")
    assert [(a.round, a.verdict) for a in last[2:5]] == [(0, "refined"), (1, "refined"), (2, "accepted")]
    assert asked(world)[3:] == [HEAD + "a field in bloom."]


def test_a_drawing_that_a_person_accepts_needs_no_score(world):
    values = yaml.safe_load(Path("params.yaml").read_text())
    strict = values | {"filter": values["filter"] | {"threshold": 2.0}}
    first = files.read_jsonl(ATTEMPTS, Attempt)[0]
    decide("drawing", images.content_hash(images.read(first.image)), "accept")
    try:
        Path("params.yaml").write_text(yaml.safe_dump(strict))
        generate.main()
    finally:
        Path("params.yaml").write_text(yaml.safe_dump(values))
    attempts = files.read_jsonl(ATTEMPTS, Attempt)
    assert [(a.index, a.round) for a in attempts if a.verdict == "accepted"] == [(0, 0)]
    assert attempts[0].reason == "accepted_in_review"


def test_a_verdict_on_what_is_no_longer_there_is_said_and_does_nothing(world, capfd):
    before = contents(*MADE)
    decide("extended", HEAD + "gone.", "reject")
    extend.main()
    assert "review.csv: 1 on extended apply to nothing that is here any more (tulip)" in capfd.readouterr().err
    assert contents(*MADE) == before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("existing,tulip,a.png,refuse,", r"review.csv, line 2: verdict: Input should be 'accept', .*"),
        ("existing,tulip,a.png,reword,", r"review.csv, line 2: the line: .*verdict reword needs a text.*"),
        ("existing,tulip,,reject,", r"review.csv, line 2: the line: .*which is empty for a template.*"),
        ("drawing,tulip,ab,reject,\ndrawing,tulip,ab,accept,", r"review.csv, row 2: a second verdict .*"),
        (
            "template,tulip,,reword,red petals",
            r"review.csv, row 1: text: it did not follow the template; begin with "
            r"'A photo of the class tulip', with its features",
        ),
    ],
)
def test_a_row_that_cannot_be_honoured_is_one_line_that_names_it(tmp_path, monkeypatch, rows, message):
    monkeypatch.chdir(tmp_path)
    REVIEW.write_text(f"{','.join(ReviewRow.model_fields)}\n{rows}\n")
    with pytest.raises(LTGCError, match=f"^{message}$"):
        review.load()
