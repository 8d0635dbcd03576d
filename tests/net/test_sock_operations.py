# SPDX-License-Identifier: MIT
"""loop.sock_*() on real sockets."""
import array
import asyncio
import collections.abc
import contextlib
import errno
import gc
import hashlib
import os
import random
import select
import socket
import ssl
import threading
import warnings
import weakref

import pytest

import pyconc

LOCAL = ("127.0.0.1", 0)
pyconc.new_event_loop().close()     # libuv opens a pipe with the first loop of a process, and keeps it
FACTORIES = [pyconc.new_event_loop, asyncio.new_event_loop]


def run(main, factory=pyconc.new_event_loop, **kwargs):
    with asyncio.Runner(loop_factory=factory, **kwargs) as runner:
        return runner.run(main)


@contextlib.contextmanager
def pair(family=socket.AF_UNIX, kind=socket.SOCK_STREAM):
    if family == socket.AF_UNIX:
        left, right = socket.socketpair(family, kind)
    else:
        with socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family) as server:
            left = socket.create_connection(server.getsockname()[:2])
            right, _ = server.accept()
    left.setblocking(False)
    right.setblocking(False)
    with left, right:
        yield left, right


@contextlib.contextmanager
def datagram_pair(family=socket.AF_INET):
    socks = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
    with socks[0], socks[1]:
        for i, sock in enumerate(socks):
            sock.setblocking(False)
            sock.bind(f"\0pyconc-{os.getpid()}-{i}" if family == socket.AF_UNIX
                      else ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        yield socks


async def turns(count=3):
    for _ in range(count):
        await asyncio.sleep(0)


async def waiting(coroutine):
    """A task that has come to wait."""
    task = asyncio.ensure_future(coroutine)
    await turns()
    assert not task.done()
    return task


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, 60)


STREAMS = [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6]
DATAGRAMS = [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6]


# ---- streams


@pytest.mark.parametrize("family", STREAMS)
def test_recv(family, no_leaked_fds):
    async def main():
        loop = asyncio.get_running_loop()
        with pair(family) as (left, right):
            left.send(b"there already")
            assert await loop.sock_recv(right, 5) == b"there"
            assert await loop.sock_recv(right, 100) == b" already"
            task = await waiting(loop.sock_recv(right, 100))
            left.send(b"later")
            assert await soon(task) == b"later"
            assert await loop.sock_recv(right, 0) == b""
            left.close()
            assert await loop.sock_recv(right, 100) == b""
            assert await loop.sock_recv(right, 100) == b""
    run(main())


def test_recv_more_than_a_buffer():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            data = os.urandom(3_000_000)
            sending = asyncio.create_task(loop.sock_sendall(left, data))
            got = b""
            while len(got) < len(data):
                got += await soon(loop.sock_recv(right, 1_000_000))
            await sending
            assert got == data
    run(main())


@pytest.mark.parametrize("make", [bytearray, lambda n: memoryview(bytearray(n)), lambda n: array.array("I", bytes(n))])
def test_recv_into(make):
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            buffer = make(8)
            left.send(b"12345")
            assert await loop.sock_recv_into(right, buffer) == 5
            assert bytes(buffer)[:5] == b"12345"
            task = await waiting(loop.sock_recv_into(right, buffer))
            left.send(b"abcdefghij")
            assert await soon(task) == 8
            assert bytes(buffer) == b"abcdefgh"
    run(main())


def test_a_buffer_that_waits_is_not_locked():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            buffer = bytearray(8)
            task = await waiting(loop.sock_recv_into(right, buffer))
            del buffer[4:]
            left.send(b"abcdefgh")
            assert await soon(task) == 4 and buffer == b"abcd"
    run(main())


@pytest.mark.parametrize("family", STREAMS)
@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: array.array("I", data)])
def test_sendall(family, make):
    async def main():
        loop = asyncio.get_running_loop()
        with pair(family) as (left, right):
            assert await loop.sock_sendall(left, make(b"")) is None
            left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)   # or the kernel may take all of it
            data = os.urandom(4_000_000)
            task = await waiting(loop.sock_sendall(left, make(data)))
            got = hashlib.sha256()
            left_over = len(data)
            while left_over:
                part = await soon(loop.sock_recv(right, 65536))
                got.update(part)
                left_over -= len(part)
            assert await soon(task) is None
            assert got.digest() == hashlib.sha256(data).digest()
    run(main())


def test_sendall_to_nobody():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
            task = await waiting(loop.sock_sendall(left, bytes(4_000_000)))
            right.close()
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                await soon(task)
            with pytest.raises(BrokenPipeError):
                await loop.sock_sendall(left, b"x")
    run(main())


@pytest.mark.parametrize("family", STREAMS)
@pytest.mark.parametrize("seed", range(3))
def test_random_sizes_both_ways(family, seed):
    """Edges must not be lost, whatever the sizes of reads and writes."""
    rng = random.Random(seed)

    async def send(loop, sock, data):
        at = 0
        while at < len(data):
            n = rng.choice([1, 10, 1000, 65536, 500_000])
            await loop.sock_sendall(sock, data[at:at + n])
            at += n
            if rng.random() < 0.2:
                await turns(rng.randrange(4))

    async def receive(loop, sock, size):
        got = bytearray()
        buffer = bytearray(70_000)
        while len(got) < size:
            if rng.random() < 0.5:
                got += await soon(loop.sock_recv(sock, rng.choice([1, 7, 4096, 1 << 18])))
            else:
                n = await soon(loop.sock_recv_into(sock, memoryview(buffer)[:rng.randrange(1, 70_000)]))
                got += buffer[:n]
        return bytes(got)

    async def main():
        loop = asyncio.get_running_loop()
        with pair(family) as (left, right):
            there, back = rng.randbytes(700_000), rng.randbytes(900_000)
            results = await asyncio.gather(send(loop, left, there), receive(loop, left, len(back)),
                                           send(loop, right, back), receive(loop, right, len(there)))
            assert results == [None, back, None, there]
    run(main())


@pytest.mark.parametrize("family", STREAMS)
def test_end_of_file_right_behind_data(family):
    async def main():
        loop = asyncio.get_running_loop()
        for together in (False, True):
            with pair(family) as (left, right):
                task = await waiting(loop.sock_recv(right, 100))
                left.send(b"last")
                if together:
                    left.shutdown(socket.SHUT_WR)
                assert await soon(task) == b"last"
                if not together:
                    task = await waiting(loop.sock_recv(right, 100))
                    left.shutdown(socket.SHUT_WR)
                    assert await soon(task) == b""
                assert await soon(loop.sock_recv(right, 100)) == b""
                await loop.sock_sendall(right, b"reply")
                assert await soon(loop.sock_recv(left, 100)) == b"reply"
    run(main())


def test_reads_that_end_early():
    """A short read does not say that nothing is left: descriptors and urgent data end one."""
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            for task_first in (False, True):
                if task_first:
                    task = await waiting(loop.sock_recv(right, 100))
                socket.send_fds(left, [b"a"], [0])
                socket.send_fds(left, [b"b"], [0])
                left.send(b"c")
                got = await soon(task) if task_first else b""
                while len(got) < 3:
                    got += await soon(loop.sock_recv(right, 100))
                assert got == b"abc"
        with pair(socket.AF_INET) as (left, right):
            task = await waiting(loop.sock_recv(right, 100))
            left.send(b"abc")
            left.send(b"!", socket.MSG_OOB)
            left.send(b"def")
            got = await soon(task)
            while len(got) < 6:
                got += await soon(loop.sock_recv(right, 100))
            assert got == b"abcdef"
    run(main())


# ---- datagrams


@pytest.mark.parametrize("family", DATAGRAMS)
@pytest.mark.parametrize("first", ["recv", "send"])
def test_recvfrom_and_sendto(family, first):
    async def main():
        loop = asyncio.get_running_loop()
        with datagram_pair(family) as (left, right):
            name, peer = right.getsockname(), left.getsockname()
            for data in (b"hello", b"", os.urandom(30_000)):
                for receive in (loop.sock_recvfrom, loop.sock_recvfrom_into):
                    buffer = bytearray(65536)
                    operation = receive(right, 65536) if receive == loop.sock_recvfrom else receive(right, buffer)
                    if first == "recv":
                        operation = await waiting(operation)
                    assert await loop.sock_sendto(left, data, name) == len(data)
                    got, address = await soon(operation)
                    assert address == peer
                    assert (got if isinstance(got, bytes) else bytes(buffer[:got])) == data
            await loop.sock_sendto(left, b"0123456789", name)
            assert await loop.sock_recvfrom_into(right, buffer, 4) == (4, peer)
            await loop.sock_sendto(left, b"0123456789", name)
            assert await loop.sock_recvfrom(right, 4) == (b"0123", peer)
    run(main())


def test_sendto_by_name_and_blocked():
    async def main():
        loop = asyncio.get_running_loop()
        with datagram_pair() as (left, right):
            await loop.sock_sendto(left, b"x", ("localhost", right.getsockname()[1]))
            assert await soon(loop.sock_recv(right, 10)) == b"x"
        with datagram_pair(socket.AF_UNIX) as (left, right):
            sent = 0
            while True:
                task = asyncio.ensure_future(loop.sock_sendto(left, b"%d" % sent, right.getsockname()))
                await turns()
                if not task.done():
                    break
                sent += 1
            for i in range(sent + 1):
                assert await soon(loop.sock_recv(right, 10)) == b"%d" % i
            assert await soon(task) == len(b"%d" % sent)
            for _ in range(3):
                await loop.sock_sendto(left, b"again", right.getsockname())
                assert await soon(loop.sock_recv(right, 10)) == b"again"
    run(main())


def test_refused_datagrams():
    async def main():
        loop = asyncio.get_running_loop()
        with datagram_pair() as (left, right):
            left.connect(right.getsockname())
            name = right.getsockname()
            right.close()
            for _ in range(3):
                task = await waiting(loop.sock_recv(left, 10))
                left.send(b"x")
                with pytest.raises(ConnectionRefusedError):
                    await soon(task)
            with socket.socket(type=socket.SOCK_DGRAM) as again:
                again.bind(name)
                task = await waiting(loop.sock_recv(left, 10))
                again.sendto(b"here", left.getsockname())
                assert await soon(task) == b"here"
    run(main())


def test_a_family_of_unknown_addresses():
    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.setblocking(False)
            sock.bind((0, 0))
            get_links = bytes.fromhex("14000000 1200 0103 07000000 00000000 00000000".replace(" ", ""))
            await loop.sock_sendto(sock, get_links, (0, 0))
            data, address = await soon(loop.sock_recvfrom(sock, 65536))
            assert address == (0, 0) and data
    run(main())


# ---- connections


@pytest.mark.parametrize("family,host", [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"),
                                         (socket.AF_INET, "localhost"), (socket.AF_UNIX, None)])
def test_connect_and_accept(family, host, tmp_path, no_leaked_fds):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket(family) as server, socket.socket(family) as client:
            server.bind((host, 0) if host else str(tmp_path / "socket"))
            server.listen()
            server.setblocking(False)
            client.setblocking(False)
            accepting = await waiting(loop.sock_accept(server))
            address = (host, server.getsockname()[1]) if host else server.getsockname()
            assert await soon(loop.sock_connect(client, address)) is None
            conn, peer = await soon(accepting)
            with conn:
                assert type(conn) is socket.socket and peer == client.getsockname()
                assert conn.gettimeout() == 0 and not os.get_inheritable(conn.fileno())
                assert (conn.family, conn.type, conn.proto) == (client.family, client.type, client.proto or conn.proto)
                await loop.sock_sendall(client, b"x")
                assert await soon(loop.sock_recv(conn, 10)) == b"x"
    run(main())


def test_many_connections_are_accepted():
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(LOCAL) as server, contextlib.ExitStack() as stack:
            server.setblocking(False)
            task = await waiting(loop.sock_accept(server))
            clients = [stack.enter_context(socket.create_connection(server.getsockname())) for _ in range(20)]
            peers = {(await soon(task))[0]}
            for _ in range(19):
                peers.add((await soon(loop.sock_accept(server)))[0])
            for peer in peers:
                stack.enter_context(peer)
            assert {peer.getpeername() for peer in peers} == {client.getsockname() for client in clients}
    run(main())


@pytest.mark.parametrize("factory", FACTORIES)
def test_connect_failures(factory, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(LOCAL) as server:
            address = server.getsockname()
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(ConnectionRefusedError) as caught:
                await loop.sock_connect(sock, address)
            assert caught.value.errno == errno.ECONNREFUSED and str(address) in str(caught.value)
            with pytest.raises(OSError):
                await loop.sock_connect(sock, address)
            for wrong, error in [("127.0.0.1", (TypeError, OSError, ValueError)), (5, TypeError),
                                 (("127.0.0.1", -1), (OverflowError, OSError)),
                                 (("name.invalid", 1), socket.gaierror)]:
                with pytest.raises(error):
                    await loop.sock_connect(sock, wrong)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            with pytest.raises(FileNotFoundError):
                await loop.sock_connect(sock, str(tmp_path / "nothing"))
    run(main(), factory)


def test_connect_again_after_a_refusal():
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(LOCAL) as server:
            address = server.getsockname()
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(ConnectionRefusedError):
                await soon(loop.sock_connect(sock, address))
            with socket.create_server(address):
                with contextlib.suppress(ConnectionAbortedError):   # Linux: of the connection that failed
                    await soon(loop.sock_connect(sock, address))
                await soon(loop.sock_connect(sock, address))
                assert sock.getpeername() == address
    run(main())


def test_a_full_unix_listener_is_no_success(tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as stack:
            server.bind(str(tmp_path / "socket"))
            server.listen(0)
            with pytest.raises(BlockingIOError):
                for _ in range(10):
                    client = stack.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    await loop.sock_connect(client, server.getsockname())
                    client.getpeername()
    run(main())


# ---- the awaitable


def test_it_is_a_coroutine():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            operation = loop.sock_recv(left, 10)
            assert asyncio.iscoroutine(operation) and isinstance(operation, collections.abc.Coroutine)
            assert operation.__qualname__ == "Loop.sock_recv" and "sock_recv" in repr(operation)
            assert operation.cr_await is None
            task = await waiting(operation)
            assert operation.cr_await is not None and "sock_recv" in repr(task)
            right.send(b"x")
            assert await task == b"x"
            with pytest.raises(RuntimeError, match="already awaited"):
                await operation
            operation.close()
    run(main())


def test_every_way_to_wait_for_it():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            for ready in (True, False):
                def recv(ready=ready):
                    if ready:
                        right.send(b"x")
                    else:
                        loop.call_later(0.001, right.send, b"x")
                    return loop.sock_recv(left, 1)
                assert await recv() == b"x"
                assert await asyncio.create_task(recv()) == b"x"
                assert await asyncio.ensure_future(recv()) == b"x"
                assert await asyncio.wait_for(recv(), 60) == b"x"
                assert await asyncio.shield(recv()) == b"x"
                assert await asyncio.gather(recv(), loop.sock_sendall(left, b"")) == [b"x", None]
                async with asyncio.timeout(60):
                    assert await recv() == b"x"
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(recv())
                assert task.result() == b"x"
                done, _ = await asyncio.wait([asyncio.ensure_future(recv())])
                assert done.pop().result() == b"x"
    run(main())


def test_run_until_complete():
    loop = pyconc.new_event_loop()
    with pair() as (left, right):
        loop.call_soon(right.send, b"x")
        assert loop.run_until_complete(loop.sock_recv(left, 10)) == b"x"
        assert loop.run_until_complete(loop.sock_sendall(left, b"y")) is None
    loop.close()


def test_eager_tasks():
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("Python 3.12 brought eager tasks")

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        with pair() as (left, right):
            right.send(b"x")
            task = asyncio.create_task(loop.sock_recv(left, 10))
            assert task.done() and task.result() == b"x"
            task = asyncio.create_task(loop.sock_recv(left, 10))
            assert not task.done()
            right.send(b"y")
            assert await soon(task) == b"y"
    run(main())


def test_driving_it_by_hand():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            right.send(b"x")
            with pytest.raises(StopIteration) as stop:
                loop.sock_recv(left, 10).send(None)
            assert stop.value.value == b"x"
            with pytest.raises(StopIteration) as stop:
                loop.sock_sendall(left, b"").send(None)
            assert stop.value.value is None
            operation = loop.sock_recv(left, 10)
            with pytest.raises(TypeError):
                operation.send(5)
            future = operation.send(None)
            assert isinstance(future, asyncio.Future)
            with pytest.raises(ZeroDivisionError):
                operation.throw(ZeroDivisionError())
            with pytest.raises(RuntimeError):
                operation.send(None)
            for args in ((ValueError,), (ValueError, "text"), (ValueError, ValueError("text"), None)):
                with pytest.raises(ValueError):
                    loop.sock_recv(left, 10).throw(*args)
            with pytest.raises(TypeError):
                loop.sock_recv(left, 10).throw(5)
            closed = loop.sock_recv(left, 10)
            closed.close()
            with pytest.raises(RuntimeError):
                await closed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)     # throw() with three arguments
        run(main())


def test_never_awaited():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, _):
            with pytest.warns(RuntimeWarning, match="'Loop.sock_recv' was never awaited"):
                loop.sock_recv(left, 1)
    run(main())


# ---- cancellation


def test_cancelled_reads_take_nothing():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            for i in range(3):
                task = await waiting(loop.sock_recv(left, 10))
                task.cancel()
                right.send(b"%d" % i)
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await soon(loop.sock_recv(left, 10)) == b"%d" % i
            for i in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(loop.sock_recv(left, 60), 0.001)
            right.send(b"x")
            assert await soon(loop.sock_recv(left, 10)) == b"x"
    run(main())


def test_cancelled_sendall():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            buffer = bytearray(4_000_000)
            task = await waiting(loop.sock_sendall(left, buffer))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del buffer[:]       # nothing holds it
            while select.select([right], [], [], 0)[0]:
                right.recv(1 << 20)
            await loop.sock_sendall(left, b"next")
            assert await soon(loop.sock_recv(right, 10)) == b"next"
    run(main())


def test_cancelled_accept_and_connect(no_leaked_fds):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(LOCAL) as server:
            server.setblocking(False)
            task = await waiting(loop.sock_accept(server))
            task.cancel()
            with socket.create_connection(server.getsockname()):
                with pytest.raises(asyncio.CancelledError):
                    await task
                conn, _ = await soon(loop.sock_accept(server))
                conn.close()
            with socket.socket() as client:
                client.setblocking(False)
                task = asyncio.ensure_future(loop.sock_connect(client, server.getsockname()))
                await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
    run(main())


# ---- sockets that go away


def test_operations_on_a_closed_socket():
    async def main():
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        sock.close()
        for operation in (loop.sock_recv(sock, 1), loop.sock_recv_into(sock, bytearray(1)),
                          loop.sock_recvfrom(sock, 1), loop.sock_recvfrom_into(sock, bytearray(1)),
                          loop.sock_sendall(sock, b"x"), loop.sock_sendto(sock, b"x", ("127.0.0.1", 9)),
                          loop.sock_connect(sock, ("127.0.0.1", 9)), loop.sock_accept(sock)):
            with pytest.raises(OSError) as caught:
                await operation
            assert caught.value.errno == errno.EBADF
    run(main())


def test_closed_while_it_waits_and_the_number_used_again():
    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(5):
            left, right = socket.socketpair()
            left.setblocking(False)
            number = left.fileno()
            task = await waiting(loop.sock_recv(left, 10))
            left.close()
            right.close()
            with pair() as (again, other):
                assert number in (again.fileno(), other.fileno())
                for sock, peer in ((again, other), (other, again)):
                    new = await waiting(loop.sock_recv(sock, 10))
                    peer.send(b"x")
                    assert await soon(new) == b"x"
                assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                for sock, peer in ((again, other), (other, again)):
                    new = await waiting(loop.sock_recv(sock, 10))
                    peer.send(b"y")
                    assert await soon(new) == b"y"
    run(main())


def test_the_same_descriptor_in_another_socket_object():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            task = await waiting(loop.sock_recv(left, 10))
            right.send(b"1")
            assert await soon(task) == b"1"
            for _ in range(3):
                left = socket.socket(fileno=left.detach())
                left.setblocking(False)
                task = await waiting(loop.sock_recv(left, 10))
                right.send(b"2")
                assert await soon(task) == b"2"
            left.close()
    run(main())


def test_open_elsewhere_after_it_was_closed():
    """The kernel goes on reporting for a closed number whose file is still open under another one."""
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            task = await waiting(loop.sock_recv(left, 10))
            right.send(b"1")
            assert await soon(task) == b"1"
            number, copy = left.fileno(), left.dup()
            task = await waiting(loop.sock_recv(left, 10))
            left.close()
            with copy, pair() as (again, other):
                right.send(b"for the copy")
                await turns(5)
                assert not task.done()
                sock, peer = (again, other) if again.fileno() == number else (other, again)
                new = await waiting(loop.sock_recv(sock, 100))
                right.send(b"!")
                await turns(5)
                assert not new.done()
                peer.send(b"2")
                assert await soon(new) == b"2"
                assert await soon(loop.sock_recv(copy, 100)) == b"for the copy!"
                task.cancel()
    run(main())


def test_one_that_waits_on_a_closed_socket_whose_file_is_open():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right), left.dup():
            task = await waiting(loop.sock_recv(left, 10))
            left.close()
            right.send(b"x")
            with pytest.raises(OSError) as caught:
                await soon(task)
            assert caught.value.errno == errno.EBADF
    run(main())


# ---- several at once


def test_the_later_reader_takes_over():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            first = await waiting(loop.sock_recv(left, 10))
            second = await waiting(loop.sock_recv(left, 10))
            right.send(b"x")
            assert await soon(second) == b"x"
            await turns()
            assert not first.done()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
    run(main())


def test_a_reader_and_a_writer():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            writing = await waiting(loop.sock_sendall(left, bytes(2_000_000)))
            reading = await waiting(loop.sock_recv(left, 10))
            right.send(b"x")
            assert await soon(reading) == b"x" and not writing.done()
            got = 0
            while got < 2_000_000:
                got += len(await soon(loop.sock_recv(right, 1 << 18)))
            await soon(writing)
    run(main())


def test_in_the_place_of_a_callback():
    async def main():
        loop = asyncio.get_running_loop()
        calls = []
        with pair() as (left, right):
            loop.add_reader(left, calls.append, 1)
            task = await waiting(loop.sock_recv(left, 10))
            right.send(b"x")
            assert await soon(task) == b"x"
            right.send(b"y")
            await turns()
            assert not calls and not loop.remove_reader(left)
            seen = loop.create_future()
            loop.add_reader(left, lambda: seen.done() or seen.set_result(left.recv(10)))
            assert await soon(seen) == b"y"
            assert loop.remove_reader(left)
            task = await waiting(loop.sock_recv(left, 10))
            right.send(b"z")
            assert await soon(task) == b"z"
    run(main())


def test_a_transport_has_it():
    async def main():
        loop = asyncio.get_running_loop()
        with datagram_pair() as (left, _):
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=left)
            with pytest.raises(RuntimeError, match="transport"):
                await loop.sock_recv(left, 10)
            transport.close()
            await turns()
    run(main())


def test_several_loops_in_several_threads():
    errors = []

    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            for i in range(300):
                task = asyncio.ensure_future(loop.sock_recv(left, 10))
                await asyncio.sleep(0)
                await loop.sock_sendall(right, b"%d" % i)
                assert await task == b"%d" % i

    def thread():
        try:
            run(main())
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=thread) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not errors


# ---- errors of use


@pytest.mark.parametrize("factory", FACTORIES)
def test_blocking_sockets_in_debug_mode(factory):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            for operation in (loop.sock_recv(sock, 1), loop.sock_recv_into(sock, bytearray(1)),
                              loop.sock_recvfrom(datagrams, 1), loop.sock_recvfrom_into(datagrams, bytearray(1)),
                              loop.sock_sendall(sock, b"x"), loop.sock_sendto(datagrams, b"x", ("127.0.0.1", 9)),
                              loop.sock_connect(sock, ("127.0.0.1", 9)), loop.sock_accept(sock)):
                with pytest.raises(ValueError, match="the socket must be non-blocking"):
                    await operation
    run(main(), factory, debug=True)


def test_blocking_sockets_do_not_block():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            left.setblocking(True)
            task = await waiting(loop.sock_recv(left, 10))
            right.send(b"x")
            assert await soon(task) == b"x"
            task = await waiting(loop.sock_sendall(left, bytes(1_000_000)))
            task.cancel()
    run(main(), debug=False)


@pytest.mark.parametrize("factory", FACTORIES)
def test_tls_sockets_are_refused(factory):
    async def main():
        loop = asyncio.get_running_loop()
        with ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="x") as sock:
            for operation in (loop.sock_recv(sock, 1), loop.sock_recv_into(sock, bytearray(1)),
                              loop.sock_sendall(sock, b"x"), loop.sock_connect(sock, ("127.0.0.1", 9)),
                              loop.sock_accept(sock)):
                with pytest.raises(TypeError, match="SSLSocket"):
                    await operation
    run(main(), factory)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("name,args,error", [
    ("sock_recv", ("1",), TypeError), ("sock_recv", (-1,), ValueError), ("sock_recv", (1.5,), TypeError),
    ("sock_recv", (1 << 70,), OverflowError),
    ("sock_recv_into", (b"constant",), TypeError), ("sock_recv_into", (5,), TypeError),
    ("sock_sendall", ("text",), TypeError), ("sock_sendall", (None,), TypeError),
    ("sock_recvfrom", (-1,), ValueError), ("sock_recvfrom_into", (bytearray(2), 3), ValueError),
    ("sock_recvfrom_into", (bytearray(2), -1), ValueError)])
def test_wrong_arguments(factory, name, args, error):
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            right.send(b"data")
            with pytest.raises(error):
                await getattr(loop, name)(left, *args)
    run(main(), factory)


def test_arguments_by_name_and_their_number():
    async def main():
        loop = asyncio.get_running_loop()
        with pair() as (left, right):
            await loop.sock_sendall(sock=left, data=b"x")
            assert await loop.sock_recv(right, n=10) == b"x"
            for call in (lambda: loop.sock_recv(), lambda: loop.sock_recv(left), lambda: loop.sock_recv(left, 1, 2),
                         lambda: loop.sock_recv(left, 1, nonsense=2), lambda: loop.sock_accept(*range(20))):
                with pytest.raises(TypeError):
                    call()
            with pytest.raises((TypeError, AttributeError)):
                await loop.sock_recv(5, 10)
    run(main())


def test_subclasses_keep_their_methods():
    class Counting(socket.socket):
        count = 0

        def recv(self, *args):
            self.count += 1
            return super().recv(*args)

    async def main():
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        with Counting(fileno=left.detach()) as sock, right:
            sock.setblocking(False)
            task = await waiting(loop.sock_recv(sock, 10))
            right.send(b"x")
            assert await soon(task) == b"x" and sock.count == 2
    run(main())


def test_a_closed_loop():
    loop = pyconc.new_event_loop()
    with pair() as (left, _):
        operation = loop.sock_recv(left, 10)
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            operation.send(None)
            operation.send(None)


# ---- what is left behind


def test_a_loop_closed_with_operations_that_wait(no_leaked_fds):
    loop = pyconc.new_event_loop()
    with pair() as (left, _):
        task = loop.create_task(loop.sock_recv(left, 10))
        task._log_destroy_pending = False
        loop.run_until_complete(turns())
        loop.close()
        ref = weakref.ref(task)
        del task
        gc.collect()
        assert ref() is None


def test_a_dropped_loop_with_operations_that_wait(no_leaked_fds):
    loop = pyconc.new_event_loop()
    with pair() as (left, _):
        task = loop.create_task(loop.sock_recv(left, 10))
        task._log_destroy_pending = False
        loop.run_until_complete(turns())
        ref = weakref.ref(loop)
        del task
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del loop
            gc.collect()
        assert ref() is None


@pytest.mark.leak
def test_no_leaks(no_leaked_objects, no_leaked_fds):
    loop = pyconc.new_event_loop()

    async def once():
        with pair() as (left, right):
            task = asyncio.create_task(loop.sock_recv(left, 10))
            await asyncio.sleep(0)
            await loop.sock_sendall(right, b"x" * 10)
            await task
            task = asyncio.create_task(loop.sock_sendall(right, bytearray(1_000_000)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            with contextlib.suppress(TypeError):
                await loop.sock_sendall(left, "text")
            left.close()
            with contextlib.suppress(OSError):
                await loop.sock_recv(left, 1)
        with datagram_pair() as (left, right):
            task = asyncio.create_task(loop.sock_recvfrom(left, 10))
            await asyncio.sleep(0)
            await loop.sock_sendto(right, b"x", left.getsockname())
            await task
        with socket.create_server(LOCAL) as server, socket.socket() as client:
            server.setblocking(False)
            client.setblocking(False)
            (conn, _), _ = await asyncio.gather(loop.sock_accept(server),
                                                loop.sock_connect(client, server.getsockname()))
            conn.close()
    no_leaked_objects(lambda: loop.run_until_complete(once()), 50)
    loop.close()
