# SPDX-License-Identifier: MIT
"""loop.getaddrinfo() and getnameinfo(): no thread for numbers, threads of their own for names."""
import asyncio
import logging
import os
import socket
import threading
import types

import pytest

import pyconc
from pyconc.loop import resolve

STREAM, DGRAM, RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
NUMERIC = [
    ("127.0.0.1", 80, {}),
    ("127.0.0.1", "80", {"type": STREAM}),
    ("127.0.0.1", b"80", {"type": DGRAM}),
    ("127.0.0.1", None, {"family": socket.AF_INET, "type": RAW}),
    ("127.1", 1, {"type": STREAM}),
    ("0x7f000001", 1, {"type": STREAM}),
    (b"10.0.0.7", 65535, {"type": STREAM, "proto": socket.IPPROTO_TCP}),
    ("255.255.255.255", 0, {"flags": socket.AI_CANONNAME}),
    ("::1", 443, {"type": STREAM}),
    ("::ffff:1.2.3.4", 443, {"type": STREAM}),
    ("fe80::1%lo", 443, {"type": STREAM}),
    ("fe80::1%1", 443, {"type": DGRAM, "family": socket.AF_INET6}),
    (b"::", "0", {"type": STREAM, "flags": socket.AI_PASSIVE}),
    (None, 80, {"type": STREAM}),
    (None, "80", {"type": STREAM, "flags": socket.AI_PASSIVE}),
    ("127.0.0.1", 70000, {"type": STREAM}),
]
WRONG = [
    ("127.0.0.1", 1, {"family": socket.AF_INET6, "type": STREAM}),
    ("::1", 1, {"family": socket.AF_INET}),
    ("127.0.0.1", 1, {"family": 999}),
    ("127.0.0.1", 1, {"type": STREAM, "proto": socket.IPPROTO_UDP}),
    (None, None, {}),
    (12, 80, {}),
    ("127.0.0.1", 1.5, {}),
    ("1.2.3.4\0", 1, {}),
    ("127.0.0.1", "no such service", {}),
    ("", 80, {}),
    ("a" * 70, 80, {}),
    ("7" * 70, 80, {}),
]


def outcome(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)


def ask(call, *args):
    """What a coroutine of a loop gives, and whether the loop had to make threads for it."""
    async def main():
        try:
            return await call(asyncio.get_running_loop(), *args)
        except Exception as error:
            return type(error), str(error)

    loop = pyconc.new_event_loop()
    try:
        return loop.run_until_complete(main()), loop._resolver is not None
    finally:
        loop.close()


@pytest.mark.parametrize("host, port, kwargs", NUMERIC, ids=str)
def test_numeric_address_needs_no_thread(host, port, kwargs):
    found, threads = ask(lambda loop: loop.getaddrinfo(host, port, **kwargs))
    assert found == outcome(socket.getaddrinfo, host, port, **kwargs)
    assert not threads


@pytest.mark.parametrize("host, port, kwargs", WRONG, ids=str)
def test_bad_arguments_raise_what_socket_raises(host, port, kwargs):
    found, _ = ask(lambda loop: loop.getaddrinfo(host, port, **kwargs))
    assert found == outcome(socket.getaddrinfo, host, port, **kwargs)


@pytest.mark.parametrize("host, port", [("localhost", 80), ("localhost", "http"), ("127.0.0.1", "https"),
                                        (b"localhost", 80), (None, "http")])
def test_names_are_looked_up_in_threads(host, port):
    found, threads = ask(lambda loop: loop.getaddrinfo(host, port, type=STREAM))
    assert found == outcome(socket.getaddrinfo, host, port, type=STREAM)
    assert threads


def test_localhost_is_known_until_the_systems_files_change(tmp_path, monkeypatch):
    hosts = tmp_path / "hosts"
    hosts.write_text("one")
    monkeypatch.setattr(resolve, "SYSTEM_FILES", (str(hosts), "/nowhere"))
    asked = []
    real = resolve._socket.getaddrinfo
    fake = types.SimpleNamespace(getaddrinfo=lambda *args: asked.append(args) or real(*args))
    monkeypatch.setattr(resolve, "_socket", fake)

    async def main():
        loop = asyncio.get_running_loop()
        expected = socket.getaddrinfo("localhost", 80, type=STREAM)
        for _ in range(3):
            found = await loop.getaddrinfo("localhost", 80, type=STREAM)
            assert found == expected
            found.clear()   # the caller's own
        assert len(asked) == 1
        assert await loop.getaddrinfo("localhost", 81, type=STREAM) == socket.getaddrinfo("localhost", 81, type=STREAM)
        assert len(asked) == 2
        hosts.write_text("and two")
        assert await loop.getaddrinfo("localhost", 80, type=STREAM) == expected
        assert len(asked) == 3
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", lambda *args: ["somebody else's"])
            assert await loop.getaddrinfo("localhost", 80, type=STREAM) == ["somebody else's"]
        assert await loop.getaddrinfo("localhost", 80, type=STREAM) == expected
        for port in range(300):
            await loop.getaddrinfo("localhost", port, type=STREAM)
        assert len(loop._localhost[1]) <= 100

    with asyncio.Runner(debug=False, loop_factory=pyconc.new_event_loop) as runner:
        runner.run(main())


def test_debug_gives_the_same_and_logs(caplog):
    caplog.set_level(logging.DEBUG, logger="asyncio")
    loop = pyconc.new_event_loop()
    loop.set_debug(True)
    try:
        for host in "127.0.0.1", "localhost":
            found = loop.run_until_complete(loop.getaddrinfo(host, 80, type=STREAM))
            assert found == socket.getaddrinfo(host, 80, type=STREAM)
            assert f"Getting address info {host}:80, type=" in caplog.text
    finally:
        loop.close()


def test_slow_lookup_is_reported_in_debug_mode(caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="asyncio")
    loop = pyconc.new_event_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    try:
        loop.run_until_complete(loop.getaddrinfo("localhost", 80))
    finally:
        loop.close()
    assert [r for r in caplog.records if r.levelno == logging.INFO and "took" in r.getMessage()]


@pytest.mark.parametrize("address", [("127.0.0.1", 80), ("::1", 80, 0, 0), ("fe80::1", 80, 0, 1)])
def test_numeric_getnameinfo_needs_no_thread(address):
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    found, threads = ask(lambda loop: loop.getnameinfo(address, flags))
    assert found == socket.getnameinfo(address, flags)
    assert not threads


def test_getnameinfo():
    found, threads = ask(lambda loop: loop.getnameinfo(("127.0.0.1", 80)))
    assert found == socket.getnameinfo(("127.0.0.1", 80), 0)
    assert threads
    for bad in ("127.0.0.1",), ("no number", 80), 5, ("127.0.0.1", 80, 1 << 22):
        for flags in 0, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV:
            found, _ = ask(lambda loop, *args: loop.getnameinfo(*args), bad, flags)
            assert found == outcome(socket.getnameinfo, bad, flags)


@pytest.fixture
def stuck(monkeypatch):
    """A name server that does not answer: lookups of the name "stuck" wait until the test ends."""
    real, asked, answer = socket.getaddrinfo, threading.Semaphore(0), threading.Event()

    def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
        if host == "stuck":
            asked.release()
            answer.wait()
            host = "127.0.0.1"
        return real(host, port, family, type, proto, flags)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    answer.set()


def test_busy_default_executor_does_not_delay_a_lookup():
    async def main():
        loop = asyncio.get_running_loop()
        release = threading.Event()
        busy = [loop.run_in_executor(None, release.wait) for _ in range(100)]
        try:
            async with asyncio.timeout(60):
                return await loop.getaddrinfo("localhost", 80, type=STREAM)
        finally:
            release.set()
            await asyncio.gather(*busy)

    with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
        assert runner.run(main()) == socket.getaddrinfo("localhost", 80, type=STREAM)


def test_slow_lookups_do_not_delay_the_default_executor(stuck):
    async def main():
        loop = asyncio.get_running_loop()
        lookups = [asyncio.ensure_future(loop.getaddrinfo("stuck", 80)) for _ in range(50)]
        async with asyncio.timeout(60):
            assert await loop.run_in_executor(None, lambda: 7) == 7
            assert await loop.getaddrinfo("127.0.0.1", 80)
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)

    with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
        runner.run(main())


def test_cancelled_lookup(stuck):
    async def main():
        loop = asyncio.get_running_loop()
        lookup = asyncio.ensure_future(loop.getaddrinfo("stuck", 80))
        await asyncio.sleep(0)
        stuck.acquire()
        lookup.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lookup
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await loop.create_connection(asyncio.Protocol, "stuck", 80)

    with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
        runner.run(main())


def test_close_during_a_lookup(stuck, caplog):
    loop = pyconc.new_event_loop()
    loop.set_debug(False)       # which tells of a machine that stalls
    lookup = loop.create_task(loop.getaddrinfo("stuck", 80))
    loop.call_soon(lambda: loop.call_soon(loop.stop))
    loop.run_forever()
    stuck.acquire()
    lookup.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert lookup.cancelled()
    assert not caplog.records


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_lookup_in_a_forked_child():
    """The child's own loop has its own threads: nothing waits for the parent's."""
    async def main():
        loop = asyncio.get_running_loop()
        await loop.getaddrinfo("localhost", 80)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                asyncio._set_running_loop(None)
                with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
                    runner.get_loop()
                    found = runner.run(look())
                status = 0 if found else 1
            finally:
                os._exit(status)
        async with asyncio.timeout(60):
            while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
                await asyncio.sleep(0.01)
        return ended[1]

    async def look():
        async with asyncio.timeout(60):
            return await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
        assert runner.run(main()) == 0


def test_no_thread_is_left():
    async def main():
        await asyncio.gather(*[asyncio.get_running_loop().getaddrinfo("localhost", 80) for _ in range(20)])

    before = threading.active_count()
    for _ in range(5):
        with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
            runner.run(main())
    for thread in threading.enumerate():
        if thread.name.startswith("pyconc-dns"):
            thread.join(30)
    assert threading.active_count() <= before
