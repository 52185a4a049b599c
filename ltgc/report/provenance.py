"""What is needed to run this again: versions, commit, hashes of the data, and what the stages took where."""

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from ltgc.pipeline import stage

LOCK = Path("dvc.lock")
# What the pipeline itself writes into git is no change to the code.
RESULTS = (":!dvc.lock", ":!metrics")


@dataclass(frozen=True)
class Rerun:
    versions: dict[str, str]
    commit: str | None  # None: no git repository
    changed: list[str]  # files under git that differ from the commit
    hashes: list[tuple[str, str, str]]  # stage, path, md5 as DVC has it
    timings: list[
        dict[str, Any]
    ]  # stage, runs, seconds, machine, finished: each stage's last runs on this machine


def collect() -> Rerun:
    """What can be known here. Only `timings` depends on the clock: the rest follows from the checkout."""
    return Rerun(versions(), _git("rev-parse", "HEAD"), _changed(), hashes(), timings())


def versions() -> dict[str, str]:
    """Python and what ltgc depends on directly."""
    names = sorted({re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in metadata.requires("ltgc") or ()})
    found = {"Python": sys.version.split()[0]}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # of an extra that is not installed
            continue
    return found


def hashes(lock: Path = LOCK) -> list[tuple[str, str, str]]:
    """The outputs of every stage but the report as dvc.lock has them. DVC locks a stage when it has run."""
    if not lock.exists():
        return []
    stages = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages", {})
    return [
        (name, out["path"], out["md5"])
        for name, entry in stages.items()
        if name != "report"
        for out in entry.get("outs", [])
        if "md5" in out
    ]


def timings() -> list[dict[str, Any]]:
    """The last runs of each stage on this machine, a stage of many (method, seed) runs as one row."""
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in stage.timings():
        last[entry["stage"], " ".join(entry["args"])] = entry
    rows: dict[str, dict[str, Any]] = {}
    for (name, _), entry in last.items():
        row = rows.setdefault(name, {"stage": name, "runs": 0, "seconds": 0.0, "machine": "", "finished": ""})
        row["runs"] += 1
        row["seconds"] += entry["seconds"]
        row["machine"], row["finished"] = entry["machine"], max(row["finished"], entry["finished"])
    return [row for name, row in rows.items() if name != "report"]


def _changed() -> list[str]:
    status = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *RESULTS)
    return [line[3:] for line in (status or "").splitlines()]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.rstrip("\n")
