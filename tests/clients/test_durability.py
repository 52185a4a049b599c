"""Stages that are killed: what they pay for again, and that they end as if nothing had happened."""

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest
import yaml
from helpers.paid_world import (
    IN_FLIGHT,
    SPECIES,
    Endpoint,
    Runner,
    commit,
    contents,
    dvc,
    repository,
    serving,
    small_world,
)
from helpers.photo_folders import list_again
from PIL import Image

from ltgc.clients.database import Database
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.descriptions import EXISTING
from stages import describe, extend

KILLS = {"describe": 5, "extend": 5, "templates": 2, "generate": 8}


def replies(pool: Path) -> int:
    return Database(pool, "").rows("SELECT COUNT(*) FROM replies")[0][0]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork are POSIX")
def test_twenty_kills_change_no_byte_and_cost_no_more_than_what_was_in_flight(tmp_path):
    rng = random.Random(3)
    endpoint = Endpoint()
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    its_pool, pool = tmp_path / "its pool", tmp_path / "pool"
    with serving(endpoint) as base_url:
        runner = Runner(endpoint)
        for folder in (undisturbed, disturbed):
            folder.mkdir()
            small_world(folder, base_url)
        needed = {}
        for name in KILLS:
            assert runner.run(name, undisturbed, its_pool) == 0
            needed[name] = replies(its_pool)  # with those of the stages before
        once, endpoint.asked = endpoint.asked, Counter()
        assert set(once.values()) == {1}

        kills = 0
        for name, times in KILLS.items():
            for left in range(times, 0, -1):
                # Early ones, so that something is left for the others; the last one anywhere.
                missing = needed[name] - replies(pool)
                assert missing, f"nothing was left to kill in {name}"
                at = rng.randint(1, max(1, missing // left))
                assert runner.run(name, disturbed, pool, at, rng.random() < 0.5) == -signal.SIGKILL
                kills += 1
            assert runner.run(name, disturbed, pool) == 0

    assert kills == 20
    assert set(endpoint.asked) == set(once)
    repeated = endpoint.asked.total() - len(endpoint.asked)
    assert 0 < repeated <= kills * IN_FLIGHT
    assert contents(disturbed) == contents(undisturbed)


def change(**sections: dict) -> None:
    values = yaml.safe_load(Path("params.yaml").read_text())
    for name, changes in sections.items():
        values[name] |= changes
    Path("params.yaml").write_text(yaml.safe_dump(values))


def test_a_change_asks_only_what_it_must_and_going_back_asks_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    endpoint = Endpoint()

    def asked(stage) -> int:
        before = endpoint.asked.total()
        stage.main()
        return endpoint.asked.total() - before

    with serving(endpoint) as base_url:
        small_world(tmp_path, base_url)
        change(extend={"target": 44, "repetition_check": False})
        described, extended = asked(describe), asked(extend)
        replies = {path.name: path.read_bytes() for path in Path("store/describe").iterdir()}

        path = tmp_path / "photos/0002-daucus-carota/1.png"
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(path)
        list_again(tmp_path / MANIFEST, tmp_path / "photos")
        assert 1 <= asked(describe) <= 3  # the tries of one image
        changed = {n for n, data in replies.items() if Path("store/describe", n).read_bytes() != data}
        assert changed == {"0002-daucus-carota.jsonl"}
        assert asked(extend) <= extended / 2  # one class of four

        change(extend={"target": 46})  # the last rounds are other questions, the first ones are not
        assert asked(describe) == 0
        assert 1 <= asked(extend) <= 2 * extended / 3

        change(vision={"temperature": 0.9})
        assert asked(describe) >= described - 3
        change(vision={"temperature": 0.2})
        assert asked(describe) == 0
    assert max(endpoint.asked.values()) == 1


def test_a_pull_gives_a_teammate_every_reply_and_a_push_sends_one_class_for_one_class(tmp_path):
    endpoint = Endpoint()
    mine, theirs, remote = tmp_path / "mine", tmp_path / "theirs", tmp_path / "remote"
    their_pool = tmp_path / "their pool"
    with serving(endpoint) as base_url:
        repository(mine, base_url)
        leave_out(mine, label=3)
        dvc(mine, "dvc", "remote", "add", "-d", "-q", "shared", str(remote))
        dvc(mine, "dvc", "repro", "-q")
        dvc(mine, "dvc", "push", "-q")
        sent = {path for path in remote.rglob("*") if path.is_file()}
        commit(mine, "described")

        calls = endpoint.asked.total()
        dvc(tmp_path, "git", "clone", "-q", "mine", "theirs")
        dvc(theirs, "dvc", "pull", "-q")
        assert "Running stage" not in dvc(theirs, "dvc", "repro")
        (theirs / EXISTING).unlink()
        dvc(theirs, "python", "-m", "stages.describe", pool=their_pool)  # where it does run, it asks nothing
        assert endpoint.asked.total() == calls
        assert contents(theirs) == contents(mine)

        small_world(mine, base_url)  # with the fourth class
        dvc(mine, "dvc", "repro", "-q")
        assert endpoint.asked.total() - calls <= 3 * SPECIES["Linum perenne"]
        dvc(mine, "dvc", "push", "-q")
    new = {path for path in remote.rglob("*") if path.is_file()} - sent
    # The class's replies, the list of the folder's files, and the descriptions; no other class's replies.
    assert len(new) == 3
    (replies,) = (mine / "store/describe").glob("0003-*.jsonl")
    assert replies.read_bytes() in {path.read_bytes() for path in new}


def leave_out(folder: Path, label: int) -> None:
    for path, record in ((CLASSES, ClassRecord), (MANIFEST, ImageRecord)):
        kept = [entry for entry in files.read_csv(folder / path, record) if entry.label != label]
        files.write_records_csv(folder / path, kept, record)
