"""call_later and call_at: never early, finer than a millisecond, in order, however many are cancelled."""
import asyncio
import contextlib
import contextvars
import ctypes
import decimal
import fractions
import gc
import math
import os
import random
import re
import threading
import time
import weakref

import pytest


def wait(loop, seconds=0.0):
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


def test_clock_is_monotonic_time(either):
    before = time.monotonic()
    now = either.time()
    assert before <= now <= time.monotonic()
    assert type(now) is float


def test_clock_is_fine(loop):
    """Steps of the clock are not those of a millisecond clock."""
    differences = []
    while len(differences) < 100:
        first = loop.time()
        while (second := loop.time()) == first:
            pass
        differences.append(second - first)
    assert sorted(differences)[50] < 100e-6


@pytest.mark.parametrize("delay", [0, 1e-9, 1e-6, 25e-6, 100e-6, 0.0004, 0.0009999, 0.001, 0.0015, 0.01, 0.0200001])
def test_never_early(loop, delay):
    fired = []

    def fire(due):
        fired.append((due, time.monotonic()))
        if len(fired) < 25:
            loop.call_later(delay, fire, loop.time() + delay)
        else:
            loop.stop()

    loop.call_later(delay, fire, loop.time() + delay)
    loop.run_forever()
    assert all(due <= now + 1e-9 for due, now in fired)


def test_never_early_at(loop):
    fired = []
    base = loop.time()
    for _ in range(200):
        when = base + random.random() * 0.05
        loop.call_at(when, lambda when: fired.append((when, time.monotonic())), when)
    wait(loop, 0.06)
    assert len(fired) == 200
    assert all(when <= now for when, now in fired)
    assert [when for when, _ in fired] == sorted(when for when, _ in fired)


def test_sleep_is_never_early(loop):
    async def main():
        for delay in (0.0001, 0.0005, 0.001, 0.0024):
            before = time.monotonic()
            await asyncio.sleep(delay)
            assert time.monotonic() - before >= delay

    loop.run_until_complete(main())


def alarm(fd):
    """How many seconds are left of a timer of the kernel's; None for one not set and any other descriptor."""
    with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{fd}") as file:
        left = re.search(r"^it_value: \((\d+), (\d+)\)$", file.read(), re.MULTILINE)
        return int(left[1]) + int(left[2]) / 1e9 if left and left[0] != "it_value: (0, 0)" else None


def alarms():
    return {int(fd) for fd in os.listdir("/proc/self/fd") if alarm(fd) is not None}


@pytest.mark.parametrize("delay", [60.0, 60.0001, 60.0003, 60.00085, 60.9999995])
def test_finer_than_a_millisecond(loop, delay):
    """The kernel ends the poll when the timer is due (a loop with a clock of milliseconds: up to one later)."""
    others, due = alarms(), []

    def look():
        while not (ours := alarms() - others):
            pass
        low, high = -math.inf, math.inf     # each look narrows down when the kernel's timer is due
        while high - low > 200e-6:
            before = time.monotonic()
            left = alarm(*ours)
            low, high = max(low, before + left), min(high, time.monotonic() + left)
        due.extend([low, high])

    def look_and_stop():
        try:
            look()
        finally:
            loop.call_soon_threadsafe(loop.stop)

    handle = loop.call_later(delay, loop.stop)
    thread = threading.Thread(target=look_and_stop)
    thread.start()
    loop.run_forever()
    thread.join()
    handle.cancel()
    assert due[0] - 1e-6 <= handle.when() <= due[1] + 1e-6


def test_equal_times_keep_their_order(loop):
    seen = []
    when = loop.time() + 0.001
    for number in range(1000):
        loop.call_at(when, seen.append, number)
    wait(loop, 0.002)
    assert seen == list(range(1000))


def test_order_of_any_times(loop):
    seen = []
    now = loop.time()
    times = [now + random.randrange(50) / 10_000 for _ in range(2000)]
    for number, when in enumerate(times):
        loop.call_at(when, seen.append, (when, number))
    wait(loop, 0.01)
    assert seen == sorted(seen) and len(seen) == 2000


@pytest.mark.parametrize("when", [0, 0.0, -0.0, -1, -1e300, -math.inf, True, 1e-300])
def test_past_times_run_at_once(either, when):
    either.call_at(when, either.stop)
    either.run_forever()


@pytest.mark.parametrize("delay", [0, -1, -0.0, -1e300, -math.inf, False])
def test_past_delays_run_at_once(either, delay):
    either.call_later(delay, either.stop)
    either.run_forever()


@pytest.mark.parametrize("delay", [math.inf, 1e300, 1e18, 1e10, 2.0 ** 63, 86400 * 365 * 200])
def test_far_away(loop, delay):
    """Neither at once nor in the way of others."""
    seen = []
    far = [loop.call_later(delay, seen.append, "later"), loop.call_at(loop.time() + delay, seen.append, "at")]
    wait(loop, 0.002)
    loop.run_until_complete(asyncio.sleep(0.002))
    assert seen == []
    assert far[0].when() >= delay
    far[0].cancel()


def test_infinity_alone(program):
    """A loop that waits for nothing but the end of time still hears threads."""
    done = program("""
        import math, pyconc, threading
        loop = pyconc.new_event_loop()
        loop.call_later(math.inf, print, "too early")
        thread = threading.Timer(0.05, loop.call_soon_threadsafe, (loop.stop,))
        thread.start()
        loop.run_forever()
        loop.close()
        print("done")
    """)
    assert done.stdout_text == "done\n"


def test_not_a_number(loop):
    for method in (loop.call_later, loop.call_at):
        with pytest.raises(ValueError, match="nan"):
            method(math.nan, print)


@pytest.mark.parametrize("delay", [None, "1", b"1", [], 1j])
def test_wrong_types(loop, delay):
    for method in (loop.call_later, loop.call_at):
        with pytest.raises(TypeError):
            method(delay, print)


def test_other_numbers(either):
    seen = []
    either.call_later(fractions.Fraction(1, 1000), seen.append, 1)
    either.call_later(True * 0.001, seen.append, 2)
    wait(either, 0.002)
    assert sorted(seen) == [1, 2]


def test_decimal(loop):
    loop.call_later(decimal.Decimal("0.001"), loop.stop)
    loop.run_forever()


def test_number_that_is_too_large(either):
    with pytest.raises(OverflowError):
        either.call_later(10 ** 400, print)


def test_number_that_fails(loop):
    class Broken:
        def __float__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.call_later(Broken(), print)


def test_an_earlier_timer_added_while_a_later_is_awaited(loop):
    seen = []
    loop.call_later(10, seen.append, "late")
    loop.call_later(0.002, lambda: loop.call_later(0.002, loop.stop))
    loop.run_forever()
    assert not seen


def test_cancelled_timers_do_not_run(loop):
    seen = []
    handles = [loop.call_later(random.random() * 0.01, seen.append, number) for number in range(5000)]
    kept = set(range(0, 5000, 7))
    for number in random.sample(range(5000), 5000):
        if number not in kept:
            handles[number].cancel()
    wait(loop, 0.02)
    assert set(seen) == kept and len(seen) == len(kept)


def test_cancelled_timers_are_forgotten(loop, turn):
    """Timers that are cancelled, as most are, do not pile up until they would be due."""
    class Payload:
        pass

    refs = []
    for _ in range(1000):
        payload = Payload()
        handle = loop.call_later(1000, print, payload)
        refs.append(weakref.ref(handle))
        handle.cancel()
        del handle, payload
    for _ in range(3):
        turn(loop)
    assert sum(ref() is not None for ref in refs) < 200


def test_timers_added_by_destructors_of_cancelled_timers(loop, turn):
    """Dropping the cancelled may run code that schedules and cancels, in the middle of the clean-up."""
    seen = []

    class Payload:
        def __del__(self):
            loop.call_later(0.001, seen.append, 1)
            for _ in range(3):
                loop.call_later(50, print).cancel()

    loop.set_debug(False)
    handles = []
    variable = contextvars.ContextVar("payload")
    for _ in range(300):
        context = contextvars.Context()
        context.run(variable.set, Payload())     # goes with the handle, not with cancel()
        handles.append(loop.call_later(100, print, context=context))
        del context
    for handle in handles:
        handle.cancel()
    del handles, handle
    turn(loop)
    wait(loop, 0.01)
    assert len(seen) == 300


def test_cancelling_inside_callbacks(loop):
    """Compaction happens between callbacks that cancel others due at the same time."""
    seen, handles = [], []

    def run(number):
        seen.append(number)
        for other in handles[number + 1:number + 4]:
            other.cancel()

    when = loop.time() + 0.001
    handles += [loop.call_at(when, run, number) for number in range(4000)]
    others = [loop.call_later(10, print) for _ in range(4000)]
    loop.call_at(when, lambda: [one.cancel() for one in others])
    wait(loop, 0.005)
    assert seen == list(range(0, 4000, 4))


def test_cancel_after_close(either):
    handle = either.call_later(10, print)
    either.close()
    handle.cancel()
    assert handle.cancelled()


def test_cancel_a_due_timer_in_the_same_turn(either):
    seen = []
    now = either.time()
    either.call_at(now, lambda: second.cancel())
    second = either.call_at(now, seen.append, 1)
    wait(either, 0.001)
    assert seen == []


def test_many_sleepers(loop):
    async def main():
        async def one(delay):
            before = time.monotonic()
            await asyncio.sleep(delay)
            return time.monotonic() - before >= delay

        return await asyncio.gather(*[one(random.random() / 50) for _ in range(1000)])

    assert all(loop.run_until_complete(main()))


def test_wait_for_timeout(either):
    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(either.create_future(), 0.001)

    either.run_until_complete(main())


def test_random_schedules_and_cancellations(loop):
    """Against a plain list: what is due and not cancelled runs, each once, in order of its time."""
    seen = []

    def schedule(base):
        live = {}
        for number in range(3000):
            when = base + random.randrange(100) * 1e-5
            live[number] = when, loop.call_at(when, seen.append, (when, number))
            if random.random() < 0.6:
                gone = random.choice(list(live))
                live.pop(gone)[1].cancel()
            if number % 500 == 0:
                loop.stop()
                loop.run_forever()
        return live

    live, base, ahead = {}, 0.0, 0.25
    while loop.time() >= base:  # all must be there before the first is due
        for _, handle in live.values():
            handle.cancel()
        seen.clear()
        ahead *= 2
        base = loop.time() + ahead
        live = schedule(base)
    expected = sorted((when, number) for number, (when, _) in live.items())
    loop.call_at(base + 0.01, loop.stop)
    loop.run_forever()
    assert seen == expected


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="counts with glibc 2.33 or newer")
def test_a_closed_loop_leaves_no_memory(new_loop):
    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in
                    ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                     "keepcost")]

    count = ctypes.CDLL(None).mallinfo2
    count.restype = Info

    def use():
        for _ in range(200):
            loop = new_loop()
            wait(loop, 0.0002)
            loop.close()
        gc.collect()

    use()
    before = count().uordblks
    use()
    assert count().uordblks - before < 200 * 100
