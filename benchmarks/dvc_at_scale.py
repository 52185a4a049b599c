"""DVC on the default pipeline and on 100,000 photos: three ratios, each measured in one run.

    python benchmarks/dvc_at_scale.py           # about ten minutes on two cores; 100,000 photos of 160 x 120 px
    python benchmarks/dvc_at_scale.py 10000     # with fewer photos

1. `dvc repro` with nothing to do, against `dvc --version`. Goal: at most 10 times.
2. `dvc status` of the whole pipeline, against `dvc status prepare`, which alone walks the photos. Goal: 2 times.
3. `prepare`, against the limit: as many processes as cores that read and decode each photo with Pillow and do
   nothing else. `prepare` hashes each photo too, and looks for near-duplicates; it is timed with and without that.

The pipeline is this one, with its dvc.yaml, params and code; its stages make as many files as dvc.lock counts, and
nothing is computed. The photos are all different. Seconds of computing (CPU) depend less on what else runs.
"""

import io
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PHOTOS, CLASSES, SIDES = 100_000, 100, (160, 120)
ROUNDS = 3  # of what takes seconds; the best counts
Seconds = tuple[float, float]  # wall, computing


def main(count: int = PHOTOS) -> None:
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        project, photos = Path(name) / "project", Path(name) / "photos"
        build(project)
        run(project, "dvc", "repro", "-q")
        table = Table("", "wall, s", "computing, s", "ratio", "goal", title="The default, nothing to do")
        compare(table, "dvc repro", best(project, "dvc", "repro"), best(project, "dvc", "--version"), 10)
        console.print(table)

        take_photos(photos, count)
        set_data(project, source="folder", root=str(photos))
        run(project, "dvc", "repro", "-q")
        table = Table("", "wall, s", "computing, s", "ratio", "goal", title=f"{count:,} photos")
        alone = best(project, "dvc", "status", "prepare")
        compare(table, "dvc status", best(project, "dvc", "status"), alone, 2)
        limit = timed(lambda: decode_all(photos))
        for near_duplicates in (None, 4):
            set_data(project, near_duplicates=near_duplicates)
            label = "prepare" if near_duplicates else "prepare, near_duplicates: null"
            taken = timed(lambda: run(project, sys.executable, "-m", "stages.prepare"))
            compare(table, label, taken, limit, None)
        table.caption = f"the last two: against Pillow's decoder in {os.cpu_count()} processes, {limit[0]:.1f} s, "
        table.caption += f"{count / limit[0]:,.0f} photos/s"
        console.print(table)


def compare(table: Table, label: str, taken: Seconds, other: Seconds, goal: int | None) -> None:
    ratios = f"{taken[0] / other[0]:.1f} ({taken[1] / other[1]:.1f} computing)"
    table.add_row(label, f"{taken[0]:.1f}", f"{taken[1]:.1f}", ratios, f"≤ {goal}" if goal else "")


def build(project: Path) -> None:
    """A copy of this repository whose stages make their outs without computing them."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for file in map(Path, files.splitlines()):
        if file.parts[0] != "metrics" and file.name != "dvc.lock":
            (project / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, project / file)
    for name, stage in pipeline["stages"].items():
        if name != "code":
            stage["cmd"] = " && ".join(make_command(out["path"], out.get("nfiles")) for out in lock[name]["outs"])
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False), encoding="utf-8")
    run(project, "git", "init", "-q")
    run(project, "dvc", "init", "-q", "-f")
    shutil.copy(ROOT / ".dvc/config", project / ".dvc/config")


def make_command(out: str, count: int | None) -> str:
    """A shell command that makes an out: a file, or a folder of `count` files."""
    if count is None:
        return f"mkdir -p {Path(out).parent} && echo {out} > {out}"
    return f"mkdir -p {out} && for i in $(seq {count}); do echo {out} $i > {out}/$i; done"


def set_data(project: Path, **changes: Any) -> None:
    file = project / "params.yaml"
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    values["data"] |= changes
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def take_photos(folder: Path, count: int) -> None:
    """Class folders of JPEGs, each of its own random colours."""
    for label in range(CLASSES):
        (folder / f"class {label:03d}").mkdir(parents=True)
    on_all_cores(partial(take_photo, folder), range(count))


def take_photo(folder: Path, number: int) -> None:
    colours = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    photo = Image.fromarray(colours).resize(SIDES, Image.Resampling.BICUBIC)
    photo.save(folder / f"class {number % CLASSES:03d}" / f"{number:06d}.jpg", quality=85)


def decode_all(folder: Path) -> None:
    on_all_cores(decode, [str(path) for path in folder.glob("*/*.jpg")])


def decode(path: str) -> None:
    Image.open(io.BytesIO(Path(path).read_bytes())).convert("RGB").load()


def on_all_cores(function: Callable[[Any], None], items: Any) -> None:
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for _ in pool.map(function, items, chunksize=100):
            pass


def best(project: Path, *command: str) -> Seconds:
    """The shortest of some rounds, wall time and computing each."""
    rounds = [timed(lambda: run(project, *command)) for _ in range(ROUNDS)]
    return min(wall for wall, _ in rounds), min(computing for _, computing in rounds)


def timed(action: Callable[[], object]) -> Seconds:
    """Wall time of `action`, and what its processes computed."""
    before, start = computed(), time.perf_counter()
    action()
    return time.perf_counter() - start, computed() - before


def computed() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def run(project: Path, *command: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=project, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
