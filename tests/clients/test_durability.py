"""Stages that are killed: what they pay for again, and that they end as if nothing had happened."""

import hashlib
import math
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
import yaml
from helpers.paths import ROOT
from helpers.photo_folders import image_record, list_again
from PIL import Image

from ltgc.pipeline import files, stage
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord, class_slug
from ltgc.pipeline.artifacts.descriptions import EXISTING
from ltgc.pipeline.artifacts.replies import STORE
from stages import describe, extend

SPECIES = {"Papaver dubium": 4, "Aquilegia pubescens": 5, "Daucus carota": 3, "Linum perenne": 4}
TARGET = 14
IN_FLIGHT = 3
KILLS = {"describe": 5, "extend": 5, "templates": 2, "generate": 8}
MADE = ("descriptions", "generated", "store", "metrics")


class Endpoint:
    """The embedded endpoint outside the processes that are killed. It knows what it was asked, and kills."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()  # by the hash of the request
        self.victim: int | None = None  # process id
        self.kill_at: float = math.inf  # the victim's how many'th request is its last
        self.answer_first = False

    async def __call__(self, scope, receive, send) -> None:
        from embedded.endpoint import app

        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":  # killed while it was asking
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.asked[hashlib.sha256(body).hexdigest()] += 1
        if self.victim is not None:
            self.kill_at -= 1
        last = self.kill_at <= 0
        if last and not self.answer_first:
            self.kill()

        async def replay():
            return {"type": "http.request", "body": body, "more_body": False}

        await app(scope, replay, send)
        if last:
            self.kill()

    def kill(self) -> None:
        if self.victim is not None:
            os.kill(self.victim, signal.SIGKILL)
            self.victim = None


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(endpoint, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()


def run_stage(name: str, folder: str) -> None:
    """In the child: what `python -m stages.<name>` does."""
    from importlib import import_module

    os.chdir(folder)
    sys.argv = [name]
    stage.run(import_module(f"stages.{name}").main)


class Runner:
    """Runs stages as processes of their own, forked from one that has done the imports."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([f"stages.{name}" for name in KILLS] + ["langchain_openai"])

    def run(self, name: str, folder: Path, kill_at: float = math.inf, answer_first: bool = False) -> int | None:
        """The exit code; kill_at: the number of the request with which the process is killed."""
        self.endpoint.victim, self.endpoint.kill_at = None, kill_at
        self.endpoint.answer_first = answer_first
        process = self.context.Process(target=run_stage, args=(name, str(folder)))
        process.start()
        self.endpoint.victim = process.pid
        process.join()
        self.endpoint.victim = None
        return process.exitcode


def small_world(folder: Path, base_url: str) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section in ("llm", "vision", "t2i"):
        values[section] |= {"base_url": base_url, "concurrency": IN_FLIGHT, "retries": 0}
    values["data"] |= {"source": "folder", "root": str(folder / "photos")}
    values["extend"] |= {"target": TARGET}
    values["clip"] |= {"model": f"local-dir:{ROOT / 'embedded/clip'}"}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    rng = random.Random(0)
    classes, images = [], []
    for label, (name, count) in enumerate(SPECIES.items()):
        slug = class_slug(label, name)
        classes.append(ClassRecord(label=label, name=name, slug=slug, train=count, val=0, test=1, shot="few"))
        for i in range(count):
            path = folder / f"photos/{slug}/{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.frombytes("RGB", (8, 8), rng.randbytes(192)).resize((64, 64)).save(path)
            images.append(image_record(folder / "photos", f"{slug}/{i}.png", label, name))
    files.write_records_csv(folder / CLASSES, classes, ClassRecord)
    files.write_records_csv(folder / MANIFEST, images, ImageRecord)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in MADE
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    }


def lines(folder: Path, name: str) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in (folder / STORE / name).glob("*.jsonl"))


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork are POSIX")
def test_twenty_kills_change_no_byte_and_cost_no_more_than_what_was_in_flight(tmp_path):
    rng = random.Random(3)
    endpoint = Endpoint()
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    with serving(endpoint) as base_url:
        runner = Runner(endpoint)
        for folder in (undisturbed, disturbed):
            folder.mkdir()
            small_world(folder, base_url)
        needed = {}
        for name in KILLS:
            assert runner.run(name, undisturbed) == 0
            needed[name] = lines(undisturbed, name)
        once, endpoint.asked = endpoint.asked, Counter()
        assert set(once.values()) == {1}

        kills = 0
        for name, times in KILLS.items():
            for left in range(times, 0, -1):
                # Early ones, so that something is left for the others; the last one anywhere.
                missing = needed[name] - lines(disturbed, name)
                assert missing, f"nothing was left to kill in {name}"
                at = rng.randint(1, max(1, missing // left))
                assert runner.run(name, disturbed, at, rng.random() < 0.5) == -signal.SIGKILL
                kills += 1
            assert runner.run(name, disturbed) == 0

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
        assert 1 <= asked(extend) <= extended / 2

        change(vision={"temperature": 0.9})
        assert asked(describe) >= described - 3
        change(vision={"temperature": 0.2})
        assert asked(describe) == 0
    assert max(endpoint.asked.values()) == 1


def dvc(folder: Path, *command: str) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    env |= {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_pull_gives_a_teammate_every_reply_and_a_push_sends_one_class_for_one_class(tmp_path):
    endpoint = Endpoint()
    mine, theirs, remote = tmp_path / "mine", tmp_path / "theirs", tmp_path / "remote"
    mine.mkdir()
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["describe"]
    stage["deps"] = ["data/classes.csv", "data/manifest.csv"]  # the code is not in this repository
    with serving(endpoint) as base_url:
        small_world(mine, base_url)
        leave_out(mine, label=3)
        (mine / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"describe": stage}}))
        dvc(mine, "git", "init", "-q")
        dvc(mine, "dvc", "init", "-q")
        dvc(mine, "dvc", "remote", "add", "-d", "-q", "shared", str(remote))
        dvc(mine, "dvc", "repro", "-q")
        dvc(mine, "dvc", "push", "-q")
        sent = {path for path in remote.rglob("*") if path.is_file()}
        dvc(mine, "git", "add", "-A")
        dvc(mine, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "described")

        calls = endpoint.asked.total()
        dvc(tmp_path, "git", "clone", "-q", "mine", "theirs")
        dvc(theirs, "dvc", "pull", "-q")
        assert "Running stage" not in dvc(theirs, "dvc", "repro")
        (theirs / EXISTING).unlink()
        dvc(theirs, sys.executable, "-m", "stages.describe")  # and where it does run, it asks nothing
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
