"""make stress: a hundred kills at random moments. Not in the suite (no name that pytest collects by itself).

STRESS_SEED=7 python -m pytest -s -o faulthandler_timeout=0 tests/stress.py    # 5 minutes or more
"""

import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

from helpers.paid_world import IN_FLIGHT, STAGES, Endpoint, Runner, contents, serving, small_world

from ltgc.clients.database import FILE

KILLS = 100
MOST_REQUESTS = 12  # after which a stage is killed


def test_a_hundred_kills_change_no_byte_and_cost_no_more_than_what_was_in_flight(tmp_path: Path) -> None:
    """Half of them with a request, or within 30 ms of its answer, when replies are written; half at any moment.

    A world whose stages have all ended in spite of that is followed by another one, until there were enough kills.
    """
    seed = os.environ.get("STRESS_SEED", "0")
    rng, endpoint = random.Random(int(seed)), Endpoint()
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    with serving(endpoint) as base_url:
        runner = Runner(endpoint)
        small_world(undisturbed, base_url)
        seconds = {}
        for name in STAGES:
            start = time.monotonic()
            assert runner.run(name, undisturbed, tmp_path / "its pool") == 0
            seconds[name] = time.monotonic() - start
        once = endpoint.asked
        kills, asked = 0, 0
        while kills < KILLS:
            endpoint.asked = Counter()
            disturbed, pool = tmp_path / f"from kill {kills}", tmp_path / f"pool from kill {kills}"
            disturbed.mkdir()
            small_world(disturbed, base_url)
            before = kills
            for name in STAGES:
                while (code := killed_somewhere(runner, rng, name, disturbed, pool, seconds[name])) != 0:
                    assert code == -signal.SIGKILL
                    kills += 1
                print(f"{name}: {kills} kills", flush=True)
            repeated = endpoint.asked.total() - len(endpoint.asked)
            assert set(endpoint.asked) == set(once)
            assert repeated <= (kills - before) * IN_FLIGHT
            assert contents(disturbed) == contents(undisturbed)
            check_pool(pool, endpoint.asked.total(), (kills - before) * IN_FLIGHT)
            asked += endpoint.asked.total()
            print(f"{repeated} of {endpoint.asked.total()} questions were paid for again", flush=True)
    print(f"seed {seed}: {kills} kills, {asked} questions, {len(once)} of them different in each world")


def killed_somewhere(
    runner: Runner, rng: random.Random, name: str, folder: Path, pool: Path, seconds: float
) -> int:
    """The exit code of a stage that is killed, unless it ends before. seconds: what it takes undisturbed."""
    if rng.random() < 0.5:
        runner.endpoint.delay = rng.choice([0.0, rng.random() * 0.03])
        return runner.run(name, folder, pool, rng.randint(1, MOST_REQUESTS), rng.random() < 0.7)
    process = runner.start(name, folder, pool)
    timer = threading.Timer(rng.random() * seconds, os.kill, (process.pid, signal.SIGKILL))
    timer.start()
    code = process.wait()
    timer.cancel()
    return code


def check_pool(pool: Path, asked: int, most_lost: int) -> None:
    """SQLite finds no fault in it, and every call is in its ledger once."""
    with sqlite3.connect(pool / FILE) as db:
        (check,) = db.execute("PRAGMA integrity_check").fetchone()
        (calls,) = db.execute("SELECT COUNT(*) FROM reservations").fetchone()
        (settled,) = db.execute("SELECT COUNT(*) FROM settlements").fetchone()
    db.close()
    assert check == "ok"
    assert 0 <= calls - asked <= most_lost  # reserved, and killed before it was sent
    assert calls - settled <= most_lost
