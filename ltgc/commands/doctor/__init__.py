"""Is this machine ready for params.yaml? One line for each check, and what to do about each that fails.

    ltgc doctor
    ltgc doctor --try    # and one small paid request to each model server

Without --try it costs nothing. It downloads and loads nothing large and prints no key. The exit code is 1 if a
check fails.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial

from rich.markup import escape
from rich.table import Table

from ltgc.commands.doctor import machine, models, servers, storage, trial
from ltgc.pipeline import params
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params
from ltgc.pipeline.terminal import output

SERVERS = ("llm", "vision", "t2i")
# Each returns what it found, and raises LTGCError that says what to do.
CHECKS: dict[str, Callable[[Params], str]] = {
    "packages": machine.packages,
    "device": machine.device,
    "memory": machine.memory,
    "disk": storage.disk,
    "folders": storage.folders,
    "pool": storage.replies,
    "images": storage.images,
    **{f"key of {name}": partial(servers.key, name) for name in SERVERS},
    **{f"server of {name}": partial(servers.answers, name) for name in SERVERS},
    "prices": servers.prices,
    "prompts": storage.prompt_files,
    "tracing": servers.tracing,
    "CLIP": models.clip_model,
    "local T2I": models.t2i_model,
    "DVC remote": storage.remote,
}
TRIALS: dict[str, Callable[[Params], str]] = {f"try {name}": partial(trial.ask, name) for name in SERVERS} | {
    "try filter": trial.ask_features
}
SECTIONS = (
    *("data", "servers", "llm", "vision", "t2i", "clip"),
    *("extend", "templates", "filter", "train", "evaluate", "ask", "budget", "prices"),
)


def diagnose(settings: Params, checks: Mapping[str, Callable[[Params], str]]) -> list[tuple[str, bool, str]]:
    """(check, whether it passed, what was found or what to do) of every check."""
    found = []
    for name, check in checks.items():
        try:
            found.append((name, True, check(settings)))
        except LTGCError as error:
            found.append((name, False, str(error)))
    return found


def main(try_models: bool = False) -> None:
    found = diagnose(params.load(*SECTIONS), CHECKS | (TRIALS if try_models else {}))
    table = Table(show_header=False, box=None)
    for name, passed, text in found:
        mark = "[yellow]![/]" if isinstance(text, servers.Warning) else "[green]✓[/]" if passed else "[red]✗[/]"
        table.add_row(mark, name, escape(text))
    output().print(table)
    if not all(passed for _, passed, _ in found):
        sys.exit(1)
