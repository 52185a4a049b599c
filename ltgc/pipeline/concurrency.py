"""Running thousands of small graphs at once, with one progress line a stage."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.terminal import console

AT_ONCE = 1000  # graphs under way; each waits most of its time for a server

T = TypeVar("T")
R = TypeVar("R")


async def run_all(
    title: str, items: Sequence[T], work: Callable[[T], Awaitable[R]], tally: object, at_once: int = AT_ONCE
) -> list[R]:
    """`work` on every item, at most `at_once` at a time; the results in the order of `items`.

    The first exception cancels the rest and is raised as it is.
    """
    results: list[R] = []
    await run_each(title, items, len(items), work, results.append, tally, at_once)
    return results


async def run_each(
    title: str,
    items: Iterable[T],
    total: int,
    work: Callable[[T], Awaitable[R]],
    take: Callable[[R], None],
    tally: object,
    at_once: int = AT_ONCE,
) -> None:
    """`run_all` of `total` items that need not fit into memory together, nor their results.

    `take` is given the results one after another, in the order of `items`.
    """
    waiting: dict[int, R] = {}  # results whose turn has not come
    done = taken = 0
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
        task = bar.add_task(title, total=total, rate="", tally="")

        async def one(i: int, item: T) -> None:
            nonlocal done, taken
            try:
                waiting[i] = await work(item)
            finally:
                slots.release()
            while taken in waiting:
                take(waiting.pop(taken))
                taken += 1
            done += 1
            rate = done / max(monotonic() - start, 1e-9)
            bar.update(task, advance=1, rate=f"{rate:.1f}/s", tally=str(tally))

        try:
            async with asyncio.TaskGroup() as group:
                for i, item in enumerate(items):
                    await slots.acquire()
                    group.create_task(one(i, item))
        except BaseExceptionGroup as errors:
            # Of several failures at once, the one that a user can mend says most.
            mendable, rest = errors.split(LTGCError)
            raise _first(mendable or rest or errors) from None

    seconds = monotonic() - start
    console.print(f"{title}: {done:,} in {seconds:.0f} s ({done / max(seconds, 1e-9):.1f}/s), {tally}")


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python's cycle collector run less often.

    A thousand graphs are alive at once, and the collector walks everything alive again and again: by default that
    takes a third of the CPU time, and more with more classes (`benchmarks/loops.py scale`: 22 -> 17 ms a class of
    8,142). Collecting later did not raise the peak of memory.
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
