"""Stage prepare on lists of iNaturalist 2018's size, without touching pixels: seconds and peak memory.

python benchmarks/prepare.py
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from ltgc.data.near_duplicates import nearest_hashes

ROOT = Path(__file__).parents[1]
CLASSES, TRAIN, TEST = 8142, 437_513, 24_426
SECONDS, MEGABYTES = 20, 1000  # goals
READ = "from ltgc import artifacts; artifacts.read_csv(artifacts.MANIFEST, artifacts.ImageRecord)"


def main() -> None:
    table = Table("", "seconds", "peak RSS, MB", title=f"{TRAIN:,} + {TEST:,} images of {CLASSES:,} classes")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        # In a process of its own: the peak memory of a child begins with its parent's.
        writer = get_context("spawn").Process(target=write_lists, args=(root,))
        writer.start()
        writer.join()
        for suffix in ("json", "txt"):
            write_params(root, suffix)
            table.add_row(f"prepare, {suffix}", *measured([sys.executable, "-m", "stages.prepare"], root))
        table.add_row("a later stage reads the manifest", *measured([sys.executable, "-c", READ], root))
    for bits in (4, 8):
        table.add_row(f"near-duplicate search of random hashes, {bits} bits", *searched(bits))
    table.caption = f"goals: {SECONDS} s, {MEGABYTES:,} MB"
    Console().print(table)


def searched(bits: int) -> tuple[str, str]:
    """Seconds that the search for near-duplicate images takes once all hashes are known."""
    random = np.random.default_rng(0)
    train, test = (random.integers(0, 2**64, count, dtype=np.uint64).tolist() for count in (TRAIN, TEST))
    start = time.perf_counter()
    nearest_hashes(train, test, bits)
    return f"{time.perf_counter() - start:.1f}", ""


def write_lists(root: Path) -> None:
    """The competition's JSON files with all their keys, the text lists, and one image a folder to be found."""
    categories = [
        {"id": i, "name": f"Genus{i % 2000} species{i}", "supercategory": "Plantae", "kingdom": "Plantae"}
        | {"phylum": "Tracheophyta", "class": "Magnoliopsida", "order": f"Order{i % 50}", "family": f"F{i % 300}"}
        for i in range(CLASSES)
    ]
    (root / "categories.json").write_text(json.dumps(categories))
    start = 0
    for split, count in (("train", TRAIN), ("val", TEST)):
        ids = range(start, start + count)
        files = {i: f"train_val2018/Plantae/{i % CLASSES}/{i:032x}.jpg" for i in ids}
        content = {
            "info": {"year": 2018, "version": "1.0"},
            "images": [
                {"license": 3, "file_name": file, "rights_holder": f"Somebody {i % 9999}", "height": 600}
                | {"width": 800, "id": i}
                for i, file in files.items()
            ],
            "licenses": [{"id": 3, "name": "CC BY-NC"}],
            "annotations": [{"image_id": i, "category_id": i % CLASSES, "id": i} for i in ids],
            "categories": [{"id": i, "name": str(i), "supercategory": "Plantae"} for i in range(CLASSES)],
        }
        (root / f"{split}.json").write_text(json.dumps(content))
        (root / f"{split}.txt").write_text("".join(f"{file} {i % CLASSES}\n" for i, file in files.items()))
        first = root / files[start]
        first.parent.mkdir(parents=True, exist_ok=True)
        first.touch()
        start += count


def write_params(root: Path, suffix: str) -> None:
    values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    files = {"train": f"train.{suffix}", "val": None, "test": f"val.{suffix}"}
    values["data"] |= {"source": "inaturalist", "root": str(root), "files": files}
    values["data"] |= {"class_names": "categories.json", "verify": False}
    (root / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def measured(command: list[str], root: Path) -> tuple[str, str]:
    """Wall seconds and peak RSS of `command`, run in `root`."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=root, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)  # of this child alone
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"{command} failed")
    return f"{time.perf_counter() - start:.1f}", f"{usage.ru_maxrss / 1024:.0f}"


if __name__ == "__main__":
    main()
