# SPDX-License-Identifier: MIT
"""How TLS connections come to be: certificates, names, versions, sessions, timeouts, bad arguments."""
import asyncio
import gc
import logging
import os
import socket
import ssl
import sys

import pytest

pytestmark = pytest.mark.usefixtures("no_leaked_fds")


# What a client gets whose server refuses: asyncio hangs up without the alert that would say why.
REFUSED = (ssl.SSLError, ConnectionResetError)


async def exchange(protocol, data=b"ping"):
    """The echo of `data`."""
    protocol.transport.write(data)
    return await protocol.received(len(data))


# ---- every way to open one

def test_client_and_server(run, tls, version):
    async def main():
        protocol, peer = await tls.pair(peer_factory=tls.Echo, version=version)
        assert await exchange(protocol) == b"ping"
        assert protocol.transport.get_extra_info("ssl_object").version() == {"TLSv1_2": "TLSv1.2",
                                                                             "TLSv1_3": "TLSv1.3"}[version.name]
        await tls.finish(protocol, peer)
        # Who closes hears of the other's end as well, where that comes in time.
        assert [event for event in protocol.events if event != "eof"] == ["made", "data", ("lost", None)]
        assert peer.events == ["made", "eof", ("lost", None)]

    run(main)
    assert not run.reports


def test_is_an_asyncio_transport(run, tls):
    async def main():
        protocol, peer = await tls.pair()
        for transport in (protocol.transport, peer.transport):
            assert isinstance(transport, asyncio.Transport)
            assert not isinstance(transport, asyncio.DatagramTransport)
        assert protocol.transport.get_protocol() is protocol
        await tls.finish(protocol, peer)

    run(main)


def test_unix_sockets(run, tls, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(tls.Echo, path, ssl=tls.server_context())
        _, protocol = await loop.create_unix_connection(tls.Recorder, path, ssl=tls.client_context(),
                                                        server_hostname="localhost")
        assert await exchange(protocol) == b"ping"
        await tls.finish(protocol)
        server.close()
        await server.wait_closed()

    run(main)
    assert not run.reports


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_socket_given_to_either_end(run, tls, family):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = tls.tcp_pair() if family == socket.AF_INET else socket.socketpair()
        connect = loop.create_connection if family == socket.AF_INET else loop.create_unix_connection
        (_, protocol), (_, peer) = await asyncio.gather(
            connect(tls.Recorder, sock=ours, ssl=tls.client_context(), server_hostname="localhost"),
            loop.connect_accepted_socket(tls.Echo, theirs, ssl=tls.server_context()))
        assert await exchange(protocol) == b"ping"
        await tls.finish(protocol, peer)

    run(main)
    assert not run.reports


def test_listening_socket_given(run, tls):
    async def main():
        loop = asyncio.get_running_loop()
        sock = socket.create_server((tls.HOST, 0))
        server = await loop.create_server(tls.Echo, sock=sock, ssl=tls.server_context())
        protocol = await tls.connect(server)
        assert await exchange(protocol) == b"ping"
        await tls.finish(protocol)
        server.close()
        await server.wait_closed()

    run(main)


def test_ssl_true_trusts_the_system(run, tls, monkeypatch):
    """ssl=True makes the default context, whose certificates come from where SSL_CERT_FILE says."""
    async def main():
        server, _ = await tls.serve()
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.folder / "ca.pem"))
        loop = asyncio.get_running_loop()
        address = server.sockets[0].getsockname()
        _, protocol = await loop.create_connection(tls.Recorder, "localhost", address[1], family=socket.AF_INET,
                                                   ssl=True)
        assert await exchange(protocol) == b"ping"
        context = protocol.transport.get_extra_info("sslcontext")
        assert context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED
        await tls.finish(protocol)
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.folder / "stray.pem"))
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(tls.Recorder, *address, ssl=True, server_hostname="localhost")
        server.close()

    run(main)


def test_many_at_once(run, tls):
    async def main():
        server, protocols = await tls.serve()
        context = tls.client_context()
        clients = await asyncio.gather(*[tls.connect(server, context=context) for _ in range(50)])
        echoes = await asyncio.gather(*[exchange(client, b"%d" % number * 1000)
                                        for number, client in enumerate(clients)])
        assert echoes == [b"%d" % number * 1000 for number in range(50)]
        await tls.finish(*clients)
        await asyncio.gather(*[protocol.lost for protocol in protocols])
        server.close()

    run(main)
    assert not run.reports


# ---- what it tells

def test_extra_info(run, tls, version):
    async def main():
        client, server = tls.contexts(version)
        listener, protocols = await tls.serve(context=server)
        protocol = await tls.connect(listener, context=client)
        await exchange(protocol)
        ours, theirs = protocol.transport, protocols[0].transport

        assert ours.get_extra_info("sslcontext") is client
        assert theirs.get_extra_info("sslcontext") is server
        assert ours.get_extra_info("compression") is None
        assert ours.get_extra_info("cipher") == theirs.get_extra_info("cipher")
        name, protocol_name, bits = ours.get_extra_info("cipher")
        assert isinstance(name, str) and protocol_name.startswith("TLSv1.") and bits >= 128
        assert ("subjectAltName", (("DNS", "localhost"), ("IP Address", "127.0.0.1"),
                                   ("IP Address", "0:0:0:0:0:0:0:1"))) in ours.get_extra_info("peercert").items()
        assert theirs.get_extra_info("peercert") is None

        assert ours.get_extra_info("peername") == theirs.get_extra_info("sockname") == listener.sockets[0].getsockname()
        assert ours.get_extra_info("socket").fileno() > 2
        assert ours.get_extra_info("nonsense") is None
        assert ours.get_extra_info("nonsense", 5) == 5
        await tls.finish(protocol, protocols[0])
        listener.close()

    run(main)


def test_ssl_object(run, tls, version):
    async def main():
        protocol, peer = await tls.pair(peer_factory=tls.Echo, version=version)
        await exchange(protocol)
        ours, theirs = [one.transport.get_extra_info("ssl_object") for one in (protocol, peer)]
        assert isinstance(ours, ssl.SSLObject) and isinstance(theirs, ssl.SSLObject)
        assert ours is protocol.transport.get_extra_info("ssl_object")

        assert ours.version() == theirs.version()
        assert ours.cipher() == protocol.transport.get_extra_info("cipher")
        assert ours.getpeercert() == protocol.transport.get_extra_info("peercert")
        pem = (tls.folder / "localhost.pem").read_text()
        assert ours.getpeercert(True) == ours.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(pem)
        assert theirs.getpeercert() is None
        assert ours.compression() is None
        assert ours.selected_alpn_protocol() is None
        assert not ours.server_side and theirs.server_side
        assert ours.server_hostname == "localhost" and theirs.server_hostname is None
        assert ours.context is protocol.transport.get_extra_info("sslcontext")
        assert ours.session is not None and ours.session_reused is False
        assert ours.pending() == 0
        assert {cipher[0] for cipher in theirs.shared_ciphers()} >= {ours.cipher()[0]}
        await tls.finish(protocol, peer)
        assert ours.version() is None or ours.version() == theirs.version()     # alive as long as somebody has it

    run(main)


def test_channel_binding(run, tls):
    """tls-unique is the same for both ends, with TLS 1.2."""
    async def main():
        protocol, peer = await tls.pair(version=ssl.TLSVersion.TLSv1_2)
        ours, theirs = [one.transport.get_extra_info("ssl_object") for one in (protocol, peer)]
        assert ours.get_channel_binding() == theirs.get_channel_binding("tls-unique") != b""
        with pytest.raises(ValueError):
            ours.get_channel_binding("tls-nonsense")
        await tls.finish(protocol, peer)

    run(main)


def test_ssl_object_outlives_its_connection(run, tls):
    async def main():
        protocol, peer = await tls.pair()
        kept = [one.transport.get_extra_info("ssl_object") for one in (protocol, peer)]
        await tls.finish(protocol, peer)
        return kept

    for obj in run(main):
        gc.collect()
        assert obj.cipher() is None or len(obj.cipher()) == 3
        assert "SSLObject" in repr(obj)
        obj.context.get_ciphers()


def test_information_is_there_in_connection_made(run, tls):
    async def main():
        seen = {}

        class Looks(tls.Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                seen[self] = [transport.get_extra_info(name) for name in ("ssl_object", "cipher", "peername")]

        protocol, peer = await tls.pair(Looks, Looks)
        assert all(None not in values for values in seen.values()) and len(seen) == 2
        await tls.finish(protocol, peer)

    run(main)


def test_alpn(run, tls, version):
    async def main():
        client, server = tls.contexts(version)
        client.set_alpn_protocols(["spdy", "h2", "http/1.1"])
        server.set_alpn_protocols(["http/1.1", "h2"])
        listener, protocols = await tls.serve(context=server)
        protocol = await tls.connect(listener, context=client)
        await exchange(protocol)
        assert [one.transport.get_extra_info("ssl_object").selected_alpn_protocol()
                for one in (protocol, protocols[0])] == ["http/1.1"] * 2
        await tls.finish(protocol, protocols[0])
        listener.close()

    run(main)


# ---- names

def test_sni_callback_switches_the_context(run, tls, version):
    async def main():
        asked = []
        first, other = tls.server_context(version=version), tls.server_context("other.example", version)

        def choose(ssl_object, name, context):
            asked.append((type(ssl_object), name, context is first))
            if name == "other.example":
                ssl_object.context = other

        first.sni_callback = choose
        listener, protocols = await tls.serve(context=first)
        for name in ("localhost", "other.example"):
            protocol = await tls.connect(listener, server_hostname=name)
            assert await exchange(protocol) == b"ping"
            names = dict(protocol.transport.get_extra_info("peercert")["subjectAltName"])
            assert names["DNS"] == name
            await tls.finish(protocol, protocols[-1])
        assert asked == [(ssl.SSLObject, "localhost", True), (ssl.SSLObject, "other.example", True)]
        assert protocols[-1].transport.get_extra_info("ssl_object").context is other
        listener.close()

    run(main)
    assert not run.reports


def test_no_name_is_asked_for_with_an_address(run, tls):
    """An IP address is checked against the certificate, but is no server name to ask for."""
    async def main():
        asked = []
        server = tls.server_context()
        server.sni_callback = lambda ssl_object, name, context: asked.append(name)
        listener, _ = await tls.serve(context=server)
        protocol = await tls.connect(listener, server_hostname=tls.HOST)
        assert await exchange(protocol) == b"ping"
        assert asked == [None]
        await tls.finish(protocol)
        listener.close()

    run(main)


def test_sni_callback_refuses(run, tls):
    async def main():
        server = tls.server_context()
        server.sni_callback = lambda ssl_object, name, context: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        listener, protocols = await tls.serve(context=server)
        with pytest.raises(REFUSED, match="UNRECOGNIZED_NAME|^$"):
            await tls.connect(listener)
        assert protocols[0].events == []
        listener.close()

    run(main)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_sni_callback_raises(run, tls, monkeypatch):
    async def main():
        server = tls.server_context()

        def choose(ssl_object, name, context):
            raise ZeroDivisionError(name)

        server.sni_callback = choose
        listener, _ = await tls.serve(context=server)
        with pytest.raises(REFUSED, match="HANDSHAKE_FAILURE|^$"):
            await tls.connect(listener)
        listener.close()

    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
    run(main)
    assert unraisable == [ZeroDivisionError]


@pytest.mark.parametrize("hostname, why", [
    ("wrong.example", "Hostname mismatch, certificate is not valid for 'wrong.example'"),
    ("127.0.0.2", "IP address mismatch, certificate is not valid for '127.0.0.2'")])
def test_wrong_name(run, tls, version, hostname, why):
    async def main():
        listener, protocols = await tls.serve(context=tls.server_context(version=version))
        protocol = None

        def factory():
            nonlocal protocol
            protocol = tls.Recorder()
            return protocol

        with pytest.raises(ssl.SSLCertVerificationError, match=why) as info:
            await tls.connect(listener, factory, server_hostname=hostname)
        assert info.value.reason == "CERTIFICATE_VERIFY_FAILED" and why in info.value.verify_message
        assert protocol.events == []
        await asyncio.wait({one.lost for one in protocols}, timeout=0)
        assert protocols[0].events in ([], ["made"]) or version == ssl.TLSVersion.TLSv1_3
        listener.close()
        await listener.wait_closed()

    run(main)
    assert not run.reports


def test_untrusted_certificate(run, tls):
    async def main():
        listener, _ = await tls.serve(context=tls.server_context("stray"))
        with pytest.raises(ssl.SSLCertVerificationError, match="self-signed certificate"):
            await tls.connect(listener)
        unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unchecked.check_hostname = False
        unchecked.verify_mode = ssl.CERT_NONE
        protocol = await tls.connect(listener, context=unchecked, server_hostname="any.example")
        assert await exchange(protocol) == b"ping"
        assert protocol.transport.get_extra_info("peercert") == {}
        await tls.finish(protocol)
        listener.close()

    run(main)
    assert not run.reports


def test_host_is_the_name_by_default(run, tls):
    async def main():
        listener, _ = await tls.serve()
        loop = asyncio.get_running_loop()
        port = listener.sockets[0].getsockname()[1]
        for host in (tls.HOST, "localhost"):
            _, protocol = await loop.create_connection(tls.Recorder, host, port, family=socket.AF_INET,
                                                       ssl=tls.client_context())
            assert protocol.transport.get_extra_info("ssl_object").server_hostname == host
            await tls.finish(protocol)
        listener.close()

    run(main)


def test_empty_name_is_not_checked(run, tls):
    """server_hostname="" asks for no name."""
    async def main():
        listener, _ = await tls.serve()
        context = tls.client_context()
        context.check_hostname = False
        protocol = await tls.connect(listener, context=context, server_hostname="")
        assert await exchange(protocol) == b"ping"
        await tls.finish(protocol)
        listener.close()

    run(main)


# ---- client certificates

def test_client_certificate(run, tls, version):
    async def main():
        listener, protocols = await tls.serve(context=tls.server_context(version=version, client_certificate=True))
        protocol = await tls.connect(listener, context=tls.client_context(certificate="client"))
        assert await exchange(protocol) == b"ping"
        assert ((("commonName", "A client"),),) == protocols[0].transport.get_extra_info("peercert")["subject"]
        await tls.finish(protocol, protocols[0])
        listener.close()

    run(main)
    assert not run.reports


def test_client_certificate_missing(run, tls, version):
    """With TLS 1.3 the client's handshake is complete before the server looks at the certificate."""
    async def main():
        listener, protocols = await tls.serve(context=tls.server_context(version=version, client_certificate=True))
        if version == ssl.TLSVersion.TLSv1_2:
            with pytest.raises(REFUSED, match="HANDSHAKE_FAILURE|^$"):
                await tls.connect(listener)
        else:
            protocol = await tls.connect(listener)
            exc = await protocol.lost
            assert exc is None or isinstance(exc, REFUSED)
            assert protocol.transport.is_closing()
        assert protocols[0].events == []
        listener.close()
        await listener.wait_closed()

    run(main)
    assert all(message.startswith("Fatal error on SSL protocol") is False for message, _ in run.reported())


def test_post_handshake_authentication(run, tls):
    """TLS 1.3: the server asks for the certificate when it wants one."""
    async def main():
        server = tls.server_context(version=ssl.TLSVersion.TLSv1_3)
        server.load_verify_locations(tls.folder / "ca.pem")
        server.verify_mode = ssl.CERT_REQUIRED
        server.post_handshake_auth = True
        client = tls.client_context(certificate="client")
        client.post_handshake_auth = True
        ours, theirs = tls.tcp_pair()
        peer = tls.Peer(theirs, server, server_side=True)
        (_, protocol), _ = await asyncio.gather(
            asyncio.get_running_loop().create_connection(tls.Recorder, sock=ours, ssl=client,
                                                         server_hostname="localhost"), peer.handshake())
        assert peer.ssl.getpeercert() is None
        peer.ssl.verify_client_post_handshake()
        await peer.write(b"who?")
        assert await protocol.received(4) == b"who?"
        protocol.transport.write(b"me")
        assert await peer.read() == b"me"
        assert peer.ssl.getpeercert()["subject"] == ((("commonName", "A client"),),)
        peer.close()
        await protocol.lost

    run(main)


# ---- versions, ciphers, keys

def test_no_version_in_common(run, tls):
    async def main():
        listener, protocols = await tls.serve(context=tls.server_context(version=ssl.TLSVersion.TLSv1_3))
        with pytest.raises(REFUSED, match="PROTOCOL_VERSION|^$"):
            await tls.connect(listener, context=tls.client_context(ssl.TLSVersion.TLSv1_2))
        assert protocols[0].events == []
        listener.close()
        await listener.wait_closed()

    run(main)


def test_no_cipher_in_common(run, tls):
    async def main():
        client, server = tls.contexts(ssl.TLSVersion.TLSv1_2)
        client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        listener, _ = await tls.serve(context=server)
        with pytest.raises(REFUSED, match="HANDSHAKE_FAILURE|^$"):
            await tls.connect(listener, context=client)
        listener.close()
        await listener.wait_closed()

    run(main)


def test_chosen_cipher(run, tls):
    async def main():
        client, server = tls.contexts(ssl.TLSVersion.TLSv1_2)
        client.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
        listener, _ = await tls.serve(context=server)
        protocol = await tls.connect(listener, context=client)
        assert await exchange(protocol) == b"ping"
        assert protocol.transport.get_extra_info("cipher") == ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLSv1.2", 256)
        await tls.finish(protocol)
        listener.close()

    run(main)


def test_keylog(run, tls, version, tmp_path):
    async def main():
        client, server = tls.contexts(version)
        client.keylog_filename = str(tmp_path / "client")
        server.keylog_filename = str(tmp_path / "server")
        listener, _ = await tls.serve(context=server)
        protocol = await tls.connect(listener, context=client)
        assert await exchange(protocol) == b"ping"
        await tls.finish(protocol)
        listener.close()

    run(main)
    lines = [{line for line in (tmp_path / name).read_text().splitlines() if not line.startswith("#")}
             for name in ("client", "server")]
    assert lines[0] == lines[1]
    label = "CLIENT_RANDOM" if version == ssl.TLSVersion.TLSv1_2 else "CLIENT_TRAFFIC_SECRET_0"
    assert any(line.startswith(label + " ") for line in lines[0])


@pytest.mark.skipif(not getattr(ssl, "HAS_PSK", False), reason="pre-shared keys came with Python 3.13")
def test_pre_shared_key(run, tls):
    async def main():
        client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        for context in (client, server):
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("PSK")
        asked = []
        client.set_psk_client_callback(lambda hint: ("a client", b"secret"))
        server.set_psk_server_callback(lambda identity: asked.append(identity) or b"secret", "hint")
        listener, _ = await tls.serve(context=server)
        protocol = await tls.connect(listener, context=client)
        assert await exchange(protocol) == b"ping"
        assert asked == ["a client"]
        await tls.finish(protocol)
        listener.close()

    run(main)


def test_one_context_for_both_ends_is_refused(run_ours, tls):
    async def main():
        listener, _ = await tls.serve()
        with pytest.raises(ssl.SSLError, match="Cannot create a client socket with a PROTOCOL_TLS_SERVER context"):
            await tls.connect(listener, context=tls.server_context())
        listener.close()

    run_ours(main)


# ---- sessions: the loops have no argument for one, a context that brings it along does it

class Remembers(ssl.SSLContext):
    """A client's context that resumes the session it is given."""

    session = None

    def wrap_bio(self, *args, **kwargs):
        return super().wrap_bio(*args, session=self.session, **kwargs)


def test_session_resumed(run, tls, version):
    async def main():
        context = tls.client_context(version, cls=Remembers)
        listener, protocols = await tls.serve(context=tls.server_context(version=version))
        reused = []
        for _ in range(3):
            protocol = await tls.connect(listener, context=context)
            assert await exchange(protocol) == b"ping"      # with TLS 1.3 the ticket comes with the data
            ssl_object = protocol.transport.get_extra_info("ssl_object")
            reused.append((ssl_object.session_reused,
                           protocols[-1].transport.get_extra_info("ssl_object").session_reused))
            context.session = ssl_object.session
            assert context.session.has_ticket
            await tls.finish(protocol, protocols[-1])
        assert reused == [(False, False), (True, True), (True, True)]
        stats = context.session_stats()
        assert stats["hits"] == 2 and stats["connect_good"] == 3
        listener.close()

    run(main)
    assert not run.reports


def test_session_of_another_context(run_ours, tls):
    async def main():
        listener, _ = await tls.serve()
        first, second = tls.client_context(), tls.client_context(cls=Remembers)
        protocol = await tls.connect(listener, context=first)
        await exchange(protocol)
        second.session = protocol.transport.get_extra_info("ssl_object").session
        await tls.finish(protocol)
        with pytest.raises(ValueError, match="Session refers to a different SSLContext"):
            await tls.connect(listener, context=second)
        listener.close()

    run_ours(main)


def test_object_class_of_the_context(run, tls):
    """SSLContext.sslobject_class says what get_extra_info("ssl_object") is."""
    class Own(ssl.SSLObject):
        def own(self):
            return self.version()

    async def main():
        client, server = tls.contexts()
        client.sslobject_class = server.sslobject_class = Own
        listener, protocols = await tls.serve(context=server)
        protocol = await tls.connect(listener, context=client)
        assert await exchange(protocol) == b"ping"
        for one in (protocol, protocols[0]):
            assert one.transport.get_extra_info("ssl_object").own() == "TLSv1.3"
        await tls.finish(protocol, protocols[0])
        listener.close()

    run(main)


# ---- timeouts, hang-ups and cancelling

def test_handshake_timeout_of_a_client(run, tls):
    async def main():
        ours, theirs = tls.tcp_pair()
        protocol = tls.Recorder()
        message = "SSL handshake is taking longer than 0.01 seconds: aborting the connection"
        with pytest.raises(ConnectionAbortedError, match=message):
            await asyncio.get_running_loop().create_connection(
                lambda: protocol, sock=ours, ssl=tls.client_context(), server_hostname="localhost",
                ssl_handshake_timeout=0.01)
        assert protocol.events == []
        peer = tls.Peer(theirs, tls.server_context(), server_side=True)
        assert await peer.end() in ("eof", "reset")
        peer.close()

    run(main)
    assert not run.reports


async def connect_in_time(tls, listener, protocols, **kwargs):
    """A client of a server that does not wait long for a handshake: tries 20 times, for a machine that stalls."""
    for left in reversed(range(20)):
        try:
            protocol = await tls.connect(listener, **kwargs)
            await asyncio.wait({protocols[-1].made, protocol.lost}, return_when="FIRST_COMPLETED")
            if protocols[-1].made.done():
                return protocol
            raise protocol.lost.result() or ConnectionError
        except OSError:
            if not left:
                raise


def test_handshake_timeout_of_a_server(run, tls):
    async def main():
        listener, protocols = await tls.serve(ssl_handshake_timeout=0.5)    # enough for one that goes well
        loop = asyncio.get_running_loop()
        sock = socket.create_connection(listener.sockets[0].getsockname())
        sock.setblocking(False)
        assert await loop.sock_recv(sock, 100) == b""
        sock.close()
        assert len(protocols) == 1 and protocols[0].events == []
        await tls.finish(await connect_in_time(tls, listener, protocols, ssl_handshake_timeout=50))     # it goes on
        listener.close()
        await listener.wait_closed()

    run(main)
    assert not run.reports


def test_handshake_timeout_is_over_with_the_handshake(run, tls):
    async def main():
        listener, protocols = await tls.serve(tls.Echo, ssl_handshake_timeout=0.5)
        protocol = await connect_in_time(tls, listener, protocols, ssl_handshake_timeout=0.5)
        listener.close()
        await asyncio.sleep(0.6)
        assert await exchange(protocol) == b"ping"
        await tls.finish(protocol, protocols[-1])

    run(main)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_peer_goes_during_the_handshake(run, tls, how):
    async def main():
        ours, theirs = tls.tcp_pair()
        peer = tls.Peer(theirs, tls.server_context(), server_side=True)
        protocol = tls.Recorder()
        connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(
            lambda: protocol, sock=ours, ssl=tls.client_context(), server_hostname="localhost"))
        assert await peer.fill()
        getattr(peer, how)()
        with pytest.raises(ConnectionResetError):
            await connecting
        assert protocol.events == []

    run(main)
    assert not run.reports


def test_cancelled_during_the_handshake(run, tls):
    async def main():
        ours, theirs = tls.tcp_pair()
        peer = tls.Peer(theirs, tls.server_context(), server_side=True)
        protocol = tls.Recorder()
        connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(
            lambda: protocol, sock=ours, ssl=tls.client_context(), server_hostname="localhost"))
        assert await peer.fill()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert await peer.end() in ("eof", "reset")
        peer.close()
        assert ours.fileno() == -1
        assert protocol.events == []

    run(main)
    assert not run.reports


def test_cancelled_number_may_be_taken_again(run, tls):
    """The descriptor of a cancelled connection is closed once: not again when somebody else has its number."""
    async def main():
        for _ in range(5):
            ours, theirs = tls.tcp_pair()
            peer = tls.Peer(theirs, tls.server_context(), server_side=True)
            connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(
                tls.Recorder, sock=ours, ssl=tls.client_context(), server_hostname="localhost"))
            assert await peer.fill()
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await peer.end()
            taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
            del connecting
            gc.collect()
            await asyncio.sleep(0)
            for fd in taken:
                os.fstat(fd)
                os.close(fd)
            peer.close()

    run(main)


def test_server_closed_during_a_handshake(run, tls):
    async def main():
        listener, protocols = await tls.serve()
        sock = socket.create_connection(listener.sockets[0].getsockname())
        peer = tls.Peer(sock, tls.client_context())
        with pytest.raises(ssl.SSLWantReadError):
            peer.ssl.do_handshake()
        await peer.flush()
        await peer.fill()           # the server's flight: it is in the middle of the handshake
        listener.close()
        await peer.handshake()
        await peer.write(b"ping")
        assert await peer.read() == b"ping"
        peer.close()
        await protocols[0].lost

    run(main)


# ---- bad arguments

@pytest.mark.parametrize("arguments, error, message", [
    ({"ssl_handshake_timeout": 0}, ValueError, "ssl_handshake_timeout should be a positive number, got 0"),
    ({"ssl_handshake_timeout": -1.5}, ValueError, "ssl_handshake_timeout should be a positive number, got -1.5"),
    ({"ssl_shutdown_timeout": 0}, ValueError, "ssl_shutdown_timeout should be a positive number, got 0"),
    ({"ssl_shutdown_timeout": -1}, ValueError, "ssl_shutdown_timeout should be a positive number, got -1"),
    ({"ssl_handshake_timeout": "5"}, TypeError, "'<=' not supported between instances of 'str' and 'int'"),
    ({"ssl": "yes"}, (TypeError, AttributeError), None),
    ({"ssl": None}, ValueError, "server_hostname is only meaningful with ssl"),
    ({"ssl": None, "server_hostname": None, "ssl_handshake_timeout": 1}, ValueError,
     "ssl_handshake_timeout is only meaningful with ssl"),
    ({"ssl": None, "server_hostname": None, "ssl_shutdown_timeout": 1}, ValueError,
     "ssl_shutdown_timeout is only meaningful with ssl"),
    ({"server_hostname": None}, ValueError, "You must set server_hostname when using ssl without a host"),
    ({"server_hostname": 5}, (TypeError, AttributeError), None),
    ({"server_hostname": "a\0b"}, (TypeError, ValueError), None),
    ({"server_hostname": ".wrong"}, ValueError, None),
])
def test_bad_arguments_of_a_client(run, tls, arguments, error, message):
    async def main():
        ours, theirs = tls.tcp_pair()
        with ours, theirs, pytest.raises(error) as info:
            await asyncio.get_running_loop().create_connection(
                tls.Recorder, sock=ours, **{"ssl": tls.client_context(), "server_hostname": "localhost"} | arguments)
        if message:
            assert message in str(info.value)

    run(main)


@pytest.mark.parametrize("arguments, error, message", [
    ({"ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
    ({"ssl": False}, TypeError, "ssl argument must be an SSLContext or None"),
    ({"ssl": None, "ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
    ({"ssl": None, "ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
])
def test_bad_arguments_of_a_server(run, tls, tmp_path, arguments, error, message):
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(error, match=message):
            await loop.create_server(tls.Recorder, tls.HOST, 0, **arguments)
        with pytest.raises(error, match=message):
            await loop.create_unix_server(tls.Recorder, str(tmp_path / "socket"), **arguments)

    run(main)


@pytest.mark.parametrize("arguments, error, message", [
    ({"ssl": True}, (TypeError, ValueError), None),
    ({"ssl": "no context"}, (TypeError, AttributeError), None),
    ({"ssl": None, "ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
    ({"ssl": None, "ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
    ({"ssl_handshake_timeout": 0}, ValueError, "ssl_handshake_timeout should be a positive number, got 0"),
])
def test_bad_arguments_of_an_accepted_socket(run, tls, arguments, error, message):
    async def main():
        ours, theirs = tls.tcp_pair()
        with ours, theirs, pytest.raises(error, match=message):
            await asyncio.get_running_loop().connect_accepted_socket(
                tls.Recorder, ours, **{"ssl": tls.server_context()} | arguments)

    run(main)


@pytest.mark.parametrize("debug", [False, True])
def test_server_with_a_context_for_clients_hangs_up(run_ours, tls, debug):
    async def main():
        loop, reports = asyncio.get_running_loop(), []
        loop.set_debug(debug)
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        context = tls.client_context()
        context.check_hostname = False      # or Python 3.14 complains of that first
        server = await loop.create_server(tls.Recorder, "127.0.0.1", 0, ssl=context)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        assert "Cannot create a server socket" in str(reports[0]["exception"])

    run_ours(main)


def test_unix_client_needs_a_name(run, tls, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        with pytest.raises(ValueError, match="you have to pass server_hostname when using ssl"):
            await loop.create_unix_connection(tls.Recorder, path, ssl=tls.client_context())
        with pytest.raises(ValueError, match="server_hostname is only meaningful with ssl"):
            await loop.create_unix_connection(tls.Recorder, path, server_hostname="localhost")

    run(main)


# ---- debug mode

def test_debug_mode_tells_of_handshakes(run, tls, caplog):
    async def main():
        protocol, peer = await tls.pair(peer_factory=tls.Echo)
        assert await exchange(protocol) == b"ping"
        await tls.finish(protocol, peer)

    caplog.set_level(logging.DEBUG, "asyncio")
    run(main, debug=True)
    assert [record.message.rpartition(" took ")[0][-13:] for record in caplog.records
            if " took " in record.message and "SSL" in record.message
            and not record.message.startswith("Executing ")] == ["SSL handshake"] * 2
    assert sum("starts SSL handshake" in record.message for record in caplog.records) == 2
    assert not run.reports
