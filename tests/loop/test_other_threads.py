"""Many threads at one loop for a while: callbacks, handles, executors, futures and what the collector ends there.

Most of this can only go wrong without a GIL. Nothing is measured; what was asked for has to happen, once.
"""
import asyncio
import collections
import contextlib
import gc
import itertools
import socket
import threading
import time

import pytest

import pyconc

pytestmark = pytest.mark.stress
THREADS = 8
SECONDS = 1


def run_for(loop, seconds=SECONDS):
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


def settle(loop):
    """Runs what is left."""
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()


@pytest.mark.parametrize("debug", [False, True])
def test_callbacks_cancelled_by_anybody(loop, debug, crowd):
    loop.set_debug(debug)
    loop.slow_callback_duration = 60
    ran, cancelled = collections.Counter(), collections.Counter()
    shared = collections.deque(maxlen=64)
    numbers = itertools.count()

    def work(me):
        number = next(numbers)
        handle = loop.call_soon_threadsafe(lambda: ran.update([number]))
        shared.append((number, handle))
        with contextlib.suppress(IndexError):
            other, handle = shared[me]
            repr(handle)
            assert handle._args in ((), None)
            if number % 3 == 0:
                handle.cancel()
                assert handle.cancelled()
                cancelled[other] = 1

    with crowd(work, THREADS):
        run_for(loop)
    settle(loop)
    assert set(ran.values()) == {1}
    assert ran.keys() | cancelled.keys() == set(range(next(numbers)))


@pytest.mark.parametrize("debug", [False, True])
def test_timers_cancelled_by_anybody(loop, debug, crowd):
    loop.set_debug(debug)
    loop.slow_callback_duration = 60
    made, ran = [0], [0]
    shared = collections.deque(maxlen=500)

    def fire(number):
        ran[0] += 1

    def make():
        for number in range(50):
            shared.append(loop.call_later(number % 7 / 1000, fire, number))
        made[0] += 50
        loop.call_soon(make)

    def work(me):
        with contextlib.suppress(IndexError):
            handle = shared[me * 11]
            handle.cancel()
            repr(handle)
            assert handle.cancelled()
            assert handle._args is None or len(handle._args) == 1  # another thread may be about to clear it
            assert handle.when() > 0
            hash(handle)

    loop.call_soon(make)
    with crowd(work, THREADS):
        run_for(loop)
    assert 0 < ran[0] <= made[0]


def test_one_handle_cancelled_and_looked_at_by_all(loop, crowd):
    seen = []
    handles = collections.deque(maxlen=1)

    class Argument:
        def __repr__(self):
            return "argument"

    def make():
        handles.append(loop.call_soon(seen.append, Argument()))
        loop.call_soon(make)

    def work(me):
        with contextlib.suppress(IndexError):
            handle = handles[0]
            if me % 2:
                handle.cancel()
            str(handle), handle._args, handle._callback, handle._context, handle.cancelled()

    loop.call_soon(make)
    with crowd(work, THREADS):
        run_for(loop)
    assert all(type(argument) is Argument for argument in seen)


def test_loops_in_all_threads_talk_to_each_other(errors, loop):
    loops = [loop, *(pyconc.new_event_loop() for _ in range(3))]
    received = collections.Counter()
    sent = [0] * len(loops)
    over = threading.Event()

    def send(me):
        if over.is_set():
            return
        for target in loops:
            target.call_soon_threadsafe(receive, me)
            sent[me] += 1
        loops[me].call_soon(send, me)

    def receive(sender):
        with lock:
            received[sender] += 1

    def run(me):
        loops[me].call_soon(send, me)
        loops[me].run_forever()

    lock = threading.Lock()
    threads = [threading.Thread(target=run, args=(me,)) for me in range(len(loops))]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    over.set()
    # Twice round: what a loop has sent arrives before its own stop() does.
    barrier = threading.Barrier(len(loops) + 1)
    for each in loops:
        each.call_soon_threadsafe(each.call_soon, barrier.wait)
    barrier.wait()
    for each in loops:
        each.call_soon_threadsafe(each.stop)
    for thread in threads:
        thread.join()
    for each in loops:
        settle(each)
    assert [received[me] for me in range(len(loops))] == sent
    assert errors == []
    for each in loops[1:]:
        each.close()


def test_run_in_executor(loop, errors):
    async def one(number):
        if number % 5 == 0:
            future = loop.run_in_executor(None, time.sleep, 0)
            future.cancel()
            with pytest.raises(asyncio.CancelledError):
                await future
            return
        if number % 7 == 0:
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(None, divmod, number, 0)
            return
        assert await loop.run_in_executor(None, divmod, number, 3) == divmod(number, 3)

    async def main():
        end = loop.time() + SECONDS
        while loop.time() < end:
            await asyncio.gather(*map(one, range(200)))
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())
    assert errors == []


def test_loops_come_and_go_while_called(errors, loop, crowd):
    """A loop may be closed, and be gone, in the middle of others' calls."""
    current = [loop]

    def work(me):
        each = current[0]
        try:
            each.call_soon_threadsafe(len, ())
        except RuntimeError as error:
            assert "closed" in str(error)

    with crowd(work, THREADS):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            current[0] = each = pyconc.new_event_loop()
            each.run_until_complete(asyncio.sleep(0))
            each.close()
            del each
    assert errors == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_garbage_of_a_loop_is_collected_by_other_threads(loop, crowd):
    """Handles, tasks, futures and transports in cycles end in whatever thread the collector runs."""
    class Knot(asyncio.Protocol):
        pass

    async def main():
        left, right = socket.socketpair()
        left.setblocking(False)
        end = loop.time() + SECONDS
        while loop.time() < end:
            knot = Knot()
            knot.self = knot
            knot.handle = loop.call_soon(str, knot)
            knot.timer = loop.call_later(0.001, str, knot)
            knot.future = loop.create_future()
            knot.task = asyncio.ensure_future(asyncio.sleep(0, knot))
            a, knot.peer = socket.socketpair()
            knot.transport, _ = await loop.create_connection(lambda knot=knot: knot, sock=a)
            knot.transport.pause_reading()
            loop.add_reader(left, str, knot)
            await knot.task
            loop.remove_reader(left)
            del knot, a
        left.close()
        right.close()

    with crowd(lambda me: (gc.collect(), time.sleep(0.001)), 4):
        loop.run_until_complete(main())
        loop.close()
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_connections_dropped_by_other_threads(loop, crowd):
    """The descriptor is free at once, and the next connection that gets its number is served as any other."""
    dropped, echoes = collections.deque(), set()

    class Dropped(asyncio.Protocol):
        def connection_made(self, transport):
            transport.pause_reading()
            dropped.append(transport)

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            echoes.add(self)

        def connection_lost(self, exc):
            echoes.remove(self)

        def data_received(self, data):
            self.transport.write(data)

    def drop(me):
        with contextlib.suppress(IndexError):
            dropped.popleft()

    async def talk(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(3):
            writer.write(b"%d" % number)
            assert await reader.readexactly(1) == b"%d" % number
        writer.close()
        await writer.wait_closed()

    async def main():
        servers = [await loop.create_server(factory, "127.0.0.1") for factory in (Dropped, Echo)]
        ports = [server.sockets[0].getsockname()[1] for server in servers]
        end = loop.time() + SECONDS
        while loop.time() < end:
            for _ in range(5):
                socket.create_connection(("127.0.0.1", ports[0])).close()
            await asyncio.gather(*[talk(ports[1]) for _ in range(5)])
            servers[0]._clients.copy()
        for server in servers:
            server.close()
        while dropped or echoes:
            await asyncio.sleep(0)
        for server in servers:
            await asyncio.wait_for(server.wait_closed(), 60)

    with crowd(drop, 4):
        loop.run_until_complete(main())


def test_transport_used_by_all(loop, crowd):
    """What each thread writes arrives whole and in its order; the rest does no harm."""
    loop.set_debug(False)
    received = bytearray()

    class End(asyncio.Protocol):
        def connection_made(self, transport):
            self.lost = loop.create_future()

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    class Sink(End):
        def data_received(self, data):
            received.extend(data)

    async def main():
        ours, theirs = socket.socketpair()
        transport, end = await loop.create_connection(End, sock=ours)
        sink, other = await loop.create_connection(Sink, sock=theirs)
        sent = [0] * THREADS

        def work(me):
            if len(received) + 1_000_000 < sum(sent) * 8:
                time.sleep(0.001)
                return
            line = b"%d %05d\n" % (me, sent[me] % 100_000)
            if sent[me] % 3:
                transport.write(bytearray(line))
            else:
                transport.writelines([line[:3], memoryview(line)[3:]])
            sent[me] += 1
            assert transport.get_extra_info("socket").fileno() == ours.fileno()
            assert not transport.is_closing() and transport.get_protocol() is not None
            repr(transport)
            if me % 2:
                sink.pause_reading()
            sink.resume_reading()

        with crowd(work, THREADS) as others:
            await asyncio.sleep(SECONDS)
            others.over.set()
            while any(thread.is_alive() for thread in others.threads):
                await asyncio.sleep(0.001)
        sink.resume_reading()
        while len(received) < sum(sent) * 8:
            await asyncio.sleep(0.001)
        lines = received.split()
        for me in range(THREADS):
            numbers = [int(number) for who, number in zip(lines[::2], lines[1::2]) if int(who) == me]
            assert numbers == [number % 100_000 for number in range(sent[me])]
        with crowd(lambda me: (transport.close(), sink.abort()), THREADS):
            await asyncio.wait_for(asyncio.gather(end.lost, other.lost), 60)

    loop.run_until_complete(main())


def test_datagrams_sent_by_all(loop, crowd):
    loop.set_debug(False)
    received = collections.Counter()

    class Sink(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            received[data] += 1

    async def main():
        sink, _ = await loop.create_datagram_endpoint(Sink, local_addr=("127.0.0.1", 0))
        source, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol,
                                                        remote_addr=sink.get_extra_info("sockname"))

        def work(me):
            source.sendto(bytearray(b"%d" % me))
            repr(source)
            sink.pause_reading()
            sink.resume_reading()
            time.sleep(0.0001)

        with crowd(work, THREADS):
            await asyncio.sleep(SECONDS)
        await asyncio.sleep(0)
        source.close()
        sink.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert set(received) <= {b"%d" % me for me in range(THREADS)} and received


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_server_hears_of_its_last_connection_ended_by_another_thread(loop):
    kept = []

    class Kept(asyncio.Protocol):
        def connection_made(self, transport):
            transport.pause_reading()
            kept.append(transport)

    def drop():
        kept.clear()
        gc.collect()    # without a GIL the thread that made an object counts it out, unless the collector comes first

    async def main():
        server = await loop.create_server(Kept, "127.0.0.1")
        with socket.create_connection(server.sockets[0].getsockname()):
            while not kept:
                await asyncio.sleep(0)
            server.close()
            closed = asyncio.ensure_future(server.wait_closed())
            await asyncio.sleep(0)
            thread = threading.Timer(0.05, drop)     # when the loop sleeps in its poll
            thread.start()
            await asyncio.wait_for(closed, 60)
            thread.join()

    loop.set_debug(False)
    loop.run_until_complete(main())
