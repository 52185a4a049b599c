"""Presets in params/, composed as `dvc exp run -S +params=NAME` composes them, by DVC's own code."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.config import Config
from dvc.utils.hydra import compose_and_dump
from helpers.paths import ROOT

from ltgc.pipeline import params

PRESETS = sorted(path.stem for path in (ROOT / "params").glob("*.yaml"))
SECTIONS = list(params.Params.model_fields)


def composed(tmp_path: Path, *overrides: str) -> params.Params:
    hydra = Config.load_file(ROOT / ".dvc/config")["hydra"]
    file = tmp_path / "params.yaml"
    folder = str(ROOT / hydra["config_dir"])
    compose_and_dump(str(file), folder, None, hydra["config_name"], str(ROOT), list(overrides))
    return params.load(*SECTIONS, path=file)


@pytest.mark.parametrize(
    ("name", "source", "target", "threshold"),
    [  # §4.1: K and μ; CIFAR is ours
        ("imagenet_lt", "list", 300, 0.8),
        ("places_lt", "list", 800, 0.8),
        ("inat2018", "inaturalist", 100, 0.6),
        ("cifar100_lt", "cifar100", 100, 0.8),
    ],
)
def test_a_preset_is_valid_and_has_the_papers_settings(tmp_path, name, source, target, threshold):
    assert name in PRESETS
    preset = composed(tmp_path, f"+params={name}", "data.root=/data/lists", "data.images=/data/images")
    assert (preset.data.source, preset.data.root, preset.data.images) == (
        source,
        Path("/data/lists"),
        Path("/data/images"),
    )
    assert preset.extend.target == target
    assert (preset.filter.scorer, preset.filter.threshold, preset.filter.offset) == ("cosine", threshold, 0.5)
    assert (preset.clip.model, preset.clip.pretrained) == ("ViT-B-32-quickgelu", "openai")
    # 20 descriptions a round must be able to reach K.
    assert 20 * preset.extend.max_rounds >= preset.extend.target
    assert preset.llm.model in preset.prices and preset.t2i.model in preset.prices
    assert preset.ask.max_images == 0  # paid questions are not asked unasked


def test_every_preset_is_tested_and_without_one_nothing_changes(tmp_path):
    assert PRESETS == ["cifar100_lt", "imagenet_lt", "inat2018", "places_lt"]
    default = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    composed(tmp_path)
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == default


def test_a_queued_preset_leaves_the_workspace_as_it_was(tmp_path):
    """The documented command on a real repository: the experiment has the preset, params.yaml does not."""

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("git", "init", "-q")
    run("git", "config", "user.email", "t@example.org")
    run("git", "config", "user.name", "t")
    dvc = str(Path(sys.executable).parent / "dvc")
    run(dvc, "init", "-q")
    (tmp_path / ".dvc/config").write_bytes((ROOT / ".dvc/config").read_bytes())
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "params").symlink_to(ROOT / "params")
    (tmp_path / "dvc.yaml").write_text("stages: {prepare: {cmd: 'true', params: [data]}}")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "start")
    run(dvc, "config", "--local", "hydra.enabled", "true")
    run(dvc, "exp", "run", "--queue", "-S", "+params=places_lt", "-S", "data.root=lists")
    assert run("git", "status", "--short") == ""
    queued = yaml.safe_load(run("git", "show", "refs/exps/celery/stash:params.yaml"))
    assert (queued["extend"]["target"], queued["data"]["root"]) == (800, "lists")
