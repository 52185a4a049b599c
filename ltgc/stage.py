"""Running a stage: every error a user can mend becomes one line and exit code 1."""

import os
import sys
from collections.abc import Callable

from rich.console import Console

from ltgc.errors import LTGCError

console = Console(stderr=True, highlight=False)


def run(main: Callable[..., None]) -> None:
    """Call `main` with the command line's arguments.

    LTGCError prints as one line, exit code 1. Ctrl-C says how to go on, exit code 130.
    Anything else is a bug and keeps its traceback.
    """
    try:
        main(*sys.argv[1:])
    except LTGCError as error:
        console.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped; what was paid for is kept: run `dvc repro` to go on")
        # A second Ctrl-C during interpreter shutdown would print tracebacks of worker threads.
        sys.stderr.flush()
        os._exit(130)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
