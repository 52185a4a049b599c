"""The ledger: which calls are one project's, and what `ltgc spent` says of them."""

import asyncio
import subprocess
from pathlib import Path

import pytest
from helpers.openai_server import Script, chat_body
from helpers.paid_calls import ask, draw
from helpers.paths import ROOT
from helpers.server_settings import KEY, chat_section, t2i_section

from ltgc.clients import database, project
from ltgc.clients.budget import Budget
from ltgc.clients.database import FILE
from ltgc.clients.ledger import Call, Ledger
from ltgc.clients.pool import Pool
from ltgc.commands import spent
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import BudgetSettings, Price

NO_CAP = BudgetSettings(max_usd=None, max_calls=None)
CAPPED = BudgetSettings(max_usd=1.0, max_calls=None)


@pytest.fixture
def script(running_server: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    running_server.reset()
    monkeypatch.setenv("TEST_KEY", KEY)
    return running_server


def git(folder: Path, *arguments: str) -> None:
    name = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits, and params.yaml; the working directory."""
    folder = tmp_path / "mine"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for number in range(2):
        (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text() + "#" * number)
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", f"commit {number}")
    monkeypatch.chdir(folder)
    return folder


def test_clones_branches_and_folders_of_one_repository_are_one_project(repository, tmp_path, monkeypatch):
    mine = project.name(CAPPED)
    git(repository, "checkout", "-qb", "another")
    git(repository, "commit", "-qm", "x", "--allow-empty")
    assert project.name(CAPPED) == mine and project.experiment() == "another"
    (repository / "ablations/runs/bare").mkdir(parents=True)
    monkeypatch.chdir(repository / "ablations/runs/bare")
    assert project.name(CAPPED) == mine and project.experiment() == "ablations/runs/bare"
    git(tmp_path, "clone", "-q", "mine", "theirs")
    monkeypatch.chdir(tmp_path / "theirs")
    assert project.name(CAPPED) == mine
    monkeypatch.setenv("DVC_EXP_NAME", "gritty-soil")
    assert project.experiment() == "gritty-soil"


def test_a_shallow_clone_needs_a_name_where_there_is_a_cap(repository, tmp_path, monkeypatch):
    git(tmp_path, "clone", "-q", "--depth", "1", repository.as_uri(), "shallow")
    monkeypatch.chdir(tmp_path / "shallow")
    with pytest.raises(LTGCError, match=r"budget.project: this clone is shallow, .*git fetch --unshallow"):
        project.name(CAPPED)
    assert project.name(NO_CAP).startswith("folder ")
    assert project.name(CAPPED.model_copy(update={"project": "flowers"})) == "flowers"


@pytest.mark.parametrize("broken", ["no commit", "git fails"])
def test_a_repository_whose_first_commit_is_not_known_needs_a_name_where_there_is_a_cap(
    repository, tmp_path, monkeypatch, broken
):
    if broken == "no commit":
        git(tmp_path, "init", "-q", "new")
        monkeypatch.chdir(tmp_path / "new")
    else:
        (repository / ".git/HEAD").unlink()  # as where git does not trust the owner of the folder
    with pytest.raises(LTGCError, match=r"budget.project: .*git log.* set a name for it"):
        project.name(CAPPED)
    assert project.name(NO_CAP).startswith("folder ")


def test_ltgc_spent_lists_experiments_stages_and_models_with_what_was_useless_and_what_is_lost(
    script, repository, pool_folder, capsys
):
    prices = Budget(NO_CAP, {"m": Price(input=1e6, output=1e6)})  # a dollar a token
    script.replies = ["x", chat_body("half a", "length"), chat_body(None, refusal="no")]
    section = chat_section(script, concurrency=1)
    ask(section, Path("store/describe"), *"abc", budget=prices)
    git(repository, "checkout", "-qb", "warmer")
    script.chat = lambda request: "x"
    ask(section, Path("store/extend"), "d", budget=prices)
    script.image = lambda request: b"no image"
    draw(t2i_section(script), Path("store/generate"), ("a rose", 7))  # whose model has no price

    pool = Pool(pool_folder)
    killed = Ledger(pool.database, "extend", project.name(NO_CAP), "warmer", prices)
    asyncio.run(killed.reserve(Call("e", "there", "m", 50.0, 0)))  # and never settled
    pool.close()

    ask(section, Path("store/describe"), *"abc")  # found, not paid
    spent.main()
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.startswith(("main", "warmer", "total"))] == [
        "main describe m 3 2 30 9 0 39.0000",
        "warmer extend m 1 0 10 3 0 13.0000",
        "warmer extend m (in flight or lost) 1 0 0 0 0 50.0000",
        "warmer generate m 1 1 0 0 1 0.0000 + no price",
        "total 6 3 40 12 1 102.0000 + no price",
    ]


def test_on_a_network_file_system_the_older_journal_is_used_and_replies_are_kept(
    script, tmp_path, pool_folder, monkeypatch
):
    monkeypatch.setattr(database, "on_network", lambda folder: True)
    script.chat = lambda request: f"reply {script.calls}"
    first = ask(chat_section(script), tmp_path, *"abc")
    assert ask(chat_section(script), tmp_path, *"abc") == first and script.calls == 3
    opened = Pool(pool_folder)
    assert {path.name for path in pool_folder.iterdir()} == {"images", FILE, f"{FILE}-journal"}
    opened.close()
