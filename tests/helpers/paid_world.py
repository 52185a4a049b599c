"""Stages that ask an endpoint which counts what it is asked and kills the ones who ask, in a small world."""

import asyncio
import hashlib
import io
import math
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import uvicorn
import yaml
from PIL import Image

from helpers import warm_commands
from helpers.paths import ROOT, link_prompts
from helpers.photo_folders import few_photos

SPECIES = {"Papaver dubium": 4, "Aquilegia pubescens": 5, "Daucus carota": 3, "Linum perenne": 4}
TARGET = 14
IN_FLIGHT = 3
STAGES = ("describe", "extend", "templates", "generate")
MADE = ("descriptions", "generated", "store", "metrics")


class Endpoint:
    """The embedded endpoint outside the processes that are killed. It knows what it was asked, and kills."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()  # by the hash of the request
        self.victim: int | None = None  # process id; 0: whoever asks
        self.kill_at: float = math.inf  # the victim's how many'th request is its last
        self.answer_first = False
        self.delay = 0.0  # seconds between the answer and the kill

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
            self.kill(scope)

        async def replay():
            return {"type": "http.request", "body": body, "more_body": False}

        await app(scope, replay, send)
        if last:
            await asyncio.sleep(self.delay)
            self.kill(scope)

    def kill(self, scope) -> None:
        if self.victim is not None:
            with suppress(ProcessLookupError):  # it has ended in the meantime
                os.kill(self.victim or process_at(*scope["client"]), signal.SIGKILL)
            self.victim, self.kill_at = None, math.inf


def process_at(host: str, port: int) -> int:
    """The process that has this end of a connection."""
    connections = psutil.net_connections("tcp4")
    return next(c.pid for c in connections if c.laddr == (host, port) and c.pid is not None)


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


class Runner:
    """Runs stages as processes of their own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def start(self, name: str, folder: Path, pool: Path) -> warm_commands.Fork:
        return warm_commands.Fork(f"stages.{name}", folder, LTGC_CACHE=str(pool))

    def run(
        self, name: str, folder: Path, pool: Path, kill_at: float = math.inf, answer_first: bool = False
    ) -> int:
        """The exit code; kill_at: the number of the request with which the process is killed."""
        self.endpoint.victim, self.endpoint.kill_at = None, kill_at
        self.endpoint.answer_first = answer_first
        process = self.start(name, folder, pool)
        self.endpoint.victim = process.pid
        code = process.wait()
        self.endpoint.victim = None
        return code


def small_world(folder: Path, base_url: str) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section in ("llm", "vision", "t2i"):
        values[section] |= {"base_url": base_url, "concurrency": IN_FLIGHT, "retries": 0}
    values["data"] |= {"source": "folder", "root": str(folder / "photos")}
    values["extend"] |= {"target": TARGET}
    values["clip"] |= {"model": f"local-dir:{ROOT / 'embedded/clip'}"}
    link_prompts(folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    rng = random.Random(0)

    def photo(label: int, number: int) -> bytes:
        file = io.BytesIO()
        Image.frombytes("RGB", (8, 8), rng.randbytes(192)).resize((64, 64)).save(file, "PNG")
        return file.getvalue()

    few_photos(folder, SPECIES, photo)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in MADE
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    }


def dvc(folder: Path, *command: str, pool: Path | None = None, fails: bool = False, warm: bool = True) -> str:
    """What a command prints that runs in the folder.

    pool: other than that of the test. warm: as a fork of a process that has imported all; else as users run it, in
    processes that can be found and killed.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    path = [warm_commands.folder()] * warm + [str(Path(sys.executable).parent), env["PATH"]]
    env |= {"PYTHONPATH": str(ROOT), "PATH": os.pathsep.join(path), "DVC_NO_ANALYTICS": "1"}
    env |= {"LTGC_CACHE": str(pool)} if pool else {}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    said = f"{done.stdout}\n{done.stderr}"
    assert (done.returncode != 0) == fails, f"{command}\n{said}"
    return said


def commit(folder: Path, message: str) -> None:
    dvc(folder, "git", "add", "-A")
    dvc(folder, "git", "commit", "-qm", message)


def repository(folder: Path, base_url: str) -> Path:
    """A DVC repository of the small world with the stage describe, which has not run."""
    folder.mkdir(parents=True, exist_ok=True)
    describe = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["describe"]
    describe["deps"] = ["data/classes.csv", "data/manifest.csv"]  # the code is not in this repository
    small_world(folder, base_url)
    values = yaml.safe_load((folder / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(values | {"prices": {}}))  # not free, as it is by default
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"describe": describe}}))
    dvc(folder, "git", "init", "-q")
    dvc(folder, "git", "config", "user.name", "t")  # dvc exp run --temp commits, and this machine may have no user
    dvc(folder, "git", "config", "user.email", "t@t")
    dvc(folder, "dvc", "init", "-q")
    return folder
