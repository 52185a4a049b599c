"""Gathering what concurrent graphs ask of one model into batches."""

import asyncio
import threading
from collections.abc import Sequence
from itertools import pairwise

import pytest

from ltgc.pipeline.batching import Batcher

NEVER = 3600.0  # seconds


class Doubler:
    """A model that doubles numbers, notes its batches, and runs each one when it is let."""

    def __init__(self, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self.let = threading.Semaphore(0) if held else None

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.release()
        if self.let:
            self.let.acquire()
        if 13 in items:
            raise ValueError("thirteen")
        return [2 * item for item in items]


async def ask(batcher: Batcher[int, int], items: Sequence[int]) -> list[int | BaseException]:
    async with asyncio.timeout(30):  # a waiter that is forgotten fails the test
        return await asyncio.gather(*map(batcher, items), return_exceptions=True)


async def started(model: Doubler) -> None:
    await asyncio.to_thread(model.started.acquire)


def test_a_thousand_waiters_get_their_own_results_in_full_batches() -> None:
    model = Doubler()
    batcher = Batcher(model, size=25, wait=NEVER)
    assert asyncio.run(ask(batcher, range(1000, 2000))) == list(range(2000, 4000, 2))
    assert [len(batch) for batch in model.batches] == [25] * 40
    assert all(a < b for batch in model.batches for a, b in pairwise(batch))


def test_a_batch_that_does_not_fill_starts_when_its_first_item_has_waited_long_enough() -> None:
    model = Doubler()
    batcher = Batcher(model, size=100, wait=0.005)
    assert asyncio.run(ask(batcher, [1, 2, 3])) == [2, 4, 6]
    assert model.batches == [[1, 2, 3]]


def test_one_batcher_serves_one_event_loop_after_another() -> None:
    batcher = Batcher(Doubler(), size=2, wait=0.005)
    for _ in range(3):
        assert asyncio.run(ask(batcher, [1, 2, 3])) == [2, 4, 6]


def test_while_one_batch_runs_the_next_one_gathers() -> None:
    async def main() -> None:
        first = asyncio.create_task(batcher(1))
        await started(model)
        rest = asyncio.create_task(ask(batcher, [2, 3, 4]))
        await asyncio.sleep(0)
        model.let.release(10)
        assert [await first, *await rest] == [2, 4, 6, 8]

    model = Doubler(held=True)
    batcher = Batcher(model, size=10, wait=0)
    asyncio.run(main())
    assert model.batches == [[1], [2, 3, 4]]


def test_as_many_batches_run_at_once_as_asked_and_no_more() -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(batcher(i)) for i in range(3)]
        await started(model)
        await started(model)
        assert len(model.batches) == 2
        model.let.release(3)
        assert await asyncio.gather(*tasks) == [0, 2, 4]

    model = Doubler(held=True)
    batcher = Batcher(model, size=1, wait=NEVER, at_once=2)
    asyncio.run(main())


def test_what_the_model_raises_reaches_every_waiter_of_its_batch_and_no_other() -> None:
    answers = asyncio.run(ask(Batcher(Doubler(), size=2, wait=NEVER), [1, 2, 12, 13, 14, 15]))
    assert [str(answer) for answer in answers] == ["2", "4", "thirteen", "thirteen", "28", "30"]


def test_a_model_that_returns_too_few_results_is_an_error_and_not_a_hang() -> None:
    answers = asyncio.run(ask(Batcher(lambda items: items[1:], size=3, wait=NEVER), [1, 2, 3]))
    assert [type(answer) for answer in answers] == [ValueError] * 3


def test_a_cancelled_waiter_is_left_out_and_does_not_fill_a_batch() -> None:
    async def main() -> None:
        first = asyncio.create_task(batcher(1))
        await started(model)
        gone, stays = asyncio.create_task(batcher(2)), asyncio.create_task(batcher(3))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        last = asyncio.create_task(batcher(4))
        await asyncio.sleep(0)
        model.let.release(10)
        assert [await first, await stays, await last] == [2, 6, 8]

    model = Doubler(held=True)
    batcher = Batcher(model, size=2, wait=0)
    asyncio.run(main())
    assert model.batches == [[1], [3, 4]]


def test_a_waiter_cancelled_while_its_batch_runs_does_not_disturb_the_others() -> None:
    async def main() -> None:
        gone, stays = asyncio.create_task(batcher(1)), asyncio.create_task(batcher(2))
        await started(model)
        gone.cancel()
        await asyncio.wait([gone])
        model.let.release(10)
        assert await stays == 4

    model = Doubler(held=True)
    batcher = Batcher(model, size=2, wait=NEVER)
    asyncio.run(main())


@pytest.mark.parametrize("size", [1, 7])
def test_no_item_is_lost_when_batches_start_early(size: int) -> None:
    batcher = Batcher(Doubler(), size=size, wait=0, at_once=2)
    assert asyncio.run(ask(batcher, range(100, 200))) == list(range(200, 400, 2))
