"""make stress: a hundred kills at random moments. Not in the suite (no name that pytest collects by itself).

STRESS_SEED=7 python -m pytest tests/stress.py
"""

import os
import random
import signal
import sqlite3
import threading
from collections import Counter
from pathlib import Path

from helpers.paid_world import IN_FLIGHT, STAGES, Endpoint, Runner, contents, serving, small_world

from ltgc.clients.database import FILE

KILLS = 100
LONGEST = 12.0  # seconds after its start that a stage is killed, where not with a request


def test_a_hundred_kills_change_no_byte_and_cost_no_more_than_what_was_in_flight(tmp_path: Path) -> None:
    """Half of them with a request, or within 30 ms of its answer, when replies are written; half at any moment."""
    rng, endpoint = random.Random(int(os.environ.get("STRESS_SEED", "0"))), Endpoint()
    undisturbed, disturbed, pool = tmp_path / "undisturbed", tmp_path / "disturbed", tmp_path / "pool"
    with serving(endpoint) as base_url:
        runner = Runner(endpoint)
        for folder in (undisturbed, disturbed):
            folder.mkdir()
            small_world(folder, base_url)
        for name in STAGES:
            assert runner.run(name, undisturbed, tmp_path / "its pool") == 0
        once, endpoint.asked = endpoint.asked, Counter()
        killed = 0
        while killed < KILLS:
            name = rng.choice(STAGES[: 1 + killed * len(STAGES) // KILLS])
            if rng.random() < 0.5:
                endpoint.delay = rng.choice([0.0, rng.random() * 0.03])
                code = runner.run(name, disturbed, pool, rng.randint(1, 12), rng.random() < 0.7)
            else:
                process = runner.start(name, disturbed, pool)
                timer = threading.Timer(rng.random() * LONGEST, os.kill, (process.pid, signal.SIGKILL))
                timer.start()
                code = process.wait()
                timer.cancel()
            assert code in (0, 1, -signal.SIGKILL)  # 1: what the stage before makes is not there yet
            killed += code == -signal.SIGKILL
            if code == 0 and killed < KILLS and name == STAGES[-1]:
                break  # nothing is left to ask
        for name in STAGES:
            assert runner.run(name, disturbed, pool) == 0
    assert set(endpoint.asked) == set(once)
    assert endpoint.asked.total() - len(endpoint.asked) <= killed * IN_FLIGHT
    assert contents(disturbed) == contents(undisturbed)
    with sqlite3.connect(pool / FILE) as db:
        (check,) = db.execute("PRAGMA integrity_check").fetchone()
        (calls,) = db.execute("SELECT COUNT(*) FROM reservations").fetchone()
    assert check == "ok" and calls >= endpoint.asked.total()
    print(f"{killed} kills, {endpoint.asked.total()} questions, {len(once)} of them different")
