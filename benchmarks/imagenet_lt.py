"""The whole pipeline in the shape of ImageNet-LT or iNaturalist 2018: what each stage needs, and how that grows.

    python benchmarks/imagenet_lt.py imagenet_lt thin      # 250, 500 and 1,000 classes with 1/30 of their images
    python benchmarks/imagenet_lt.py imagenet_lt whole     # 10 and 20 of the 1,000 classes, as large as they are
    python benchmarks/imagenet_lt.py inat2018 thin 1/2 1   # other shares of the classes

The servers answer at once and run in a process of their own, which is not counted; images have 8 x 8 pixels, CLIP
20,000 random parameters. So what is measured is the pipeline itself, its clients, graphs, stores, lists and files,
and not the models. Calls are replies and drawings.
Stage after stage on what the one before made. "Growth" is the computing that a class more takes
between the two largest sizes, divided by that between the two smallest: 1 where a class costs the same among
many, 2 where its cost doubles with the number of classes. "For all" continues the line through the two sizes.
What was measured is kept in rehearsal.jsonl, and not measured again while that is there. For memory at the full
size see benchmarks/full_size.py.
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import instant_world
import psutil
from instant_server import running_server
from instant_world import SHAPES, Shape, take_photos, write_params
from rich.console import Console
from rich.table import Table

STAGES = ["code", "prepare", "describe", "extend", "templates", "generate", "quality", "train", "evaluate", "ask",
          "loops", "compare", "report"]  # fmt: skip
STEPS = 50  # of training
RESULTS = Path("rehearsal.jsonl")
LIMIT = 2000  # MB
THIN = {"imagenet_lt": 30, "inat2018": 50}  # images of a class, divided by
FRACTIONS = {
    ("imagenet_lt", "thin"): ("1/4", "1/2", "1"),
    ("imagenet_lt", "whole"): ("1/100", "1/50"),
    ("inat2018", "thin"): ("1/4", "1/2", "1"),
    ("inat2018", "whole"): ("1/200", "1/100"),
}  # of the classes
console = Console(width=115)


class Usage(NamedTuple):
    wall: float  # seconds
    cpu: float  # seconds, with those of its processes
    memory: float  # MB, the most at once of all its processes
    files: int  # open at once
    disk: float  # MB more than before
    calls: int


def main(shape: str, how: str, *fractions: str) -> None:
    world, thin = SHAPES[shape], THIN[shape] if how == "thin" else 1
    sizes = [round(world.classes * Fraction(share)) for share in fractions or FRACTIONS[shape, how]]
    for classes in sizes:
        if len(known(shape, how).get(classes, {})) == len(STAGES):
            continue
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            for stage, used in rehearse(folder, prepared(folder, shape, classes, thin)):
                with RESULTS.open("a") as file:
                    file.write(json.dumps([shape, how, classes, stage, used]) + "\n")
    measured = known(shape, how)
    show(f"{shape}, {how}", world.classes, sizes, [measured[classes] for classes in sizes], how == "whole")


def known(shape: str, how: str) -> dict[int, dict[str, Usage]]:
    """Classes -> what the stages needed, of the runs in RESULTS."""
    found: dict[int, dict[str, Usage]] = {}
    for line in RESULTS.read_text().splitlines() if RESULTS.exists() else []:
        *which, classes, stage, used = json.loads(line)
        if which == [shape, how]:
            found.setdefault(classes, {})[stage] = Usage(*used)
    return found


def prepared(folder: Path, shape: str, classes: int, thin: int) -> int:
    """Photos, code and CLIP; the target K."""
    world: Shape = SHAPES[shape]
    project, target = folder / "project", max(2, world.target // thin)
    counts = [max(1, count // thin) for count in world.counts(classes)]
    tail = [count for count in counts if count < target]
    described, drawn = sum(tail), len(tail) * target - sum(tail)
    console.print(f"{classes:,} classes, {sum(counts):,} photos, {described:,} described, {drawn:,} drawings")
    project.mkdir()
    for package in ("stages", "graphs", "ltgc", "embedded", "prompts"):
        (project / package).symlink_to(ROOT / package)
    # In processes of their own: the peak memory of a child begins with its parent's.
    subprocess.run([sys.executable, __file__, "clip", str(folder / "clip")], check=True)
    take_photos(folder / "photos", counts, max(1, world.val // thin), max(1, world.test // thin))
    return target


def rehearse(folder: Path, target: int) -> Iterator[tuple[str, Usage]]:
    """Every stage once."""
    project, pool = folder / "project", folder / "pool"
    with running_server(instant_world.__file__) as base_url:
        write_params(project, folder / "photos", f"local-dir:{folder / 'clip'}", base_url, target, STEPS)
        for stage in STAGES:
            disk, stored = on_disk(folder), calls(pool)
            found = measure(project, stage, pool)
            yield stage, found._replace(disk=on_disk(folder) - disk, calls=calls(pool) - stored)
            console.print(f"{stage}: {found.wall:.0f} s, {found.cpu:.0f} s of computing, {found.memory:,.0f} MB")


def measure(project: Path, stage: str, pool: Path) -> Usage:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LTGC_CACHE": str(pool), "KEY": "k"}
    start, log = time.perf_counter(), project.parent / f"{stage}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"stages.{stage}"], cwd=project, env=environment, stdout=output, stderr=output
        )
        most, done = [0.0, 0.0], threading.Event()
        watcher = threading.Thread(target=watch, args=(process.pid, most, done), daemon=True)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        watcher.join()
    if status:
        raise SystemExit(f"{stage}: {log.read_text()[-3000:]}")
    memory = max(most[0], usage.ru_maxrss * 1024 / 1e6)
    wall, cpu = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    return Usage(wall, cpu, memory, int(most[1]), 0, 0)


def watch(pid: int, most: list[float], done: threading.Event) -> None:
    """The most memory (MB) and open files that a process and its own have at once."""
    while not done.wait(0.2):
        memory = files = 0.0
        try:
            parent = psutil.Process(pid)
            children = parent.children(recursive=True)
            for process in [parent, *children]:
                # Forked processes share most of their memory: each counts for its share.
                memory += (process.memory_full_info().pss if children else process.memory_info().rss) / 1e6
                files += process.num_fds()
        except psutil.Error:  # it has just ended
            continue
        most[:] = [max(most[0], memory), max(most[1], files)]


def on_disk(folder: Path) -> float:
    return int(subprocess.run(["du", "-s", folder], stdout=subprocess.PIPE, check=True).stdout.split()[0]) / 1000


def calls(pool: Path) -> int:
    """How many replies and drawings are in the pool."""
    if not (pool / "pool.sqlite").exists():
        return 0
    with sqlite3.connect(pool / "pool.sqlite") as database:
        return int(database.execute("SELECT count(*) FROM replies").fetchone()[0])


def show(title: str, whole: int, sizes: Sequence[int], measured: Sequence[dict[str, Usage]], extend: bool) -> None:
    table = Table("", title=f"{title}: {', '.join(f'{size:,}' for size in sizes)} classes")
    for heading in ("wall, s", "computing, s", "growth", "calls", "ms a call", "memory, MB", "files", "disk, MB"):
        table.add_column(heading, justify="right")
    extend = extend and len(sizes) > 1
    for heading in ("computing, min", "disk, GB") if extend else ():
        table.add_column(f"for all: {heading}", justify="right")
    for stage in STAGES:
        found = [used[stage] for used in measured]
        last = found[-1]
        cells = [f"{last.wall:.0f}", f"{last.cpu:.0f}"]
        cells += [growth(sizes, [u.cpu for u in found]), f"{last.calls:,}" if last.calls else "–", a_call(found)]
        cells += [f"{last.memory:,.0f}{' > 2 GB' if last.memory > LIMIT else ''}"]
        cells += [str(last.files), f"{last.disk:,.0f}"]
        if extend:
            cpu, disk = (line(sizes, [getattr(u, name) for u in found], whole) for name in ("cpu", "disk"))
            cells += [f"{cpu / 60:.1f}", f"{disk / 1000:.1f}"]
        table.add_row(stage, *cells)
    console.print(table)


def growth(sizes: Sequence[int], costs: Sequence[float]) -> str:
    """How much more a class costs among many than among few; a dash where all is below a second."""
    if len(sizes) < 3 or costs[-1] - costs[0] < 1:
        return "–"
    first, second = ((costs[i + 1] - costs[i]) / (sizes[i + 1] - sizes[i]) for i in (-3, -2))
    return f"{second / first:.1f}" if first > 0 else "–"


def a_call(found: Sequence[Usage]) -> str:
    """Computing (ms) that a call more takes: between the sizes or, of one size, with all that is not calls."""
    if not found[-1].calls:
        return "–"
    cpu, number = found[-1].cpu, found[-1].calls
    if len(found) > 1:
        cpu, number = cpu - found[-2].cpu, number - found[-2].calls
    return f"{1000 * cpu / number:.1f}" if number else "–"


def line(sizes: Sequence[int], values: Sequence[float], at: int) -> float:
    slope = (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])
    return max(values[-1], values[-1] + slope * (at - sizes[-1]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["clip", folder]:
            from helpers import training_world

            training_world.save_clip(Path(folder))
        case arguments:
            main(*arguments)
