"""Running a stage: every error that a user can correct is one line, and Ctrl-C ends it within two seconds."""

import errno
import inspect
import json
import multiprocessing
import os
import platform
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ltgc.pipeline import timing
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.terminal import _escape, console

# What each stage and each training run took, for the report and the costs of methods. Neither DVC nor git tracks
# it, as no two runs take the same time.
TIMINGS = Path("timings.jsonl")
# Seconds that a stage has to clean up after Ctrl-C. A large model in the middle of an image would take minutes;
# nothing is lost by leaving it (docs/sharing.md).
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
    """Call the `main` of a stage with the command line's arguments; for --help print the module's docstring."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print((sys.modules[main.__module__].__doc__ or "").strip())
        return
    with one_line_errors():
        try:
            inspect.signature(main).bind(*arguments)
        except TypeError as error:
            command = f"python -m stages.{Path(sys.argv[0]).stem}"
            raise LTGCError(f"{command} {' '.join(arguments)}: {error}; see `{command} --help`") from error
        main(*arguments)
        _note(timing.process_seconds(), timing.steps.seconds)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Run what is inside so that a user sees one line of each error.

    LTGCError, and a disk that is full or not writable, print as one line, exit code 1. SIGINT (Ctrl-C) and SIGTERM
    say how to go on, exit code 130. Anything else is a bug and keeps its traceback.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        yield
    except LTGCError as error:
        fail(str(error))
    except OSError as error:
        if error.errno not in DISK:
            raise
        file = f"{error.filename}: " if error.filename else ""
        fail(f"{file}{error.strerror}; {DISK[error.errno]} and run `dvc repro`: what was paid for is kept")
    except KeyboardInterrupt:
        _leave()


def is_main_process() -> bool:
    """Of the processes that `accelerate launch` may have started, the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def timings() -> list[dict[str, Any]]:
    """The runs of stages on this machine, oldest first.

    stage, args, seconds, in_steps and computing (seconds), machine, finished.
    """
    return [entry for entry in _noted() if "stage" in entry]


def note_run(run: Sequence[str | int], key: str, seconds: float) -> None:
    """Append the time of one training run, which is within that of its stage. run: method and seed.

    A run that went on from a checkpoint has the time from there.
    """
    _append({"run": list(run), "key": key, "seconds": round(seconds, 1)})


def run_seconds() -> dict[str, float]:
    """Key of a training run (Run.key) -> its seconds, as far as they were noted here."""
    return {entry["key"]: entry["seconds"] for entry in _noted() if "run" in entry}


def copy_run_timings(source: Path, folder: Path) -> None:
    """Append to the timings of `folder` those of training runs in `source` that it does not have."""
    known = set(_lines(folder / TIMINGS))
    new = [line for line in _lines(source / TIMINGS) if line not in known and "run" in json.loads(line)]
    with (folder / TIMINGS).open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in new)


def _noted() -> list[dict[str, Any]]:
    return [json.loads(line) for line in _lines(TIMINGS)]


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _note(seconds: float, in_steps: float) -> None:
    """Append the time that a stage took, its imports included. Commands and helper processes append nothing."""
    script = Path(sys.argv[0])
    if script.parent.name != "stages" or not is_main_process():
        return
    if in_steps:
        console.print(
            f"{script.stem}: {seconds:.0f} s, {in_steps:.0f} s of them in steps ({in_steps / seconds:.0%})"
        )
    entry = {
        "stage": script.stem,
        "args": sys.argv[1:],
        "seconds": round(seconds, 1),
        "in_steps": round(in_steps, 1),
        "computing": round(sum(os.times()[:4]), 1),  # CPU seconds, with those of processes that have ended
    }
    _append(entry)


def _append(entry: dict[str, Any]) -> None:
    torch = sys.modules.get("torch")  # not imported for this: it takes two seconds
    gpu = f", {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else ""
    where = {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{gpu}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with TIMINGS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry | where) + "\n")  # one write: stages that end together do not mix their lines


def fail(message: str, code: int = 1) -> NoReturn:
    """Print the one line of an error and end with this exit code."""
    console.print(f"[bold red]error:[/] {_escape(message)}", soft_wrap=True)
    sys.exit(code)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Ends the stage from wherever it is; a second Ctrl-C changes nothing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # of what it is stopped in the middle of
    patience = threading.Timer(PATIENCE, _leave)
    patience.daemon = True
    patience.start()
    raise KeyboardInterrupt


def _leave() -> NoReturn:
    console.print("stopped; what was paid for is kept: run `dvc repro` to go on")
    sys.stderr.flush()
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(130)  # worker threads may be busy for long, and their tracebacks would say nothing
