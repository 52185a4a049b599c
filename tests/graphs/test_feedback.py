"""ltgc feedback: what a round of rivals.jsonl adds, and that nothing from before is asked or drawn again."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import scripted_world
from helpers.openai_server import Script, openai_server, said
from helpers.paths import ROOT
from helpers.scripted_world import STAGES, answer, contents, paint

from ltgc.commands import estimate, feedback
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.artifacts.descriptions import EXTENDED, TEMPLATES, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, DROPPED, Attempt, Contamination
from ltgc.pipeline.artifacts.feedback import RIVALS, Feedback
from ltgc.pipeline.errors import LTGCError
from ltgc.training import feedback as out_of_fold
from ltgc.training.feedback import divide, folds, rivals
from stages import extend

PHOTOS = {"rose": 9, "tulip": 2, "iris": 3}  # with the target 6 tulip and iris are the tail


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Script]]:
    """A world in which the loops have run without a round of feedback."""
    folder = tmp_path_factory.mktemp("world")
    with openai_server() as script, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTGC_CACHE", str(folder / "pool"))
        patch.chdir(folder)
        scripted_world.build(folder, script, PHOTOS, target=6)
        for stage in STAGES:
            stage.main()
        files.write_records_csv(DROPPED, [], Contamination)
        yield folder, script


@pytest.fixture
def world(finished: tuple[Path, Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """A copy of that world; the pool is shared."""
    folder, script = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True, symlinks=True, ignore=shutil.ignore_patterns("pool"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTGC_CACHE", str(folder / "pool"))
    script.reset()
    script.chat, script.image = answer, paint
    return script


def run() -> None:
    for stage in STAGES:
        stage.main()


def rounds() -> list[Feedback]:
    return files.read_jsonl(RIVALS, Feedback)


def questions(script: Script) -> list[str]:
    return [said(request) for request in script.requests if "messages" in request]


def test_without_a_round_nothing_is_asked_and_no_byte_changes(world):
    before = contents("descriptions", "generated", "store")
    RIVALS.parent.mkdir()
    shutil.copy(ROOT / RIVALS, RIVALS)
    run()
    assert not world.requests
    assert contents("descriptions", "generated", "store") == before
    assert (ROOT / RIVALS).read_bytes() == b""


def test_a_round_adds_to_what_there_is_and_asks_nothing_else(world):
    listed, attempts = files.read_jsonl(EXTENDED, ExtendedDescription), files.read_jsonl(ATTEMPTS, Attempt)
    templates = TEMPLATES.read_bytes()
    feedback.main(4, None)
    asked_for = rounds()
    assert {line.class_name for line in asked_for} <= {"tulip", "iris"}
    assert sum(line.descriptions for line in asked_for) == 4
    for line in asked_for:
        assert set(line.rivals) <= PHOTOS.keys() - {line.class_name} and line.rivals
    with pytest.raises(LTGCError, match=r"rivals.jsonl: round 1 is not asked for yet; run `dvc repro`"):
        feedback.main(4, None)
    assert not world.requests  # it asks no model

    run()
    assert questions(world)
    for question in questions(world):
        assert "are often taken for" in question and "what tells them apart can be seen" in question
    after = files.read_jsonl(EXTENDED, ExtendedDescription)
    assert [d for d in after if not d.feedback] == listed
    new = [d for d in after if d.feedback]
    assert sum(d.kept for d in new) == 4
    last = {d.label: d.index for d in listed}
    assert all(d.index > last[d.label] for d in new)
    assert TEMPLATES.read_bytes() == templates
    drawn = files.read_jsonl(ATTEMPTS, Attempt)
    assert [a for a in drawn if (a.label, a.index) in {(d.label, d.index) for d in listed}] == attempts
    paintings = [request for request in world.requests if "prompt" in request]
    assert sorted(request["prompt"] for request in paintings) == sorted(d.description for d in new if d.kept)


def test_each_image_is_judged_by_a_head_that_was_not_trained_on_it(world, monkeypatch):
    trained: list[torch.Tensor] = []

    def untrained(recipe, settings, head, scale, data):
        trained.append(data.pixels)
        return head

    monkeypatch.setattr(out_of_fold, "probed_head", untrained)
    feedback.main(4, None)
    drawings = sum(a.verdict == "accepted" for a in files.read_jsonl(ATTEMPTS, Attempt))
    count = sum(PHOTOS.values()) + drawings
    assert len(trained) == 5
    assert sum(count - len(each) for each in trained) == count  # each is left out once


def test_the_controls_speak_of_no_rivals_and_of_random_ones(world):
    feedback.main(5, "unsteered")
    assert [(line.class_name, line.descriptions, line.rivals) for line in rounds()] == [
        ("tulip", 3, []), ("iris", 2, []),
    ]  # fmt: skip
    extend.main()
    assert questions(world) and not any("taken for" in question for question in questions(world))
    feedback.main(5, "random_rivals")
    first, *_ = [line for line in rounds() if line.round == 2]
    assert first.rivals and first.class_name not in first.rivals
    assert [line.round for line in rounds()] == sorted(line.round for line in rounds())


def test_the_estimate_counts_the_rounds_and_a_class_that_is_gone_is_named(world, capfd):
    sections = params.load("servers", "llm", "vision", "t2i", "extend", "templates", "filter", "ask", "prices")
    classes = files.read_csv(CLASSES, ClassRecord)
    before = estimate.estimate(sections, classes)
    files.write_jsonl(RIVALS, [Feedback(round=1, class_name=name, descriptions=30, rivals=["rose"])
                               for name in ("tulip", "daisy")])  # fmt: skip
    after = estimate.estimate(sections, classes)
    assert "1 of its classes are not filled up here (daisy)" in capfd.readouterr().err
    assert after["extend"].calls > before["extend"].calls
    assert after["generate"].images - before["generate"].images == pytest.approx(30 * (1 + estimate.REFINEMENTS))
    assert after["templates"] == before["templates"]


def test_each_fold_has_as_much_of_every_kind_and_a_budget_is_divided_whole():
    kinds = torch.tensor([0] * 11 + [3] * 5 + [4])
    fold = folds(kinds)
    assert sorted(fold[kinds == 3].tolist()) == [0, 1, 2, 3, 4]
    assert max(fold[kinds == 0].bincount(minlength=5)) <= 3
    assert divide(10, [0.5, 0.3, 0.0]) == [6, 4, 0]
    assert divide(5, [0.0, 0.0]) == [3, 2]
    mutual = torch.tensor([[0.0, 0.4, 0.001], [0.4, 0.0, 0.2], [0.001, 0.2, 0.0]])
    assert rivals(mutual, 2, least=0.01) == [[1], [0, 2], [1]]
