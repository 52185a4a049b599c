"""Running thousands of small graphs at once, with one progress line a stage."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ltgc.errors import LTGCError
from ltgc.stage import console

AT_ONCE = 1000  # graphs under way; each waits most of its time for a server

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Tally:
    """What a stage has asked its servers so far."""

    asked: int = 0  # requests that were paid for in this run
    cached: int = 0  # requests whose reply was in the store
    tokens: int = 0  # of the requests paid for
    usd: float | None = 0.0  # of the requests paid for; None: a model has no price

    def spend(self, reply: dict[str, Any], usd: float | None) -> None:
        self.asked += 1
        self.tokens += reply.get("prompt_tokens", 0) + reply.get("completion_tokens", 0)
        self.usd = None if usd is None or self.usd is None else self.usd + usd

    def __str__(self) -> str:
        money = "price unknown" if self.usd is None else f"${self.usd:,.2f}"
        return f"{money}, {self.asked:,} calls, {self.tokens:,} tokens, {self.cached:,} from the store"


async def run_all(
    title: str, items: Sequence[T], work: Callable[[T], Awaitable[R]], tally: Tally, at_once: int = AT_ONCE
) -> list[R]:
    """`work` on every item, at most `at_once` at a time; the results in the order of `items`.

    The first exception cancels the rest and is raised as it is.
    """
    results: dict[int, R] = {}
    slots = asyncio.Semaphore(at_once)
    start = monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[tally]}"),
    )

    with (
        _rare_collections(),
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar,
    ):
        task = bar.add_task(title, total=len(items), rate="", tally="")

        async def one(i: int, item: T) -> None:
            try:
                results[i] = await work(item)
            finally:
                slots.release()
            rate = len(results) / max(monotonic() - start, 1e-9)
            bar.update(task, advance=1, rate=f"{rate:.1f}/s", tally=str(tally))

        try:
            async with asyncio.TaskGroup() as group:
                for i, item in enumerate(items):
                    await slots.acquire()
                    group.create_task(one(i, item))
        except BaseExceptionGroup as errors:
            # Of the failures at once, the one that a user can mend says most.
            mendable, rest = errors.split(LTGCError)
            raise _first(mendable or rest or errors) from None

    seconds = monotonic() - start
    console.print(f"{title}: {len(items):,} in {seconds:.0f} s ({len(items) / max(seconds, 1e-9):.1f}/s), {tally}")
    return [results[i] for i in range(len(items))]


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python's cycle collector run less often.

    A thousand graphs are alive at once, and the collector walks all that is alive again and again: by default
    that is a third of the CPU time, and more with more classes (`benchmarks/loops.py scale`: 22 -> 17 ms a
    class of 8,142). What it collects late did not show in the peak of memory.
    """
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _first(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors


def metrics(counts: Iterable[Counter[str]], *always: str) -> dict[str, Any]:
    """The counts of all graphs of a stage, for metrics/calls/<stage>.json; always: named also where 0.

    What the artifact needed is counted, whether it was paid for today or came from the store, so that a rerun
    writes the same file.
    """
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    summary: dict[str, Any] = dict.fromkeys(("calls", "prompt_tokens", "completion_tokens", *always), 0)
    summary |= {name: total[name] for name in sorted(total) if "/" not in name}
    summary["failures"] = {n.partition("/")[2]: total[n] for n in sorted(total) if n.startswith("failures/")}
    return summary
