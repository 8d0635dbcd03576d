"""TLS: connections that have it from the start, and start_tls()."""
import ssl
from asyncio import StreamReaderProtocol

from pyconc import _core

__all__ = ["TLS"]


class TLS:
    """The loop's methods for TLS."""

    def _make_ssl_transport(self, rawsock, protocol, sslcontext, waiter=None, *, server_side=False,
                            server_hostname=None, extra=None, server=None, ssl_handshake_timeout=None,
                            ssl_shutdown_timeout=None, context=None):
        try:
            below = _core.SSLProtocol(
                self, protocol, sslcontext, waiter, server_side, server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout,
                context=context)
        except BaseException:
            if server is not None:      # nobody else knows of the connection, and its peer waits
                rawsock.close()
            raise
        transport = below._app_transport
        try:
            self._make_socket_transport(rawsock, below, extra=extra, server=server, context=context)
        except BaseException:
            transport.abort()
            raise
        return transport

    async def start_tls(self, transport, protocol, sslcontext, *, server_side=False, server_hostname=None,
                        ssl_handshake_timeout=None, ssl_shutdown_timeout=None):
        """Go on with TLS on a connection; returns the transport that `protocol` has to use from then on.

        `transport`: one that the loop made, with TLS or without; `sslcontext`: an ssl.SSLContext. Timeouts are
        seconds. Raises TypeError for another kind of transport or context, and what the handshake fails with.
        Source: asyncio.loop.start_tls
        """
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        waiter = self.create_future()
        below = _core.SSLProtocol(
            self, protocol, sslcontext, waiter, server_side, server_hostname, call_connection_made=False,
            ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout)
        above = below._app_transport
        # Nothing may be received before the handshake has begun.
        transport.pause_reading()
        transport.set_protocol(below)
        calls = [self.call_soon(below.connection_made, transport)]
        if server_side and isinstance(protocol, StreamReaderProtocol) and protocol._stream_reader is not None:
            # The client's first message may have come with its last plain line.
            early = bytes(protocol._stream_reader._buffer)
            protocol._stream_reader._buffer.clear()
            if early:
                calls.append(self.call_soon(below.data_received, early))
        calls.append(self.call_soon(transport.resume_reading))
        try:
            await waiter
        except BaseException:
            transport.close()
            for call in calls:
                call.cancel()
            waiter = None   # its exception's traceback holds this frame
            raise
        return above
