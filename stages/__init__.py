"""One thin module a stage of dvc.yaml, run as `python -m stages.<name>`."""

import sys
from importlib.util import find_spec
from types import TracebackType


def _stopped_early(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while a stage still imports its libraries, before pipeline.stage.run listens: no traceback either."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped before it began: run `dvc repro` to go on", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _stopped_early
if find_spec("rich") is None:
    sys.exit(
        f"error: {sys.executable} has not the packages of this project; run `source .venv/bin/activate` first, or "
        "`make repro`"
    )
