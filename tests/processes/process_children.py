"""What the tests run in children."""
import itertools
import os
import signal
import time

import pyconc.multiprocessing


class Doubling(pyconc.multiprocessing.Process):
    """A Process whose work is its method run()."""

    def __init__(self, connection):
        super().__init__()
        self.connection = connection

    def run(self):
        self.connection.send(2 * self.connection.recv())


def describe(connection):
    """Sends what the child thinks of its own start."""
    mp = pyconc.multiprocessing
    connection.send((mp.get_start_method(), mp.get_context().get_start_method(), mp.current_process().name,
                     mp.parent_process().pid, os.getpid()))


def describe_context(context, connection):
    """Sends what a context that was handed over makes."""
    reading, writing = context.Pipe(duplex=False)
    connection.send((context.get_start_method(), type(reading).__module__, type(writing).__module__))


def echo(connection, count):
    """Sends back that many messages."""
    for _ in range(count):
        connection.send_bytes(connection.recv_bytes())


def hand_over(connection):
    """Receives a connection and answers on it."""
    with connection.recv() as received:
        received.send("from the child")
        connection.send(type(received).__module__)


def double(queue, connection):
    """Answers one item of a queue."""
    connection.send(2 * queue.get())


class Everything:
    """An object of each kind, of one context."""

    def __init__(self, context):
        self.lock = context.Lock()
        self.rlock = context.RLock()
        self.semaphore = context.Semaphore(3)
        self.bounded = context.BoundedSemaphore(3)
        self.condition = context.Condition(self.lock)
        self.event = context.Event()
        self.barrier = context.Barrier(1)
        self.queue = context.Queue()
        self.joinable = context.JoinableQueue()
        self.simple = context.SimpleQueue()
        self.value = context.Value("i")
        self.array = context.Array("d", 3)
        self.raw_value = context.RawValue("q")
        self.raw_array = context.RawArray("b", 5)
        self.joinable.put("a task")

    def change(self):
        """What a child does with them."""
        with self.lock, self.rlock, self.bounded:
            self.value.value += 1
            self.array[1] = 7
            self.raw_value.value = 8
            self.raw_array[4] = 9
        self.semaphore.acquire()
        with self.condition:
            self.condition.notify_all()
        self.barrier.wait()
        self.queue.put("put by the child")
        self.simple.put("put by the child")
        self.joinable.get()
        self.joinable.task_done()
        self.event.set()

    def check(self):
        """That the child did."""
        assert self.event.wait(60)
        assert self.queue.get() == self.simple.get() == "put by the child"
        self.joinable.join()
        assert (self.value.value, *self.array, self.raw_value.value, *self.raw_array) == (1, 0, 7, 0, 8, 0, 0, 0, 0, 9)
        assert self.semaphore.get_value() == 2
        assert self.lock.acquire(False)
        self.lock.release()


def use_all(connection, everything):
    """Changes everything that was handed over."""
    everything.change()
    connection.send("done")


def use_all_received(connection, carriers):
    """Does so with what comes by each of the carriers."""
    for carrier in carriers:
        use_all(connection, carrier.get() if hasattr(carrier, "get") else carrier.recv())


def add_up(value, lock, number):
    """Adds to a value under a lock."""
    with lock:
        value.value += number
    return number


def square(number):
    return number * number


def die(connection):
    """Says that it lives and is killed."""
    connection.send("alive")
    os.kill(os.getpid(), signal.SIGKILL)


def stay(connection):
    """Says that it lives and stays until it is killed."""
    connection.send("alive")
    time.sleep(60)


def double_all(connection, count):
    """Answers that many numbers and closes the connection."""
    with connection:
        for _ in range(count):
            connection.send(2 * connection.recv())


def echo_objects(connection):
    """Sends back every object until it is killed."""
    while True:
        connection.send(connection.recv())


def count_up(connection, payload):
    """Sends one number after the other, each with the payload, until it is killed."""
    for number in itertools.count():
        connection.send((number, payload))
