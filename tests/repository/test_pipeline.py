"""The whole pipeline in a clone of its own: one real `dvc repro` of a cut-down world, and what DVC makes of it."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.cloned_pipeline import METHODS, SPECIES, TARGET, digest, run, set_params

from ltgc.data import images, shards
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.descriptions import ClassTemplate, ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import Attempt


def test_repro_makes_every_artifact_that_others_rely_on(clone):
    compare = json.loads((clone / "metrics/compare.json").read_text())
    assert list(compare) == [*METHODS, "lmm"]
    for metrics in compare.values():
        assert set(metrics) == {"all", "many", "medium", "few", "harmonic_mean", "worst_class", "ece"}
        assert all(set(value) == {"mean", "std"} for value in metrics.values())
    assert (clone / "report/index.html").stat().st_size > 10_000
    assert files.read_jsonl(clone / "descriptions/existing.jsonl", ExistingDescription)
    templates = files.read_jsonl(clone / "descriptions/templates.jsonl", ClassTemplate)
    assert {t.class_name for t in templates} == set(SPECIES)


def test_loops_metrics_count_what_the_artifacts_hold_and_know_the_truth(clone):
    loops = json.loads((clone / "metrics/loops.json").read_text())
    text = json.dumps(loops)
    attempts = files.read_jsonl(clone / "generated/attempts.jsonl", Attempt)
    accepted = [a for a in attempts if a.verdict == "accepted"]
    assert accepted
    for a in attempts:
        assert a.image is None or images.load(clone / a.image)
    kept = [name for shard in (clone / "generated/accepted").iterdir() for name in shards.names(shard)]
    assert len([name for name in kept if name.endswith(".png")]) == len(accepted)
    assert "precision" in text
    assert "recall" in text


def test_only_tail_classes_are_filled_and_up_to_the_target(clone):
    extended = files.read_jsonl(clone / "descriptions/extended.jsonl", ExtendedDescription)
    kept = {name: sum(e.kept for e in extended if e.class_name == name) for name in SPECIES}
    for name, train in SPECIES.items():
        assert kept[name] <= max(0, TARGET - train)
        assert (kept[name] > 0) == (train < TARGET), name


def test_a_second_repro_runs_no_stage(clone):
    done = run(clone, "dvc", "repro")
    assert "Running stage" not in done.stdout
    assert "up to date" in done.stdout


def test_changing_a_training_param_runs_no_stage_before_train(clone):
    before = (clone / "params.yaml").read_text()
    set_params(clone, train={"lr": 0.002})
    done = run(clone, "dvc", "repro", "--dry")
    (clone / "params.yaml").write_text(before)
    ran = {line.split("'")[1].split("@")[0] for line in done.stdout.splitlines() if line.startswith("Running")}
    assert "train" in ran
    assert ran.isdisjoint({"prepare", "describe", "extend", "templates", "generate", "loops"})


def test_dvc_shows_metrics_and_plots(clone, tmp_path):
    metrics = json.loads(run(clone, "dvc", "metrics", "show", "--json").stdout)
    shown = metrics[""]["data"]
    few = shown["metrics/compare.json"]["data"]["balancemix"]["few"]["mean"]
    assert 0 <= few <= 100
    assert "metrics/loops.json" in shown
    run(clone, "dvc", "plots", "show", "-o", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert "balancemix" in page


def test_metrics_diff_tells_what_a_change_did(clone):
    path = clone / "metrics/compare.json"
    before = path.read_text()
    compare = json.loads(before)
    compare["balancemix"]["few"]["mean"] += 1
    path.write_text(json.dumps(compare))
    diff = json.loads(run(clone, "dvc", "metrics", "diff", "--json").stdout)
    path.write_text(before)
    assert diff["metrics/compare.json"]["balancemix.few.mean"]["diff"] == pytest.approx(1)


def test_what_was_asked_is_asked_of_no_server_again_and_nothing_lies_in_the_users_pool(clone):
    made = {name: digest(clone / name) for name in ("descriptions", "generated", "store")}
    for name in ("descriptions", "generated/accepted", "generated/rejected"):
        shutil.rmtree(clone / name)
    for name in ("describe", "extend", "templates", "generate"):
        assert " 0 calls" in run(clone, "python", "-m", f"stages.{name}").stderr
    assert {name: digest(clone / name) for name in made} == made
    assert (clone / ".ltgc/pool.sqlite").exists() and not Path(os.environ["LTGC_CACHE"], "pool.sqlite").exists()
    run(clone, "git", "checkout", "-q", ".")
