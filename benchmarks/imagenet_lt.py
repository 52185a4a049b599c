"""The whole pipeline in the shape of ImageNet-LT or iNaturalist 2018: what each stage needs, and how that grows.

    python benchmarks/imagenet_lt.py imagenet_lt whole     # 10 and 20 of the 1,000 classes, each as large as it is
    python benchmarks/imagenet_lt.py imagenet_lt thin      # 250, 500 and 1,000 classes with 1/30 of their images
    python benchmarks/imagenet_lt.py inat2018 whole        # 41 and 81 of the 8,142 classes
    python benchmarks/imagenet_lt.py inat2018 thin 1/2 1   # with 1/50 of their images; other shares of the classes

The servers answer at once and run in a process of their own, which is not counted; images have 8 x 8 pixels, CLIP
20,000 random parameters. So what is measured is the pipeline itself, its clients, graphs, stores, lists and files,
and not the models. "For all" continues the line through the two largest sizes to all classes (whole).
"Growth" is the computing that a class more takes between the two largest sizes, divided by that between the two
smallest (thin): 1 where a class costs the same among many, 2 where its cost doubles with the number of classes.
"""

import asyncio
import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import psutil
import yaml
from completions import completion
from PIL import Image
from rich.console import Console
from rich.table import Table

SIDE = 8  # pixels
WRONG = 0.2  # share of drawings that do not look like their class
STEPS, BATCH = 50, 32
STAGES = ["code", "prepare", "describe", "extend", "templates", "generate", "quality", "train", "evaluate", "ask",
          "loops", "compare", "report"]  # fmt: skip
LIMIT = 2000  # MB
console = Console(width=115)


@dataclass(frozen=True)
class Shape:
    photos: int
    groups: tuple[int, int, int]  # classes: many, medium, few
    largest: int
    smallest: int
    target: int  # K
    val: int  # images of each class
    test: int

    @property
    def classes(self) -> int:
        return sum(self.groups)

    def counts(self, classes: int) -> list[int]:
        """Training images of `classes` classes, spread evenly over those of the data set."""
        many, medium, few = self.groups
        tail = [*_falling(100, 20, medium), *_falling(19, self.smallest, few)]
        low, high = 0.1, 20.0
        for _ in range(60):  # how fast the head falls is what gives the data set its number of photos
            power = (low + high) / 2
            head = _falling(self.largest, 101, many, power)
            low, high = (power, high) if sum(head) + sum(tail) > self.photos else (low, power)
        every = [*head, *tail]
        return [every[int((i + 0.5) * len(every) / classes)] for i in range(classes)]


def _falling(first: int, last: int, count: int, power: float = 1.0) -> list[int]:
    place = np.linspace(1, 0, count) ** power
    return [round(last * (first / last) ** p) for p in place]


SHAPES = {
    "imagenet_lt": Shape(115_846, (385, 479, 136), 1280, 5, target=300, val=20, test=50),
    "inat2018": Shape(437_513, (842, 4076, 3224), 1000, 2, target=100, val=0, test=3),
}
THIN = {"imagenet_lt": 30, "inat2018": 50}  # images of a class, divided by
FRACTIONS = {
    ("imagenet_lt", "whole"): ("1/100", "1/50"),
    ("imagenet_lt", "thin"): ("1/4", "1/2", "1"),
    ("inat2018", "whole"): ("1/200", "1/100"),
    ("inat2018", "thin"): ("1/4", "1/2", "1"),
}  # of the classes


class Usage(NamedTuple):
    wall: float  # seconds
    cpu: float  # seconds, with those of its processes
    memory: float  # MB, the most at once of all its processes
    files: int  # open at once
    disk: float  # MB more than before


def main(shape: str, how: str, *fractions: str) -> None:
    world, thin = SHAPES[shape], THIN[shape] if how == "thin" else 1
    sizes = [round(world.classes * Fraction(f)) for f in fractions or FRACTIONS[shape, how]]
    measured: list[dict[str, Usage]] = []
    for classes in sizes:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            measured.append(rehearse(Path(name), world, classes, thin))
        show(f"{shape}, {how}", world.classes, sizes[: len(measured)], measured, thin == 1)


def rehearse(folder: Path, world: Shape, classes: int, thin: int) -> dict[str, Usage]:
    """Every stage once, on `classes` classes with 1 / `thin` of their images."""
    project, target = folder / "project", max(2, world.target // thin)
    counts = [max(1, count // thin) for count in world.counts(classes)]
    tail = [count for count in counts if count < target]
    described, drawn = sum(tail), len(tail) * target - sum(tail)
    console.print(f"{classes:,} classes, {sum(counts):,} photos, {described:,} described, {drawn:,} drawings")
    take_photos(folder / "photos", counts, max(1, world.val // thin), max(1, world.test // thin))
    for package in ("stages", "graphs", "ltgc", "embedded"):
        project.mkdir(exist_ok=True)
        (project / package).symlink_to(ROOT / package)
    # In a process of its own: the peak memory of a child begins with its parent's.
    subprocess.run([sys.executable, __file__, "clip", str(folder / "clip")], check=True)
    used = {}
    with running_server() as base_url:
        write_params(project, folder / "photos", f"local-dir:{folder / 'clip'}", base_url, target)
        for stage in STAGES:
            before = on_disk(folder)
            used[stage] = measure(project, stage, folder / "pool")._replace(disk=on_disk(folder) - before)
            console.print(f"{stage}: {used[stage].wall:.0f} s, {used[stage].cpu:.0f} s of computing")
    loops = json.loads((project / "metrics/loops.json").read_text())["generate"]
    console.print(f"drawn {loops['drawn']:,} times for {loops['descriptions']:,} descriptions")
    return used


def measure(project: Path, stage: str, pool: Path) -> Usage:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LTGC_CACHE": str(pool), "KEY": "k"}
    start, log = time.perf_counter(), project.parent / f"{stage}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"stages.{stage}"], cwd=project, env=environment, stdout=output, stderr=output
        )
        most, done = [0.0, 0.0], threading.Event()
        watcher = threading.Thread(target=watch, args=(process.pid, most, done))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        watcher.join()
    if status:
        raise SystemExit(f"{stage}: {log.read_text()[-3000:]}")
    memory = max(most[0], usage.ru_maxrss / 1024)
    return Usage(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, memory, int(most[1]), 0)


def watch(pid: int, most: list[float], done: threading.Event) -> None:
    """The most memory (MB) and open files that a process and its own have at once."""
    while not done.wait(0.2):
        memory = files = 0.0
        try:
            parent = psutil.Process(pid)
            for process in [parent, *parent.children(recursive=True)]:
                memory += process.memory_info().rss / 1e6
                files += process.num_fds()
        except psutil.Error:  # it has just ended
            continue
        most[:] = [max(most[0], memory), max(most[1], files)]


def on_disk(folder: Path) -> float:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if not file.is_symlink()) / 1e6


def show(title: str, whole: int, sizes: Sequence[int], measured: Sequence[dict[str, Usage]], extend: bool) -> None:
    table = Table("", title=f"{title}: {', '.join(f'{size:,}' for size in sizes)} classes")
    for heading in ("wall, s", "computing, s", "growth", "memory, MB", "files", "disk, MB"):
        table.add_column(heading, justify="right")
    extend = extend and len(sizes) > 1
    for heading in ("computing, min", "memory, MB", "disk, GB") if extend else ():
        table.add_column(f"for all: {heading}", justify="right")
    for stage in STAGES:
        found = [used[stage] for used in measured]
        last = found[-1]
        cells = [f"{last.wall:.0f}", f"{last.cpu:.0f}", growth(sizes, [u.cpu for u in found])]
        cells += [f"{last.memory:,.0f}", str(last.files), f"{last.disk:,.0f}"]
        if extend:
            cpu, memory, disk = (line(sizes, [u[field] for u in found], whole) for field in (1, 2, 4))
            cells += [
                f"{cpu / 60:.1f}",
                f"{memory:,.0f}{' > 2 GB' if memory > LIMIT else ''}",
                f"{disk / 1000:.1f}",
            ]
        table.add_row(stage, *cells)
    console.print(table)


def growth(sizes: Sequence[int], costs: Sequence[float]) -> str:
    """How much more a class costs among many than among few; a dash where all is below a second."""
    if len(sizes) < 3 or costs[-1] - costs[0] < 1:
        return "–"
    first, second = ((costs[i + 1] - costs[i]) / (sizes[i + 1] - sizes[i]) for i in (-3, -2))
    return f"{second / first:.1f}" if first > 0 else "–"


def line(sizes: Sequence[int], values: Sequence[float], at: int) -> float:
    slope = (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])
    return max(values[-1], values[-1] + slope * (at - sizes[-1]))


# --- the world ---


def colour(name: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(name.encode()).digest()[:3], np.uint8).astype(int)


def picture(name: str, key: str) -> bytes:
    """A PNG in the colour of the class, with noise of its own."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    pixels = colour(name) + np.random.default_rng(seed).integers(-40, 40, (SIDE, SIDE, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def take_photos(root: Path, counts: Sequence[int], val: int, test: int) -> None:
    for i, count in enumerate(counts):
        name = f"class {i:04d}"
        for split, number in (("train", count), ("val", val), ("test", test)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(number):
                (folder / f"{k:04d}.png").write_bytes(picture(name, f"{split} {name} {k}"))


def write_params(project: Path, photos: Path, clip: str, base_url: str, target: int) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["data"] |= {"source": "folder", "root": str(photos)}
    values["servers"] |= {"base_url": base_url, "api_key_env": "KEY", "concurrency": 64}
    values["budget"] |= {"project": "rehearsal"}
    values["extend"] |= {"target": target, "max_rounds": 30}
    values["clip"] |= {"model": clip, "pretrained": None, "revision": None}
    values["train"] |= {"steps": STEPS, "batch_size": BATCH, "device": "cpu"}
    values["methods"], values["seeds"] = ["clip_finetune", "balancemix"], [0]
    values["ask"] |= {"max_images": 200}
    (project / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


# --- the servers ---


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP by hand: a framework would take more of the two cores than the clients that are measured."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            request = json.loads(await reader.readexactly(length))
            body = json.dumps(drawing(request) if "prompt" in request else chat(request)).encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            writer.write(head + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def drawing(request: dict[str, Any]) -> dict[str, Any]:
    key = f"{request['prompt']} {request.get('seed')}"
    wrong = hashlib.sha256(key.encode()).digest()[0] < 256 * WRONG
    found = re.search(r"of the class ([^,]*),", request["prompt"])
    name = "no class" if wrong or not found else found[1]
    return {"created": 0, "data": [{"b64_json": base64.b64encode(picture(name, key)).decode()}]}


def chat(request: dict[str, Any]) -> dict[str, Any]:
    content = request["messages"][-1]["content"]
    text = content if isinstance(content, str) else " ".join(p["text"] for p in content if p["type"] == "text")
    seen = "" if isinstance(content, str) else next(p["image_url"]["url"] for p in content if p["type"] != "text")
    return completion(text, answer(text, hashlib.sha256(seen.encode()).hexdigest()))


def answer(text: str, seen: str) -> str:
    name = text.partition('"')[2].partition('"')[0]
    if text.startswith("These are the names"):
        return f"class {int(seen[:4], 16) % text.count('class '):04d}"
    if "Template 2" in text:
        return f"A photo of the class {name} with {{{feature(name + 'a')}}}{{{feature(name + 'b')}}}"
    if "exclude the repetitive" in text:
        return (
            text.partition(":\n")[2].rpartition("Here is a list of")[2].partition(":\n")[2].partition("\n\n")[0]
            or (text.partition(":\n")[2].partition("\n\n")[0])
        )
    if "describe this image" in text:
        return description(name, seen)
    if "does not represent" in text:
        return description(name, text)
    known = len(re.findall(r"^\d+\. ", text, re.MULTILINE))
    return "\n".join(f"{i}. {description(name, f'{name} {known + i}')}" for i in range(1, 21))


def description(name: str, key: str) -> str:
    return f"A photo of the class {name}, {{{feature(key)}, {feature(key + 'x')}}}{{in {feature(key + 'y')}}}."


def feature(key: str) -> str:
    a, b, c = hashlib.sha256(key.encode()).digest()[:3]
    return f"{WORDS[a % 16]} {WORDS[16 + b % 16]} {WORDS[32 + c % 16]}"


TEXT = """
    long short broad narrow dark pale bright dull smooth rough hairy bare curved straight tall low
    red blue green yellow white black brown grey pink violet orange golden silver spotted striped plain
    petals leaves stems legs wings horns eyes tails feathers scales wheels doors handles roofs walls stones
"""
WORDS = TEXT.split()


async def serve() -> None:
    listening = await asyncio.start_server(respond, "127.0.0.1", 0, limit=2**24, backlog=1024)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)  # ends with the process that started it
    os._exit(0)


@contextmanager
def running_server() -> Iterator[str]:
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            asyncio.run(serve())
        case ["clip", folder]:
            from helpers import training_world

            training_world.save_clip(Path(folder))
        case arguments:
            main(*arguments)
