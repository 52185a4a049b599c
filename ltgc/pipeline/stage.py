"""Running a stage: every error a user can mend becomes one line, and Ctrl-C ends it within two seconds."""

import errno
import json
import multiprocessing
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, NoReturn

from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.terminal import _escape, console

# What each stage took, for the report alone: in no DVC stage and not in git, as a clock gives no same bytes twice.
TIMINGS = Path("timings.jsonl")
# Seconds that a stage has to clean up after Ctrl-C. A large model in the middle of an image would take minutes;
# nothing is lost by leaving it (docs/durability.md).
PATIENCE = 1.5
# What the disk says, and what a user does about it.
DISK = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "the file system or your limits (ulimit -f) take no larger file",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it yours (chown, chmod)",
    errno.EPERM: "make it yours (chown, chmod)",
}


def run(main: Callable[..., None]) -> None:
    """Call `main` with the command line's arguments.

    LTGCError, and a disk that is full or not writable, print as one line, exit code 1. SIGINT (Ctrl-C) and SIGTERM
    say how to go on, exit code 130. Anything else is a bug and keeps its traceback.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    started = monotonic()
    try:
        main(*sys.argv[1:])
        _note(monotonic() - started)
    except LTGCError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in DISK:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror}; {DISK[error.errno]} and run `dvc repro`: what was paid for is kept")
    except KeyboardInterrupt:
        _leave()


def timings() -> list[dict[str, Any]]:
    """What was noted of the stages that ran here: stage, args, seconds, machine, finished (UTC); oldest first."""
    if not TIMINGS.exists():
        return []
    return [json.loads(line) for line in TIMINGS.read_text(encoding="utf-8").splitlines()]


def _note(seconds: float) -> None:
    """Append what the stage took, imports apart. Commands that are no stage and helper processes note nothing."""
    script = Path(sys.argv[0])
    if script.parent.name != "stages" or os.environ.get("RANK", "0") != "0":
        return
    torch = sys.modules.get("torch")  # not imported for this: it takes two seconds
    gpu = f", {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else ""
    entry = {
        "stage": script.stem,
        "args": sys.argv[1:],
        "seconds": round(seconds, 1),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{gpu}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with TIMINGS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")  # one write: stages that end together do not mix their lines


def _fail(message: str) -> NoReturn:
    console.print(f"[bold red]error:[/] {_escape(message)}", soft_wrap=True)
    sys.exit(1)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Ends the stage from wherever it is; a second Ctrl-C changes nothing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    patience = threading.Timer(PATIENCE, _leave)
    patience.daemon = True
    patience.start()
    raise KeyboardInterrupt


def _leave() -> NoReturn:
    console.print("stopped; what was paid for is kept: run `dvc repro` to go on")
    sys.stderr.flush()
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(130)  # worker threads may be in the middle of something long, and their tracebacks say nothing
