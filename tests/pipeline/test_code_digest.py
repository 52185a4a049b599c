"""Which stage runs again when code changes: the stage `code`, on a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import finished_pipeline
from helpers.paths import ROOT
from helpers.photo_folders import put

from ltgc.pipeline import code_digest

STAGES = code_digest.stages(ROOT)


class Project:
    """A copy of the code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in code_digest.PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        self.unchanged = self.digests()

    def digests(self) -> dict[str, str]:
        command = [sys.executable, "-m", "stages.code"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {path.stem: path.read_text() for path in (self.folder / "code").iterdir()}

    def changed_by(self, file: str, old: str, new: str) -> set[str]:
        """The stages whose digest changes with this edit, which is undone afterwards."""
        source = (self.folder / file).read_text()
        assert old in source
        (self.folder / file).write_text(source.replace(old, new, 1))
        try:
            after = self.digests()
        finally:
            (self.folder / file).write_text(source)
        return {stage for stage in after if after[stage] != self.unchanged[stage]}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


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
        ("ltgc/clip/crops.py", "SMALLEST_CROP = 0.7", "SMALLEST_CROP = 0.6", {"train", "evaluate", "ablate"}),
        ("ltgc/training/losses.py", "NEVER = 1e-12", "NEVER = 1e-11", {"train"}),
        ("ltgc/data/sources/folder.py", '".jpg", ', "", {"prepare"}),
        ("graphs/reflect.py", "LEAST_KEPT = 0.2", "LEAST_KEPT = 0.3", {"extend", "ablate"}),
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
    assert stages <= project.changed_by(file, old, new)


def test_how_images_are_read_is_part_of_every_stage_that_reads_one(project):
    readers = {"prepare", "describe", "generate", "quality", "train", "evaluate", "ask", "loops", "report"}
    changed = project.changed_by("ltgc/data/images.py", "MAX_SIDE = 1024", "MAX_SIDE = 1023")
    assert readers <= changed
    assert not changed & {"compare"}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("ltgc/clip/crops.py", "SMALLEST_CROP = 0.7", "SMALLEST_CROP = 0.7  # why"),
        ("ltgc/clip/pixels.py", '"""Images at', '"""The images at'),
        ("ltgc/training/loop.py", "\n\n\n", "\n\n\n\n# A line more\n"),
        ("ltgc/pipeline/terminal.py", "width: int = 120", "width: int = 100"),
        ("ltgc/pipeline/stage.py", "PATIENCE = 1.5", "PATIENCE = 2.5"),
        ("ltgc/commands/doctor/servers.py", "SECONDS = 10", "SECONDS = 11"),
        ("ltgc/cli.py", "standalone_mode=False", "standalone_mode=True"),
    ],
)
def test_a_comment_a_docstring_the_terminal_or_a_command_reruns_nothing(project, file, old, new):
    assert project.changed_by(file, old, new) == set()


def test_text_that_looks_like_a_comment_or_a_docstring_and_is_none_counts(project):
    source = 'x = "# no comment"\n\n\ndef f():\n    """Doc."""  # why\n    return """\n    kept\n    """  # gone\n'
    assert code_digest.without_comments(source) == (
        'x = "# no comment"\ndef f():\n    return """\n    kept\n    """'
    )


def test_every_module_that_a_stage_imports_is_in_its_digest() -> None:
    """Found in another way than the digest does: by importing the stages one by one and looking at what came."""
    code = """
import sys
from importlib import import_module

for stage in sys.argv[1].split():
    for name in [name for name in sys.modules if name.split(".")[0] in sys.argv[2:]]:
        del sys.modules[name]
    import_module(f"stages.{stage}")
    print(*(name for name in sys.modules if name.split(".")[0] in sys.argv[2:]))
"""
    command = [sys.executable, "-c", code, " ".join(STAGES), *code_digest.PACKAGES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    graph = code_digest.project(ROOT)
    for stage, line in zip(STAGES, done.stdout.splitlines(), strict=True):
        modules = {name for name in line.split() if (ROOT / name.replace(".", "/")).with_suffix(".py").exists()}
        assert f"stages.{stage}" in modules
        unexplained = modules - code_digest.WITHOUT_EFFECT - code_digest.closure(stage, graph, ROOT)
        assert not [name for name in unexplained if not name.startswith("ltgc.pipeline.settings.")], stage


# In place of each module without effect; the types in settings.sections have a test of their own.
STAND_INS = """
import sys, types
from rich.console import Console

quiet = Console(quiet=True)
for name, values in {
    "stages": {"__path__": [sys.argv[1] + "/stages"]},
    "ltgc.pipeline.stage": {},
    "ltgc.pipeline.timing": {},
    "ltgc.pipeline.terminal": {"console": quiet, "output": lambda: quiet},
}.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(values)
print(*sys.modules.keys() & set(sys.argv[2:]))
"""


def test_without_the_modules_that_have_no_effect_stages_write_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for prelude in ("", STAND_INS):
        finished_pipeline.build(tmp_path)
        put(tmp_path / "photos/train/a", 3)
        put(tmp_path / "photos/test/a", 1)
        params = yaml.safe_load((tmp_path / "params.yaml").read_text())
        params["data"] |= {"source": "folder", "root": "photos"}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        code = (
            f"{prelude}\nfrom stages import compare, loops, prepare; compare.main(); loops.main(); prepare.main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(ROOT), *code_digest.WITHOUT_EFFECT],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        written.append({path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()})
    assert set(done.stdout.split()) == code_digest.WITHOUT_EFFECT - {"ltgc.pipeline.settings.sections"}
    assert written[0] == written[1]


def test_a_setting_is_in_the_digests_of_the_stages_that_load_its_section(project: Project) -> None:
    changed = project.changed_by("ltgc/pipeline/settings/training.py", "steps: Positive", "steps: Count")
    assert "train" in changed
    assert not changed & {"prepare", "describe", "extend", "templates", "generate"}
    of_loops = project.changed_by("ltgc/pipeline/settings/loops.py", 'Literal["llm", "class_name"]', "str")
    assert of_loops >= {"extend", "ablate"}  # which runs it


def test_only_data_and_clients_name_embedded_and_by_name_only():
    named = {
        path.relative_to(ROOT).parts[:2]
        for package in ("ltgc", "graphs", "stages")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"[\"']embedded\.", path.read_text())
    }
    assert named == {("ltgc", "data"), ("ltgc", "clients")}
