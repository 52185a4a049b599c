"""params.yaml: what is wrong in it is one line that names the file and the key."""

import subprocess
from pathlib import Path

import pytest
import yaml
from helpers import warm_commands
from helpers.paths import ROOT

from ltgc.pipeline import params
from ltgc.pipeline.errors import LTGCError


def changed(tmp_path: Path, key: str, value: object) -> Path:
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    *sections, last = key.split(".")
    place = content
    for section in sections:
        place = place[section]
    if value is None:
        del place[last]
    else:
        place[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_the_params_in_the_repository_are_valid():
    assert params.load("methods", path=ROOT / "params.yaml").methods


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("train.learning_rate", 0.1, "train.learning_rate: unknown key"),
        ("train.lr", "fast", "train.lr: "),
        ("train.lr", -1.0, "train.lr: "),
        ("train.steps", None, "train.steps: Field required"),
        ("train.beta", [0.0, 1.0], "train.beta.0: "),  # the paper's Beta(0, 1) is no distribution
        ("methods", ["balancemixx"], "methods.0: "),
        ("seeds", [], "seeds: "),
        ("filter.threshold", 101, "filter: "),
        ("data.source", "imagenet", "data.source: "),
        ("data.test_fraction", 0.95, "data: "),
        ("t2i.size", "big", "t2i.size: "),
        ("servers.timeout", -1, "servers.timeout: "),
        ("servers", "api.openai.com", "servers: "),
        ("llm", "gpt-4o", "llm: "),
        ("clip.revision", "main", "clip.revision: "),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path, key, value, says):
    path = changed(tmp_path, key, value)
    with pytest.raises(LTGCError) as error:
        params.load("train", path=path)
    assert str(error.value).startswith(f"{path}: {says}")
    assert "\n" not in str(error.value)


def test_a_mistyped_key_is_named_as_it_was_typed(tmp_path):
    path = changed(tmp_path, "train.lr", None)
    path.write_text(path.read_text().replace("train:\n", "train:\n  lrr: 0.1\n"))
    with pytest.raises(LTGCError, match=r"train\.lrr: unknown key"):
        params.load("train", path=path)


def test_servers_completes_the_sections_of_models_and_their_own_values_win(tmp_path):
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["servers"] |= {"timeout": 50, "retries": 2, "stream": True}
    content["vision"] |= {"timeout": 70}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    loaded = params.load("servers", "llm", "vision", "t2i", path=path)
    assert (loaded.llm.timeout, loaded.vision.timeout, loaded.t2i.timeout) == (50, 70, 180)
    assert (loaded.llm.retries, loaded.t2i.retries) == (2, 2)
    assert loaded.vision.stream and not hasattr(loaded.t2i, "stream")


@pytest.mark.parametrize("key", ["llm", "t2i.timeout"])
def test_what_servers_completes_is_not_read_without_it(key):
    with pytest.raises(ValueError, match="load servers too"):
        params.load(key, path=ROOT / "params.yaml")
    assert params.load("llm.model", path=ROOT / "params.yaml").llm.model


def test_a_checksum_may_be_written_without_its_prefix(tmp_path):
    loaded = [
        params.load("clip", path=changed(tmp_path, "clip.revision", pin)).clip.revision
        for pin in ("ab" * 32, "sha256:" + "ab" * 32, "ab" * 20)
    ]
    assert loaded == ["sha256:" + "ab" * 32, "sha256:" + "ab" * 32, "ab" * 20]


def test_a_file_that_is_no_yaml_or_is_not_there_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(LTGCError, match="not there"):
        params.load("train", path=path)
    path.write_text("train: [1, 2", encoding="utf-8")
    with pytest.raises(LTGCError, match="not YAML"):
        params.load("train", path=path)


def test_a_stage_ends_with_one_line_and_exit_code_1_and_writes_nothing(tmp_path):
    changed(tmp_path, "data.root", "[bold]nowhere[/bold]").rename(tmp_path / "params.yaml")
    done = subprocess.run(
        [warm_commands.python(), "-m", "stages.prepare"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "[bold]nowhere[/bold]" in done.stderr  # shown as it is, not as markup
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["params.yaml"]
