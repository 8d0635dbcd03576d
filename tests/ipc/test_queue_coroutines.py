"""Coroutines use queues together with other processes."""
import asyncio
import multiprocessing
import queue as standard
import time

import pytest

from pyconc.multiprocessing.queues import JoinableQueue, Queue

context = multiprocessing.get_context("fork")


def double(there, back):
    for number in iter(there.get, None):
        back.put(2 * number)
    back.put(None)


def test_a_coroutine_and_a_process():
    there, back = Queue(), Queue()
    child = context.Process(target=double, args=(there, back))
    child.start()

    async def main():
        for i in range(200):
            await there.put_async(i)
            assert await back.get_async() == 2 * i
        await there.put_async(None)
        assert await back.get_async() is None

    asyncio.run(main())
    child.join()


def put_late(queue):
    time.sleep(0.2)
    queue.put_many(range(10))


def test_several_coroutines_wait():
    queue = Queue()
    child = context.Process(target=put_late, args=(queue,))

    async def main():
        child.start()
        return await asyncio.gather(*(queue.get_async() for _ in range(10)))

    assert sorted(asyncio.run(main())) == list(range(10))
    child.join()


def take_late(queue, count):
    time.sleep(0.2)
    for _ in range(count):
        queue.get()


def test_a_coroutine_waits_for_space():
    queue = Queue(maxsize=2)
    queue.put_many([1, 2])
    child = context.Process(target=take_late, args=(queue, 4))

    async def main():
        child.start()
        await asyncio.gather(queue.put_async(3), queue.put_async(4))

    asyncio.run(main())
    child.join()
    assert queue.empty()


def do_late(queue):
    time.sleep(0.2)
    for _ in range(3):
        queue.get()
        queue.task_done()


def test_a_coroutine_waits_for_tasks():
    queue = JoinableQueue()
    queue.put_many("abc")
    child = context.Process(target=do_late, args=(queue,))

    async def main():
        assert not await queue.join_async(0.01)
        child.start()
        assert await queue.join_async()

    asyncio.run(main())
    child.join()


def test_timeouts_and_cancelling_take_nothing():
    queue, full = Queue(), Queue(maxsize=1)
    full.put(0)

    async def main():
        with pytest.raises(standard.Empty):
            await queue.get_async(timeout=0.05)
        with pytest.raises(standard.Empty):
            await queue.get_many_async(timeout=0.05)
        with pytest.raises(standard.Full):
            await full.put_async(1, timeout=0.05)
        waiting = [asyncio.create_task(queue.get_async()) for _ in range(3)]
        await asyncio.sleep(0.05)
        for task in waiting[:2]:
            task.cancel()
        queue.put_many([1, 2])
        assert await waiting[2] in (1, 2)
        assert await queue.get_many_async() in ([1], [2])
        assert await asyncio.gather(*waiting[:2], return_exceptions=True)

    asyncio.run(main())
    assert queue.empty()
