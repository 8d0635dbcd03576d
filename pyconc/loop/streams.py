# SPDX-License-Identifier: MIT
"""asyncio's streams at C speed: what open_connection(), start_server() and their like hand out becomes an object of
these classes when its connection on a pyconc loop begins.

Only what C cannot do at once, with nothing unusual about it, is left to the methods of asyncio; errors are always
theirs. Classes that a program derived from asyncio's, and methods that it replaced, are left alone. What
is replaced in a stream after that is called by the program only: the other methods do not go by it, nor does C, which
stands in for feed_data() from the first data on.
"""
import asyncio

from pyconc._core import StreamSource

asyncio_drain = asyncio.StreamWriter.drain
asyncio_drain_helper = asyncio.StreamReaderProtocol._drain_helper
asyncio_feed_data = asyncio.StreamReader.feed_data
asyncio_read = asyncio.StreamReader.read
asyncio_readexactly = asyncio.StreamReader.readexactly
asyncio_readline = asyncio.StreamReader.readline
asyncio_readuntil = asyncio.StreamReader.readuntil


async def as_it_came(source, reading):
    """asyncio's `reading` of what has come, for somebody who has waited for it: like asyncio's own that has waited, it
    does not look at what the connection was lost by meanwhile."""
    exception, source.exception = source.exception, None
    try:
        return await reading
    finally:
        source.exception = exception


class StreamReader(asyncio.StreamReader):
    """asyncio.StreamReader of a connection on a pyconc loop.

    Source: asyncio.StreamReader
    """

    # What asyncio's reader keeps in attributes with an underscore is in `_source`, whose methods answer with bytes, or
    # with the future to wait for, or with None when asyncio's method has to see to it.

    __slots__ = ()

    def feed_data(self, data):
        """Append `data` to what is to be read, and wake who waits for it.

        Source: asyncio.StreamReader.feed_data
        """
        if type(data) is bytes:
            self._source.feed(data)
        else:
            asyncio_feed_data(self, data)

    async def read(self, n=-1):
        """Read what has come, up to `n` bytes, waiting for the first; for n < 0 all until the end of the stream.

        Gives b"" at the end, or for n == 0. Raises what the connection was lost by, and RuntimeError when
        another coroutine waits in this reader. Source: asyncio.StreamReader.read
        """
        source, waited = self._source, False
        while type(data := source.read(n, waited)) is not bytes:
            if data is None:
                return await asyncio_read(self, n)
            waited = True
            try:
                await data      # whose end has the source forget it
            except BaseException:
                source.waiter = None
                raise
        return data

    async def readexactly(self, n):
        """Read `n` bytes.

        Raises asyncio.IncompleteReadError, with what there is, when the stream ends before; ValueError for n < 0;
        and as read(). Source: asyncio.StreamReader.readexactly
        """
        source, waited = self._source, False
        while type(data := source.readexactly(n, waited)) is not bytes:
            if data is None:
                reading = asyncio_readexactly(self, n)
                return await (as_it_came(source, reading) if waited else reading)
            waited = True
            try:
                await data      # whose end has the source forget it
            except BaseException:
                source.waiter = None
                raise
        return data

    async def readuntil(self, separator=b"\n"):
        """Read up to and with `separator`: bytes or, from Python 3.13 on, a tuple of them.

        Raises asyncio.IncompleteReadError when the stream ends before it has come, asyncio.LimitOverrunError when
        there are more than the reader's limit of bytes before it, ValueError when it is empty; and as read().
        Source: asyncio.StreamReader.readuntil
        """
        source, searched = self._source, -1
        while type(data := source.readuntil(separator, searched)) is not bytes:
            if data is None:
                reading = asyncio_readuntil(self, separator)
                return await (reading if searched < 0 else as_it_came(source, reading))
            searched = max(0, len(source.buffer) + 1 - len(separator))
            try:
                await data      # whose end has the source forget it
            except BaseException:
                source.waiter = None
                raise
        return data

    async def readline(self):
        """Read up to and with b"\\n", or what there is when the stream ends.

        Raises ValueError for a line longer than the reader's limit; and as read().
        Source: asyncio.StreamReader.readline
        """
        source, searched = self._source, -1
        while type(data := source.readuntil(b"\n", searched)) is not bytes:
            if data is None:
                reading = asyncio_readline(self)
                return await (reading if searched < 0 else as_it_came(source, reading))
            searched = len(source.buffer)
            try:
                await data      # whose end has the source forget it
            except BaseException:
                source.waiter = None
                raise
        return data


class StreamWriter(asyncio.StreamWriter):
    """asyncio.StreamWriter of a connection that a server on a pyconc loop accepted.

    Source: asyncio.StreamWriter
    """

    __slots__ = ()

    async def drain(self):
        """Wait until the transport's buffer has room.

        Raises what the connection was lost by, or ConnectionResetError. Source: asyncio.StreamWriter.drain
        """
        if not self._source.drained(self._transport):
            await asyncio_drain(self)


def in_source(name):
    """The property `_name` of a reader, kept in its source."""
    def get(self):
        return getattr(self._source, name)

    def set(self, value):
        setattr(self._source, name, value)

    return property(get, set)


IN_SOURCE = ("buffer", "eof", "exception", "limit", "loop", "paused", "transport", "waiter")
ATTRIBUTES = {f"_{name}" for name in IN_SOURCE}
for _name in IN_SOURCE:
    setattr(StreamReader, f"_{_name}", in_source(_name))

ORIGINAL = {cls: {name: method for name, method in vars(cls).items()
                  if not name.startswith("__") and method is not None}
            for cls in (asyncio.StreamReader, asyncio.StreamWriter)}


def is_asyncios(method):
    """False for what a program had replaced when this was imported."""
    return getattr(method, "__globals__", None) is vars(asyncio.streams)


UNTOUCHED = {cls: all(not callable(method) or is_asyncios(method) for method in methods.values())
             for cls, methods in ORIGINAL.items()}
DRAIN_HELPERS = {asyncio_drain_helper} if is_asyncios(asyncio_drain_helper) else set()


def is_original(stream, cls):
    """Whether `stream` is one of asyncio's own, and nobody has replaced a method of that class or of this stream."""
    return (type(stream) is cls and UNTOUCHED[cls] and vars(stream).keys().isdisjoint(ORIGINAL[cls]) and
            all(vars(cls).get(name) is method for name, method in ORIGINAL[cls].items()))


def adopt_reader(reader):
    if not (is_original(reader, asyncio.StreamReader) and vars(reader).keys() >= ATTRIBUTES):
        return None
    source = StreamSource(reader, reader._buffer, reader._limit, reader._loop)
    for name in IN_SOURCE:
        setattr(source, name, getattr(reader, f"_{name}"))
    change(reader, StreamReader, source, ATTRIBUTES)
    return source


def change(stream, cls, source, in_source=()):
    """Makes `stream` a `cls`, with a dictionary of its own: the interpreter finds attributes of an object whose class
    was changed slowly in one that shares its keys with others."""
    stream._source = source     # by now, and nothing goes before the end: the stream is whole whatever fails in between
    attributes = {**vars(stream)}
    for name in in_source:
        del attributes[name]
    stream.__class__ = cls
    stream.__dict__ = attributes


def adopt_writer(writer, reader, source):
    # Of a reader that the protocol has put in the place of its own, the source knows nothing.
    if (type(reader) is StreamReader and reader._source is source and is_original(writer, asyncio.StreamWriter) and
            writer._reader is reader and
            getattr(getattr(writer._protocol, "_drain_helper", None), "__func__", None) in DRAIN_HELPERS):
        change(writer, StreamWriter, source)


def adopt_streams(protocol):
    """Called with a StreamReaderProtocol before its connection_made()."""
    # A class derived from it need not have called its __init__().
    reader, callback = getattr(protocol, "_stream_reader", None), getattr(protocol, "_client_connected_cb", None)
    source = None if reader is None else adopt_reader(reader)
    if callback is None or source is None:
        return

    def connected(reader, writer):
        protocol._client_connected_cb = callback
        try:
            adopt_writer(writer, reader, source)
        except Exception as error:
            # As of a reader: whatever fails, the writer is asyncio's as before, and the program gets it.
            asyncio.get_running_loop().call_exception_handler({
                "message": "Exception in taking over asyncio's streams", "exception": error,
                "transport": writer.transport, "protocol": protocol})
        return callback(reader, writer)

    protocol._client_connected_cb = connected


def source_of(protocol):
    """The source that data for an asyncio.StreamReaderProtocol goes to, or None: its reader is not one of ours."""
    reader = protocol._stream_reader
    return reader._source if type(reader) is StreamReader and "feed_data" not in vars(reader) else None
