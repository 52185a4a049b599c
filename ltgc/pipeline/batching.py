"""Batches of what thousands of concurrent graphs ask of one local model."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

X = TypeVar("X")
Y = TypeVar("Y")


class Batcher(Generic[X, Y]):
    """`await batcher(item)` is the item's result of `run(items)`, which is called with up to `size` items at once.

    A batch starts when it is full, or `wait` seconds after its first item came, as soon as one of the `at_once`
    threads is free; the next batch gathers in the meantime. `run` returns one result for each item, in order; an
    exception that it raises reaches everyone who waits for that batch. An item is left out if the one who waits
    for it was cancelled before the batch started.
    """

    def __init__(
        self, run: Callable[[Sequence[X]], Sequence[Y]], size: int, wait: float, at_once: int = 1
    ) -> None:
        self._run = run
        self._size = size
        self._wait = wait
        self._free = at_once
        # Threads of its own, always the same ones: torch keeps a team of workers for each thread that calls it.
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="batch")
        self._waiting: OrderedDict[asyncio.Future[Y], tuple[X, float]] = OrderedDict()  # item, when it came
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, item: X) -> Y:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Y] = loop.create_future()
        self._waiting[future] = (item, loop.time())
        if self._timer is None or len(self._waiting) >= self._size:
            self._start()
        try:
            return await future
        finally:  # cancelled, if it is still there
            if self._waiting.pop(future, None) and not self._waiting:
                self._stop_timer()

    def _start(self) -> None:
        """Start the batches that are full or due; come back when the next one is due."""
        self._stop_timer()
        loop = asyncio.get_running_loop()
        while self._waiting and self._free:
            _, came = next(iter(self._waiting.values()))
            left = came + self._wait - loop.time()
            if len(self._waiting) < self._size and left > 0:
                self._timer = loop.call_later(left, self._start)
                return
            batch = [self._waiting.popitem(last=False) for _ in range(min(self._size, len(self._waiting)))]
            self._free -= 1
            futures, items = [future for future, _ in batch], [item for _, (item, _) in batch]
            self._running.add(task := loop.create_task(self._finish(items, futures)))
            task.add_done_callback(self._running.discard)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None

    async def _finish(self, items: list[X], futures: list[asyncio.Future[Y]]) -> None:
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, items)
            for future, result in list(zip(futures, results, strict=True)):
                if not future.done():  # cancelled while its batch ran
                    future.set_result(result)
        except Exception as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        finally:
            self._free += 1
        self._start()
