"""What one clone has paid for, another has by `git pull && dvc pull`; and experiments in a clone."""

import csv

import pytest
import yaml
from helpers.cloned_pipeline import SPECIES, digest, run

from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord

GROWS = "Aquilegia pubescens"


@pytest.fixture(scope="module")
def teammate(clone, tmp_path_factory):
    """A second clone, made before there were results, that has pulled what the first pushed to a remote."""
    folder = tmp_path_factory.mktemp("teammate")
    teammate = folder / "ltgc"
    run(folder, "git", "clone", "-q", str(clone), str(teammate))
    run(teammate, "git", "reset", "-q", "--hard", "HEAD~1")
    for each in (clone, teammate):  # a folder of this machine: not for the config that git shares
        run(each, "dvc", "remote", "add", "--local", "--default", "storage", str(folder / "remote"))
    run(clone, "dvc", "push", "-q")
    run(teammate, "git", "pull", "-q")
    run(teammate, "dvc", "pull", "-q")
    return teammate


def test_a_pull_brings_everything_and_repro_there_runs_nothing(clone, teammate):
    for name in ("descriptions", "generated", "store", "models", "report"):
        assert digest(teammate / name) == digest(clone / name), name
    done = run(teammate, "dvc", "repro")
    assert "Running stage" not in done.stdout and "up to date" in done.stdout


def test_declared_models_and_data_sets_are_there(teammate):
    declared = yaml.safe_load((teammate / "dvc.yaml").read_text())["artifacts"]
    assert {each["type"] for each in declared.values()} == {"model", "dataset"}
    for name, each in declared.items():
        assert (teammate / each["path"]).exists() and each["desc"] and each["labels"], name
    shown = yaml.safe_load(run(teammate, "dvc", "list", ".", declared["ltgc"]["path"], "--json").stdout)
    assert [each["path"] for each in shown] == ["0"]  # DVC knows the folder: `dvc get` brings it


def test_experiments_are_run_shown_queued_and_applied(teammate):
    """With a key that only the report reads: the cheapest stage."""
    run(teammate, "dvc", "exp", "run", "-q", "-n", "dear", "-S", "budget.max_usd=7", "report")
    run(teammate, "git", "checkout", "-q", ".")
    run(teammate, "dvc", "exp", "run", "-q", "--queue", "-n", "later", "-S", "budget.max_usd=8,9")
    assert run(teammate, "dvc", "queue", "status").stdout.count("Queued") == 2
    shown = run(
        teammate, "dvc", "exp", "show", "--csv", "--drop", ".*", "--keep", "Experiment|budget.max_usd"
    ).stdout
    rows = {row["Experiment"]: row for row in csv.DictReader(shown.splitlines())}
    values = {name: rows[name]["budget.max_usd"] for name in ("dear", "later-1", "later-2")}
    assert values == {"dear": "7", "later-1": "8", "later-2": "9"}
    run(teammate, "dvc", "exp", "apply", "-q", "dear")
    assert yaml.safe_load((teammate / "params.yaml").read_text())["budget"]["max_usd"] == 7
    assert "max_usd: 7" in (teammate / "report/index.html").read_text()
    run(teammate, "git", "checkout", "-q", ".")


def test_one_image_more_asks_only_for_its_class(teammate):
    """Up to extend; what follows is stored in the same way, and takes 15 s more."""
    before = digest(teammate / "store")
    path = teammate / "small_world/species.yaml"
    world = yaml.safe_load(path.read_text())
    for species in world:
        species["train"] += species["name"] == GROWS
    path.write_text(yaml.safe_dump(world, sort_keys=False))
    run(teammate, "dvc", "repro", "-q", "extend")
    (grown,) = [c for c in files.read_csv(teammate / CLASSES, ClassRecord) if c.name == GROWS]
    assert grown.train == SPECIES[GROWS] + 1
    asked = {name for name, data in digest(teammate / "store").items() if data != before.get(name)}
    assert asked == {f"{stage}/{grown.slug}.jsonl" for stage in ("describe", "extend")}
