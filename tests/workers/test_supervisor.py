"""The threads of a pool, by themselves."""
import threading

from pyconc._ipc import Channel
from pyconc.concurrent.futures._base import TaskFuture
from pyconc.workers.supervisor import Collector

LIMIT = 60


def answered(channel, callback):
    """A Future whose result is there, but not collected. This process is its own worker."""
    future = TaskFuture(channel, None)
    future.add_done_callback(callback)
    assert channel.send(future, b"", (), {})
    channel.reply(channel.take(0)[0], "result")
    return future


def collector_of(channel):
    return Collector(channel, lambda: channel.collect() is not None)


def test_callbacks_that_are_deferred_when_the_collector_has_ended():
    """Another thread calls them: whoever waits may hold a lock that they want."""
    channel, lock, called = Channel(1), threading.Lock(), threading.Event()

    def callback(future):
        with lock:
            called.set()

    collector = collector_of(channel)
    collector.start()
    collector.stop()
    collector.join(LIMIT)
    future = answered(channel, callback)
    with lock:
        assert future.result(LIMIT) == "result"
    assert called.wait(LIMIT)


def test_callbacks_that_are_deferred_when_no_thread_can_be_started(monkeypatch):
    """As at the interpreter's exit: whoever has the result calls them."""
    def start(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    channel, called = Channel(1), []
    collector = collector_of(channel)
    collector.start()
    collector.stop()
    collector.join(LIMIT)
    monkeypatch.setattr(threading.Thread, "start", start)
    assert answered(channel, lambda future: called.append(future.result())).result(LIMIT) == "result"
    assert called == ["result"]


def test_callbacks_that_are_deferred_while_the_collector_ends():
    """Because it has been calling another one since."""
    channel, calls, goes_on, called = Channel(2), threading.Event(), threading.Event(), threading.Event()

    def first(future):
        calls.set()
        goes_on.wait(LIMIT)

    collector = collector_of(channel)
    answered(channel, first)
    collector.start()
    assert calls.wait(LIMIT)
    assert answered(channel, lambda future: called.set()).result(LIMIT) == "result"
    assert not called.is_set()
    collector.stop()
    goes_on.set()
    collector.join(LIMIT)
    assert called.wait(LIMIT)
