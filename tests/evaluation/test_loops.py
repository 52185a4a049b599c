"""What the loops did, counted from their records, and how right their checks were."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import finished_pipeline

from ltgc.data import images
from ltgc.evaluation import loop_metrics
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.descriptions import EXTENDED, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, Attempt
from ltgc.pipeline.artifacts.results import LOOPS, SCORES_PLOT
from stages import loops as stage

TAIL = 3  # classes of the small world with fewer than 20 images: 12 + 6 + 4 of them


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    finished_pipeline.build(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run() -> dict:
    stage.main()
    return json.loads(LOOPS.read_text())


def test_every_loop_is_counted_with_reasons_and_cost(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    summary = run()
    assert set(summary) == {"describe", "extend", "templates", "generate"}
    assert summary["describe"] == {
        "calls": 10, "prompt_tokens": 1000, "completion_tokens": 100,
        "asked": 22, "kept": 19, "dropped": {"refused": 3}, "replies": 28,
    }  # fmt: skip
    extend = summary["extend"]
    assert (extend["asked"], extend["received"], extend["kept"]) == (TAIL * 20 - 22, 30, 24)
    assert extend["dropped"] == {"duplicate": 3, "repeats": 3}
    assert (extend["calls"], extend["rounds"]) == (20, 6)
    assert summary["templates"]["llm"] == TAIL
    assert summary["templates"]["class_name"] == {"asked_not_to": 3}
    generate = summary["generate"]
    assert [generate[key] for key in ("descriptions", "drawn", "accepted", "at_once", "after_refinement")] == [
        15, 18, 9, 6, 3
    ]  # fmt: skip
    assert (generate["rejected"], generate["failed"]) == (3, {"refused": 3})
    assert generate["rounds"] == {"mean": 0.4, "max": 1}
    assert generate["calls"] == 40
    assert (generate["real_scored"], generate["real_below_threshold"]) == (6, 3)
    assert "3 duplicate, 3 repeats" in capfd.readouterr().err


def test_scores_are_plotted_of_every_scored_attempt_and_real_image(world: Path) -> None:
    run()
    with SCORES_PLOT.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows].count("real") == TAIL * 2
    assert rows[-1] == {
        "class": "Aquilegia pubescens", "round": "", "score": "0.3", "threshold": "0.25",
        "margin": "0.05", "verdict": "real",
    }  # fmt: skip
    assert len(rows) == TAIL * 6 + TAIL * 2
    assert rows[2] == {
        "class": "Marsh marigold", "round": "0", "score": "0.21", "threshold": "0.25",
        "margin": "-0.04", "verdict": "refined",
    }  # fmt: skip


def test_checks_are_scored_where_the_source_knows_the_truth(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def repeats(existing: list[str], extended: list[str]) -> list[bool]:
        asked.append((len(existing), len(extended)))
        return [False] * 7 + [True, True]  # the eighth was kept by mistake, the ninth was dropped rightly

    bad = {images.read(path) for path in world.glob("generated/*/*/0000-0.png")}
    truth = SimpleNamespace(
        represents=lambda image, name: image not in bad,
        describes=lambda text, name: name != "Marsh marigold",
        repeats=repeats,
    )
    monkeypatch.setitem(sys.modules, "embedded.truth", truth)
    params = world / "params.yaml"
    params.write_text(params.read_text().replace("source: folder", "source: wildflowers"))
    summary = run()
    # A duplicate was dropped before the repetition check and is none of its business.
    assert asked == [(11, 9), (5, 9), (3, 9)]
    assert summary["repetition_check"] == {
        "checked": 27, "flagged": 3, "positive": 6, "precision": 1.0, "recall": 0.5
    }  # fmt: skip
    # Nine drawings scored below the threshold, all good ones; the bad one of each class was let through.
    assert summary["filter"] == {
        "checked": 18, "flagged": 9, "positive": 3, "precision": 0.0, "recall": 0.0,
        "auroc": 0.2,  # the bad one scores above the three that were flagged, and below the other two
        "wrong_share_drawn": 0.167, "wrong_share_accepted": 0.333, "right_accepted": 0.4,
        "description_wrong": {"drawn": 1, "flagged": 0}, "drawing_disobeyed": {"drawn": 2, "flagged": 0},
    }  # fmt: skip


def test_a_drawing_of_unknown_truth_is_not_counted(world: Path) -> None:
    attempts = files.read_jsonl(ATTEMPTS, Attempt)
    truth = SimpleNamespace(represents=lambda image, name: None)
    assert loop_metrics.filter_quality(attempts, truth)["checked"] == 0


def test_precision_and_recall() -> None:
    pairs = [(True, True), (True, True), (True, False), (False, True), (False, False), (False, False)]
    assert loop_metrics.precision_recall(pairs) == {
        "checked": 6, "flagged": 3, "positive": 3, "precision": 0.667, "recall": 0.667
    }  # fmt: skip
    assert loop_metrics.precision_recall([(False, False)])["precision"] is None


def test_an_empty_generated_set_is_a_set_of_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_pipeline.build(tmp_path, generated=False)
    monkeypatch.chdir(tmp_path)
    summary = run()
    assert [summary["extend"][key] for key in ("classes", "asked", "received", "kept", "dropped")] == [
        0,
        0,
        0,
        0,
        {},
    ]
    assert summary["generate"]["descriptions"] == 0
    assert SCORES_PLOT.read_text() == "class,round,score,threshold,margin,verdict\n"


def test_chains_are_in_the_order_of_their_rounds_whatever_order_they_finished_in(world: Path) -> None:
    attempts = files.read_jsonl(ATTEMPTS, Attempt)
    chains = list(loop_metrics.refinement_chains(attempts[::-1]))
    assert chains == list(loop_metrics.refinement_chains(attempts))
    assert [a.round for a in chains[2]] == [0, 1]


def test_the_records_of_the_small_world_are_the_real_schemas(world: Path) -> None:
    assert len(files.read_jsonl(EXTENDED, ExtendedDescription)) == 30
