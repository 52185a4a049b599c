"""Which stage runs again when code changes: the stage `code`, on a copy of the project."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.paths import ROOT

from ltgc.pipeline import code_digest

STAGES = code_digest.stages(ROOT)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("project")
    for package in code_digest.PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def digests(project: Path) -> dict[str, str]:
    done = subprocess.run([sys.executable, "-m", "stages.code"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {path.stem: path.read_text() for path in (project / "code").iterdir()}


def changed_by(project: Path, file: str, old: str, new: str) -> set[str]:
    """The stages whose digest changes with this edit, which is undone afterwards."""
    before, source = digests(project), (project / file).read_text()
    assert old in source
    (project / file).write_text(source.replace(old, new, 1))
    try:
        after = digests(project)
    finally:
        (project / file).write_text(source)
    return {stage for stage in before if before[stage] != after[stage]}


def test_every_stage_of_dvc_yaml_depends_on_its_digest_and_on_no_code_besides():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(stages) == {*STAGES, "code"} - {"ablate"}
    for name, stage in stages.items():
        if name != "code":
            assert f"code/{name}.txt" in stage["deps"]
            assert not [dep for dep in stage["deps"] if dep.startswith(tuple(code_digest.PACKAGES))]
    assert stages["code"]["deps"] == ["stages", "graphs", "ltgc", "embedded"]


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("ltgc/clip/pixels.py", "SMALLEST_CROP = 0.7", "SMALLEST_CROP = 0.6", {"train", "evaluate"}),
        ("ltgc/training/losses.py", "NEVER = 1e-12", "NEVER = 1e-11", {"train"}),
        ("ltgc/data/sources/folder.py", '".jpg", ', "", {"prepare"}),
        ("graphs/reflect.py", "LEAST_KEPT = 0.2", "LEAST_KEPT = 0.3", {"extend"}),
        (
            "embedded/rates.py",
            "REPEAT = 0.12",
            "REPEAT = 0.13",
            {"describe", "extend", "templates", "generate", "ask"},
        ),
        ("embedded/wildflowers/species.yaml", "train: 150", "train: 149", {"describe", "loops"}),
        ("ltgc/evaluation/published.yaml", ":", ": ", {"compare"}),
    ],
)
def test_a_change_that_can_change_an_artifact_changes_the_digest_of_its_stages(project, file, old, new, stages):
    assert stages <= changed_by(project, file, old, new)


def test_how_images_are_read_is_part_of_every_stage_that_reads_one(project):
    readers = {"prepare", "describe", "generate", "quality", "train", "evaluate", "ask", "loops", "report"}
    changed = changed_by(project, "ltgc/data/images.py", "MAX_SIDE = 1024", "MAX_SIDE = 1023")
    assert readers <= changed
    assert not changed & {"compare"}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("ltgc/clip/pixels.py", "SMALLEST_CROP = 0.7", "SMALLEST_CROP = 0.7  # why"),
        ("ltgc/clip/pixels.py", '"""Images at', '"""The images at'),
        ("ltgc/training/loop.py", "\n\n\n", "\n\n\n\n# A line more\n"),
        ("ltgc/pipeline/terminal.py", "width: int = 120", "width: int = 100"),
        ("ltgc/pipeline/stage.py", "PATIENCE = 1.5", "PATIENCE = 2.5"),
        ("ltgc/commands/doctor/servers.py", "SECONDS = 10", "SECONDS = 11"),
        ("ltgc/cli.py", "standalone_mode=False", "standalone_mode=True"),
    ],
)
def test_a_comment_a_docstring_the_terminal_or_a_command_reruns_nothing(project, file, old, new):
    assert changed_by(project, file, old, new) == set()


def test_text_that_looks_like_a_comment_or_a_docstring_and_is_none_counts(project):
    source = 'x = "# no comment"\n\n\ndef f():\n    """Doc."""  # why\n    return """\n    kept\n    """  # gone\n'
    assert code_digest.without_comments(source) == (
        'x = "# no comment"\ndef f():\n    return """\n    kept\n    """'
    )


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_imports_is_in_its_digest(stage):
    """Found in another way than the digest does: by importing the stage, and looking at what came along."""
    code = f"import sys, stages.{stage}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {name for name in done.stdout.split() if name.split(".")[0] in code_digest.PACKAGES}
    allowed = {
        name
        for name in imported
        if name in code_digest.WITHOUT_EFFECT or re.match(r"ltgc\.pipeline\.settings\b", name)
    }
    packages = {name for name in imported if not (ROOT / name.replace(".", "/")).with_suffix(".py").exists()}
    graph = code_digest.project(ROOT)
    assert imported - allowed - packages <= code_digest.closure(stage, graph, ROOT)


def test_what_has_no_effect_writes_no_artifact():
    """The modules that no digest holds call nothing that writes a file of the pipeline."""
    for module in code_digest.WITHOUT_EFFECT - {"stages"}:
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
        assert "files.write" not in source, module


def test_only_data_and_clients_name_embedded_and_by_name_only():
    named = {
        path.relative_to(ROOT).parts[:2]
        for package in ("ltgc", "graphs", "stages")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"[\"']embedded\.", path.read_text())
    }
    assert named == {("ltgc", "data"), ("ltgc", "clients")}
