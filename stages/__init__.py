"""One thin module a stage of dvc.yaml, run as `python -m stages.<name>`."""

import sys
from types import TracebackType


def _stopped_early(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while a stage still imports its libraries, before ltgc.stage.run listens: no traceback either."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped before it began: run `dvc repro` to go on", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _stopped_early
