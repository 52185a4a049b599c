"""What tar shards save DVC, and what they cost a reader: 200,000 images as files and as 365 shards, in one run.

    python benchmarks/shards.py                # about 9 minutes, 3 GB of disk in the temporary folder
    python benchmarks/shards.py 20000          # fewer images

The images are a few hundred random bytes: it is their number that DVC feels. Both sides hold the same images in a
repository, cache and remote of their own on one disk.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rich.console import Console
from rich.table import Table

from ltgc.data import images, shards
from ltgc.pipeline.artifacts.drawings import Attempt

IMAGES, CLASSES, SIZE = 200_000, 365, 200  # Places-LT has 365 classes; bytes an image
READS, THREADS = 50_000, 8
console = Console(width=115)


def world(count: int) -> Iterator[tuple[str, list[tuple[str, bytes, bytes]]]]:
    """Each class: its slug, and its images as (name without suffix, image, record)."""
    rng = random.Random(0)
    for label in range(CLASSES):
        slug = f"{label:04d}-class-{label}"
        rows = []
        for index in range(label * count // CLASSES, (label + 1) * count // CLASSES):
            attempt = Attempt(
                id=f"{slug}/{index}-0", label=label, class_name=f"class {label}", index=index, round=0,
                prompt=f"A photo of the class class {label}, feature {index} in a scene.", seed=index,
                image=f"generated/accepted/{slug}.tar/{index}-0.png", score=0.5, threshold=0.3, verdict="accepted",
                refines=None, reason=None,
            )  # fmt: skip
            rows.append((f"{index}-0", rng.randbytes(SIZE), attempt.model_dump_json().encode()))
        yield slug, rows


def write(folder: Path, as_shards: bool, count: int) -> list[str]:
    """Fill `folder`; a reference to each image."""
    references = []
    for slug, rows in world(count):
        if as_shards:
            members = [
                pair for name, image, record in rows for pair in ((f"{name}.png", image), (f"{name}.json", record))
            ]
            shards.write(folder / f"{slug}.tar", members)
        else:
            (folder / slug).mkdir(parents=True)
            for name, image, _ in rows:
                (folder / slug / f"{name}.png").write_bytes(image)
        references += [f"{folder}/{slug}{'.tar' if as_shards else ''}/{name}.png" for name, _, _ in rows]
    return references


def one_more(folder: Path, as_shards: bool) -> None:
    """Give one class another image."""
    first = sorted(folder.iterdir())[0]
    if as_shards:
        shards.write(
            first, [*((name, shards.read(first, name)) for name in shards.names(first)), ("new.png", b"new")]
        )
    else:
        (first / "new.png").write_bytes(b"new")


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(folder: Path, as_shards: bool, count: int) -> dict[str, float]:
    env = os.environ | {"DVC_SITE_CACHE_DIR": str(folder / "site"), "DVC_NO_ANALYTICS": "1"}
    repository = folder / "repository"
    out = repository / "generated"
    repository.mkdir(parents=True)
    seconds: dict[str, float] = {}

    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments, "-q"], cwd=repository, env=env, check=True)

    dvc("init", "--no-scm")
    dvc("remote", "add", "-d", "local", str(folder / "remote"))
    references = write(out, as_shards, count)
    for title, command in (
        ("dvc add (hash and cache)", ["add", "generated"]),
        ("dvc status, nothing changed", ["status"]),
        ("dvc push, all", ["push"]),
        ("dvc push, nothing new", ["push"]),
    ):
        seconds[title] = timed(lambda command=command: dvc(*command))  # type: ignore[misc]
    shutil.rmtree(out)
    seconds["dvc checkout, all"] = timed(lambda: dvc("checkout"))
    one_more(out, as_shards)
    seconds["one image more: dvc add"] = timed(lambda: dvc("add", "generated"))
    seconds["one image more: dvc push"] = timed(lambda: dvc("push"))
    sample = random.Random(1).choices(references, k=READS)
    if as_shards:
        seconds["index"] = timed(lambda: [shards.names(shard) for shard in out.glob("*.tar")])
    for reference in sample:  # both from memory: on a cold disk it is the disk that is measured
        images.read(reference)
    seconds["read"] = timed(lambda: [images.read(reference) for reference in sample])
    with ThreadPoolExecutor(THREADS) as pool:
        seconds["threads"] = timed(lambda: list(pool.map(images.read, sample)))
    return seconds


def main(count: str = str(IMAGES)) -> None:
    results = []
    for as_shards in (False, True):
        with tempfile.TemporaryDirectory(prefix="shards-") as folder:
            results.append(measure(Path(folder), as_shards, int(count)))
    files, tars = results
    table = Table(title=f"{int(count):,} images: as files, and as {CLASSES} tar shards with their JSON")
    for heading in ("", "files", "shards", "files ÷ shards"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name in files:
        if name not in ("read", "threads"):
            table.add_row(name, f"{files[name]:.1f} s", f"{tars[name]:.1f} s", f"{files[name] / tars[name]:.1f}")
    for name, title in (("read", "random reads, one thread"), ("threads", f"random reads, {THREADS} threads")):
        table.add_row(title, f"{READS / files[name]:,.0f} /s", f"{READS / tars[name]:,.0f} /s",
                      f"{tars[name] / files[name]:.2f}")  # fmt: skip
    table.add_row("index of all, once a process", "", f"{tars['index']:.1f} s", "")
    console.print(table)
    console.print(f"{os.cpu_count()} cores, load average at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
