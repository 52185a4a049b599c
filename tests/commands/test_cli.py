"""The command `ltgc`: help everywhere, typed arguments, errors as one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import warm_commands
from helpers.paths import ROOT
from typer.main import get_command

from ltgc import cli

COMMANDS = [[name] for name in get_command(cli.app).commands] + [["shards", "list"]]


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [warm_commands.python(), "-m", "ltgc", *arguments]
    environment = os.environ | {"COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_every_command_has_help(command: list[str]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert "Usage: ltgc" in done.stdout or "Usage: python -m ltgc" in done.stdout


def test_help_loads_no_heavy_library() -> None:
    code = "import sys, ltgc.cli; assert not {'torch', 'openai', 'dvc', 'langchain_openai'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_commands_are_summed_up_in_sentences_that_fit_a_terminal() -> None:
    listed = run().stdout.split("Commands:\n")[1].splitlines()
    assert len(listed) == len(get_command(cli.app).commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "balancemix", "first", "x"], "seed"),
        (["export", "balancemix"], "seed"),
        (["nothing"], "nothing"),
        (["shards"], "command"),
        (["compare", "--seeds"], "--seeds"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert says in done.stderr and "--help" in done.stderr


def test_an_error_that_a_user_can_mend_is_one_line(tmp_path: Path) -> None:
    done = run("estimate", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: params.yaml: not there; run from the repository root\n"
