"""Paid work survives DVC's own commands: a real repository with the stage describe; an endpoint that counts."""

import math
import os
import shutil
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import yaml
from helpers.paid_world import (
    IN_FLIGHT,
    Endpoint,
    Runner,
    commit,
    contents,
    dvc,
    process_at,
    repository,
    serving,
)

from ltgc.clients import ledger
from ltgc.clients.budget import Budget
from ltgc.clients.database import Database

REFUSED = "dvc.lock says that replies of"
WARMER = "vision.temperature=0.9"  # other questions, as many


class World(NamedTuple):
    """A repository in which describe ran and was committed, the pool that paid for it, and the endpoint."""

    repository: Path
    pool: Path
    endpoint: Endpoint

    def spent(self) -> list[ledger.Spent]:
        database = Database(self.pool, "")
        root = dvc(self.repository, "git", "rev-list", "--max-parents=0", "HEAD").strip()
        return database.write_now(lambda db: ledger.spent(db, root, Budget()))

    def calls(self) -> int:
        return sum(line.calls for line in self.spent())

    def killed_at(self, request: int, *command: str) -> None:
        """Run a command, in which the stage is killed with its so many'th request."""
        self.endpoint.victim, self.endpoint.kill_at = 0, request
        dvc(self.repository, *command, pool=self.pool, fails=True)
        assert self.endpoint.victim is None, "nothing was asked"


@pytest.fixture(scope="module")
def paid(tmp_path_factory):
    folder, endpoint = tmp_path_factory.mktemp("paid"), Endpoint()
    with serving(endpoint) as base_url:
        mine = repository(folder / "mine", base_url)
        dvc(mine, "dvc", "remote", "add", "-d", "-q", "shared", str(folder / "remote"))
        dvc(mine, "dvc", "repro", "-q", pool=folder / "pool")
        dvc(mine, "dvc", "push", "-q")
        commit(mine, "described")
        yield World(mine, folder / "pool", endpoint)


@pytest.fixture
def world(paid, tmp_path):
    """Copies that a test may spoil. Files of git and DVC name their folder nowhere."""
    mine = shutil.copytree(paid.repository, tmp_path / "mine", symlinks=True)
    shutil.copytree(paid.pool, tmp_path / "pool")
    paid.endpoint.asked = Counter()
    return World(mine, tmp_path / "pool", paid.endpoint)


def test_an_experiment_that_was_killed_is_gone_on_with_by_the_next_whatever_dvc_checks_out(world):
    """exp run checks the workspace out with force first, or makes a copy of it and deletes that."""
    before = world.calls()
    world.killed_at(6, "dvc", "exp", "run", "-S", WARMER)
    world.killed_at(6, "dvc", "exp", "run", "--temp", "-S", WARMER)
    dvc(world.repository, "dvc", "exp", "run", "-n", "warm", "-S", WARMER, pool=world.pool)
    asked = world.endpoint.asked
    assert asked.total() - len(asked) <= 2 * IN_FLIGHT
    # What was reserved and not yet sent when the stage was killed counts as asked.
    assert 0 <= world.calls() - before - asked.total() <= 2 * IN_FLIGHT
    assert sum(line.calls for line in world.spent() if line.open) <= 2 * IN_FLIGHT
    assert {"warm", "master"} & {line.experiment for line in world.spent()}
    made = contents(world.repository)

    # Back, and back again: nothing is asked, nothing is forgotten.
    dvc(world.repository, "git", "checkout", "-q", ".")
    dvc(world.repository, "dvc", "checkout", "-q")
    assert contents(world.repository) != made
    calls = world.calls()
    dvc(world.repository, "dvc", "gc", "-w", "-f", "-q")
    shutil.rmtree(world.repository / ".git/refs/exps")
    dvc(world.repository, "dvc", "exp", "run", "-f", "-S", WARMER, pool=world.pool)
    assert (contents(world.repository), world.endpoint.asked, world.calls()) == (made, asked, calls)


def test_a_queued_experiment_that_was_killed_with_its_worker_pays_only_for_what_was_in_flight(world, monkeypatch):
    before = world.calls()
    dvc(world.repository, "dvc", "exp", "run", "--queue", "-n", "lost", "-S", WARMER)
    killed, of_worker = threading.Event(), list[psutil.Process]()

    def kill(scope) -> None:
        """The worker of DVC's queue with all that it has started, the stage too."""
        if world.endpoint.victim is not None:
            world.endpoint.victim, world.endpoint.kill_at = None, math.inf
            group = os.getpgid(process_at(*scope["client"]))
            of_worker.extend(p for p in psutil.process_iter() if os.getpgid(p.pid) == group)
            os.killpg(group, signal.SIGKILL)
            killed.set()

    with monkeypatch.context() as patch:
        patch.setattr(world.endpoint, "kill", kill)
        world.endpoint.victim, world.endpoint.kill_at = 0, 6
        dvc(world.repository, "dvc", "queue", "start", pool=world.pool, warm=False)
        assert killed.wait(120), "nothing was asked"
    assert not psutil.wait_procs(of_worker, 60)[1]
    dvc(world.repository, "dvc", "queue", "kill", "lost", warm=False)  # which DVC believes to be running
    dvc(world.repository, "dvc", "queue", "remove", "lost", warm=False)
    dvc(world.repository, "dvc", "exp", "run", "--queue", "-n", "again", "-S", WARMER)
    dvc(world.repository, "dvc", "exp", "run", "--run-all", pool=world.pool)
    dvc(world.repository, "dvc", "exp", "apply", "again")
    asked = world.endpoint.asked
    assert asked.total() - len(asked) <= IN_FLIGHT
    assert 0 <= world.calls() - before - asked.total() <= IN_FLIGHT
    assert sum(line.calls for line in world.spent() if line.open) <= IN_FLIGHT
    assert {"lost", "again"} <= {line.experiment for line in world.spent()}

    undisturbed = shutil.copytree(world.repository, world.repository / "../undisturbed", symlinks=True)
    shutil.rmtree(undisturbed / "store")
    (undisturbed / "dvc.lock").unlink()
    dvc(undisturbed, "python", "-m", "stages.describe", pool=world.repository / "../another pool")
    assert artifacts(world.repository) == artifacts(undisturbed)


def test_a_rollback_resets_no_cap(world):
    params = world.repository / "params.yaml"
    values = yaml.safe_load(params.read_text())
    values["budget"]["max_calls"] = world.calls() + 5
    params.write_text(yaml.safe_dump(values))
    commit(world.repository, "a cap")
    said = dvc(world.repository, "dvc", "exp", "run", "-S", WARMER, pool=world.pool, fails=True)
    assert "budget.max_calls" in said and world.endpoint.asked.total() == 5
    dvc(world.repository, "git", "checkout", "-q", ".")
    dvc(world.repository, "dvc", "checkout", "-q")
    params.write_text(params.read_text().replace("temperature: 0.2", "temperature: 0.3"))
    said = dvc(world.repository, "python", "-m", "stages.describe", pool=world.pool, fails=True)
    assert "budget.max_calls" in said and world.endpoint.asked.total() == 5


def test_a_clone_buys_nothing_again_without_a_remote_nor_with_a_part_of_what_was_pulled(world, tmp_path):
    clone, pool = tmp_path / "clone", tmp_path / "a teammate's pool"
    dvc(tmp_path, "git", "clone", "-q", str(world.repository), str(clone))
    assert REFUSED in dvc(clone, "dvc", "repro", pool=pool, fails=True)
    (first, *_) = sorted((world.repository / "store/describe").iterdir())
    dvc(clone, "dvc", "pull", "-q", f"store/describe/{first.name}")
    assert REFUSED in dvc(clone, "dvc", "repro", "-f", pool=pool, fails=True)
    dvc(clone, "dvc", "pull", "-q", "--force")
    dvc(clone, "dvc", "repro", "-f", "-q", pool=pool)
    assert contents(clone) == contents(world.repository)

    clone = tmp_path / "another"  # of the one who paid
    dvc(tmp_path, "git", "clone", "-q", str(world.repository), str(clone))
    dvc(clone, "dvc", "repro", "-q", pool=world.pool)
    assert contents(clone) == contents(world.repository)
    assert world.endpoint.asked.total() == 0


def artifacts(folder: Path) -> dict[str, bytes]:
    """Without the counts of calls, which say who paid, and DVC's own files."""
    return {
        path: data
        for path, data in contents(folder).items()
        if not path.startswith("metrics/calls/") and not path.endswith(".gitignore")
    }


@pytest.mark.parametrize("number", [2, 4])
def test_processes_at_once_pay_for_each_question_once(paid, tmp_path, number):
    paid.endpoint.asked = Counter()
    runner, copies = Runner(paid.endpoint), [tmp_path / str(i) for i in range(number)]
    for copy in copies:
        shutil.copytree(paid.repository, copy, ignore=shutil.ignore_patterns("store", "dvc.lock"))
    processes = [runner.start("describe", copy, tmp_path / "pool") for copy in copies]
    assert [process.wait() for process in processes] == [0] * number
    assert set(paid.endpoint.asked.values()) == {1}
    for copy in copies:
        assert artifacts(copy) == artifacts(paid.repository)
    world = World(paid.repository, tmp_path / "pool", paid.endpoint)
    assert world.calls() == paid.endpoint.asked.total()
