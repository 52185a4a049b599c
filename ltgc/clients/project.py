"""Whose money a call spends: the project, and the experiment of it."""

import os
import subprocess
from pathlib import Path

from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import BudgetSettings


def name(caps: BudgetSettings) -> str:
    """What the ledger counts as one project: all clones, temporary copies and branches of one repository.

    That is budget.project, or the first commit of the repository, which all of them share. Raises LTGCError where
    a cap is set and the first commit is not known: what the project has spent would begin at zero.
    """
    if caps.project:
        return caps.project
    shallow = _git("rev-parse", "--is-shallow-repository") == "true"
    first = None if shallow else _git("rev-list", "--max-parents=0", "--first-parent", "HEAD")
    if first:
        return first
    capped = caps.max_usd is not None or caps.max_calls is not None
    if capped and any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents)):
        why = "this clone is shallow" if shallow else "`git log` fails, or nothing is committed yet"
        remedy = "run `git fetch --unshallow`" if shallow else "correct that"
        raise LTGCError(
            f"budget.project: {why}, so the first commit is not known and nor is what the project has spent; "
            f"set a name for it, or {remedy}"
        )
    return f"folder {top()}"


def experiment() -> str:
    """DVC's name of the experiment, the folder of an ablation, or the branch."""
    if name := os.environ.get("DVC_EXP_NAME"):
        return name
    if (folder := Path.cwd().relative_to(top()).as_posix()) != ".":
        return folder
    return _git("rev-parse", "--abbrev-ref", "HEAD") or "no branch"


def top() -> Path:
    """The folder of the repository; the working directory where there is none."""
    found = _git("rev-parse", "--show-toplevel")
    return Path(found).resolve() if found else Path.cwd().resolve()


def _git(*arguments: str) -> str | None:
    """What git says; None where it fails, or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None
