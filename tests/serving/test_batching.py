"""Several callers, one thread: what waits is done together, and what is late is not done."""

import asyncio
import gc
import threading
import time
import weakref

import pytest

from bridgeact_jax.serving.batching import Batcher, Late


def run(process, largest, conversation):
    async def main():
        batcher = Batcher(process, largest)
        try:
            return await conversation(batcher)
        finally:
            await asyncio.to_thread(batcher.close)

    return asyncio.run(main())


def soon():
    return time.monotonic() + 20


def test_what_waits_is_done_together_in_order_and_in_one_thread():
    batches, threads = [], set()

    def process(items):
        threads.add(threading.get_ident())
        batches.append(list(items))
        time.sleep(0.05)
        return [10 * item for item in items]

    async def conversation(batcher):
        first = asyncio.ensure_future(batcher.submit(0, soon()))
        await asyncio.sleep(0.02)
        rest = [batcher.submit(item, soon()) for item in range(1, 7)]
        return [await first, *await asyncio.gather(*rest)]

    assert run(process, 4, conversation) == [0, 10, 20, 30, 40, 50, 60]
    assert batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_what_is_late_is_said_and_what_has_not_begun_is_never_done():
    done = []

    def process(items):
        done.extend(items)
        time.sleep(0.2)
        return items

    async def conversation(batcher):
        slow = asyncio.ensure_future(batcher.submit("slow", soon()))
        await asyncio.sleep(0.02)
        begun = time.monotonic()
        with pytest.raises(Late):
            await batcher.submit("waits too long", begun + 0.05)
        assert time.monotonic() - begun < 0.15
        assert await slow == "slow"
        with pytest.raises(Late):
            await batcher.submit("takes too long", time.monotonic() + 0.05)
        return await batcher.submit("in time", soon())

    assert run(process, 1, conversation) == "in time"
    assert done == ["slow", "takes too long", "in time"]


def test_a_caller_that_is_cancelled_leaves_nothing_behind():
    done = []

    def process(items):
        done.extend(items)
        time.sleep(0.05)
        return items

    async def conversation(batcher):
        first = asyncio.ensure_future(batcher.submit("first", soon()))
        await asyncio.sleep(0.02)
        gone = asyncio.ensure_future(batcher.submit("gone", soon()))
        await asyncio.sleep(0)
        gone.cancel()
        await first
        await batcher.submit("next", soon())

    run(process, 1, conversation)
    assert done == ["first", "next"]


def test_an_error_goes_to_its_caller_or_if_it_is_everybodys_to_all():
    def process(items):
        if "all" in items:
            raise RuntimeError("broken")
        return [ValueError(item) if item == "bad" else item for item in items]

    async def conversation(batcher):
        results = await asyncio.gather(
            *(batcher.submit(item, soon()) for item in ("good", "bad")), return_exceptions=True
        )
        with pytest.raises(RuntimeError, match="broken"):
            await batcher.submit("all", soon())
        return [*results, await batcher.submit("after", soon())]

    good, bad, after = run(process, 8, conversation)
    assert good == "good" and isinstance(bad, ValueError) and after == "after"


def test_a_mistake_keeps_nothing_of_what_was_sent():
    """Without the garbage collector: an error that its own frame knows would keep megabytes."""

    class Item:
        pass

    async def conversation(batcher):
        item = Item()
        kept = weakref.ref(item)
        with pytest.raises(ValueError):
            await batcher.submit(item, soon())
        del item
        await batcher.submit("next", soon())  # the thread has let go of the batch before
        return kept()

    def process(items):
        return [ValueError("no") if isinstance(item, Item) else item for item in items]

    gc.collect()
    gc.disable()
    try:
        assert run(process, 1, conversation) is None
    finally:
        gc.enable()
