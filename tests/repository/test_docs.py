"""README and docs/: the commands in them exist and run, and what is generated is what the code gives today."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from helpers import warm_commands
from helpers.paths import ROOT
from typer.main import get_command

from ltgc import cli
from tools.params_page import PAGE, page

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(path: Path) -> list[tuple[str, str]]:
    """(info string, text) of the page's code blocks that may hold commands."""
    found = FENCE.findall(path.read_text(encoding="utf-8"))
    return [(info, text) for info, text in found if info.split(" ")[0] in ("", "sh", "bash", "console")]


def commands(path: Path) -> list[list[str]]:
    """Every command of the page, as words without comments."""
    lines = "".join(text for _, text in blocks(path)).replace("\\\n", " ").splitlines()
    whole = []
    for line in lines:
        try:
            words = shlex.split(line.removeprefix("$ "), comments=True)
        except ValueError:  # output of a command
            continue
        for joined in " ".join("&&" if word == "&&" else shlex.quote(word) for word in words).split(" && "):
            words = shlex.split(joined)
            while words and re.fullmatch(r"\w+=.*", words[0]):  # settings of the environment
                words = words[1:]
            if words:
                whole.append(words)
    return whole


def exists(words: list[str]) -> bool:
    """Whether this repository has what the command runs. Commands of other programs are left alone."""
    match words:
        case ["ltgc", command, *_] if command.isalpha():  # "ltgc" is a row of a table, too
            return command in get_command(cli.app).commands
        case ["python", "-m", module, *_]:
            return importlib.util.find_spec(module) is not None
        case ["python", script, *_] if script.endswith(".py"):
            return (ROOT / script).is_file()
        case ["make", target, *_]:
            return re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE) is not None
        case ["dvc", "repro", *targets]:
            stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
            named = [target.split("@")[0] for target in targets if not target.startswith("-")]
            return all(target in stages or (ROOT / target).is_file() for target in named)
    return True


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_commands_of_a_page_exist(path):
    missing = [" ".join(words) for words in commands(path) if not exists(words)]
    assert not missing


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_keys_that_a_page_overrides_exist(path):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for words in commands(path):
        for flag, setting in pairwise(words):
            if words[0] != "dvc" or flag not in ("-S", "--set-param") or setting.startswith("+"):
                continue
            place = params
            for part in setting.split("=")[0].split("."):
                assert part in place, setting
                place = place[part]


def test_the_blocks_marked_to_run_run_in_a_clone(clone):
    path = [warm_commands.folder(), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(path)}
    for path in PAGES:
        for info, text in blocks(path):
            if info.split()[1:] != ["run"]:
                continue
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=clone,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{path.name}: {text}\n{done.stdout}{done.stderr}"
    subprocess.run(["git", "clean", "-fdq"], cwd=clone, check=True)


def test_links_between_pages_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_pages_and_files_that_code_and_pages_name_exist():
    """What params.yaml, docstrings, error messages and pages call docs/x.md, ltgc/x.py, tests/x.py."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    code = [
        path
        for path in tracked
        if path.endswith((".py", ".yaml", ".j2", ".toml")) and not path.startswith("tests/")
    ]
    for path in [*code, *(str(path.relative_to(ROOT)) for path in PAGES)]:
        text = (ROOT / path).read_text(encoding="utf-8")
        for named in re.findall(
            r"\b(?:docs/[\w-]+\.md|(?:ltgc|graphs|tests|benchmarks|embedded)/[\w/]+\.py)\b", text
        ):
            assert (ROOT / named).exists(), f"{path} names {named}"


def test_readme_says_what_every_folder_holds():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## What is where")[1].split("```")[1]
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    folders = {path.split("/")[0] for path in tracked if "/" in path and not path.startswith(".")}
    packages = {path.split("/")[1] for path in tracked if re.fullmatch(r"ltgc/\w+/__init__\.py", path)}
    assert [name for name in sorted(folders | packages) if f"{name}/" not in tree] == []


def test_the_page_of_params_is_what_schema_and_params_yaml_say():
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(ROOT / "params.yaml", ROOT / "dvc.yaml"), (
        "run `python -m tools.params_page`"
    )
