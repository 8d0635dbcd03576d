"""What the tests run in children."""
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


def use_all(connection, lock, event, value, array, queue):
    """Changes everything that was handed over, under the lock."""
    with lock:
        value.value += 1
        array[1] = 7
    queue.put("put by the child")
    event.set()
    connection.send("done")


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
