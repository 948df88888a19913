"""The life of connections and of the server: keep-alive, time, TLS, limits, drain."""

import asyncio
import dataclasses
import datetime
import ipaddress
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ostraka.http import Request, Response, Server, bind
from ostraka.limits import LIMITS

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def hello(request: Request) -> Response:
    return Response(200, body=request.scheme.encode() + b" " + await request.body.read(1 << 24))


async def test_a_connection_serves_many_requests(wire) -> None:
    async with wire.serving(hello) as served:
        client = await served.connect()
        for _ in range(50):
            assert (await client.ask(GET)).body == b"http "
        await client.send(GET * 50)
        for _ in range(50):
            assert (await client.reply()).body == b"http "
        assert served.server.connections == 1


@pytest.mark.parametrize(
    ("raw", "stays"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
async def test_a_connection_lives_as_long_as_its_client_asked(wire, raw: bytes, stays: bool) -> None:
    async with wire.serving(hello) as served:
        client = await served.connect()
        reply = await client.ask(raw)
        assert (reply.headers.get("connection") == "close") == (not stays)
        if stays:
            assert (await client.ask(raw)).status == 200
        else:
            assert await client.closed() == b""


async def test_an_idle_connection_is_closed_without_a_word(wire) -> None:
    clock = wire.ManualClock()
    async with wire.serving(hello, clock=clock, idle_seconds_max=120.0) as served:
        fresh, used = await served.connect(), await served.connect()
        await used.ask(GET)
        await wire.until(lambda: served.server.connections == 2)
        served.server.sweep()
        clock.now += 119
        served.server.sweep()
        assert served.server.connections == 2
        clock.now += 2
        served.server.sweep()
        assert await fresh.closed() == b""
        assert await used.closed() == b""


async def test_a_head_that_trickles_in_is_given_up_however_often_a_byte_comes(wire) -> None:
    clock = wire.ManualClock()
    async with wire.in_memory(hello, clock=clock, head_seconds_max=60.0) as connect:
        client = connect()
        connect.server.sweep()
        for byte in b"GET / HTTP/1.1\r\n":
            await client.feed(bytes([byte]))
            connect.server.sweep()
            clock.now += 3.5
        assert client.written == b""
        clock.now += 5
        connect.server.sweep()
        assert client.written.startswith(b"HTTP/1.1 408 ")
        assert client.half_closed


async def test_a_handler_may_take_as_long_as_it_likes(wire) -> None:
    clock, go = wire.ManualClock(), asyncio.Event()

    async def handler(request: Request) -> Response:
        await go.wait()
        return Response(200)

    async with wire.in_memory(handler, clock=clock) as connect:
        client = connect()
        await client.feed(GET)
        for _ in range(3):
            connect.server.sweep()
            clock.now += 1e6
        connect.server.sweep()
        go.set()
        await client.settle()
        assert client.written.startswith(b"HTTP/1.1 200 ")


async def test_too_many_connections_are_turned_away(wire) -> None:
    async with wire.serving(hello, connections_max=2) as served:
        first, second = await served.connect(), await served.connect()
        assert (await first.ask(GET)).status == 200
        assert (await second.ask(GET)).status == 200
        third = await served.connect()
        assert (await third.reply()).status == 503
        assert await third.closed() == b""
        assert (await first.ask(GET)).status == 200
        first.leave()
        third.leave()
        await wire.until(lambda: served.server.connections == 1)
        fourth = await served.connect()
        assert (await fourth.ask(GET)).status == 200


async def test_even_turned_away_connections_are_bounded(wire) -> None:
    async with wire.in_memory(hello, connections_max=2) as connect:
        clients = [connect() for _ in range(6)]
        assert [c.closing for c in clients] == [False] * 4 + [True] * 2
        assert [bool(c.written) for c in clients] == [False] * 2 + [True] * 2 + [False] * 2
        await clients[5].settle()
        assert connect.server.connections == 4


async def test_a_drain_finishes_what_is_in_flight_and_closes_what_is_idle(wire) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Response:
        if request.raw_path == b"/slow":
            started.set()
            await go.wait()
        return Response(200, body=b"done")

    async with wire.serving(handler) as served:
        idle, busy, fresh = await served.connect(), await served.connect(), await served.connect()
        await idle.ask(GET)
        await busy.send(GET.replace(b"/ ", b"/slow ", 1))
        await started.wait()
        drained = asyncio.ensure_future(served.server.drain(10.0))
        assert await idle.closed() == b""
        assert await fresh.closed() == b""
        with pytest.raises(OSError):
            await served.connect()
        assert not drained.done()
        go.set()
        reply = await busy.reply()
        assert (reply.body, reply.headers["connection"]) == (b"done", "close")
        assert await drained is True
        assert served.server.connections == 0


async def test_a_drain_cuts_what_outstays_its_deadline(wire) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Response:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Response(200)

    async with wire.serving(handler) as served:
        client = await served.connect()
        await client.send(GET)
        await started.wait()
        assert await served.server.drain(0.01) is False
        assert cancelled.is_set()
        assert served.server.connections == 0
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.reply()


async def test_handlers_have_a_task_so_that_timeouts_work_in_them(wire) -> None:
    async def handler(request: Request) -> Response:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return Response(200, body=b"in time")
        return Response(500)

    async with wire.in_memory(handler) as connect:
        client = connect()
        await client.feed(GET + GET)
        for _ in range(50):
            await client.settle()
        assert client.written.count(b"in time") == 2


async def test_many_clients_at_once_get_their_own_answers(wire) -> None:
    async def handler(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(200, body=request.target + b" " + await request.body.read(1 << 20))

    async with wire.serving(handler) as served:

        async def one(i: int) -> None:
            client = await served.connect()
            for j in range(20):
                body = b"%d-%d" % (i, j) * (1 + (i * j) % 3000)
                raw = b"PUT /%d/%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (i, j, len(body))
                assert (await client.ask(raw + body)).body == b"/%d/%d " % (i, j) + body

        await asyncio.gather(*(one(i) for i in range(40)))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's context, a context of clients that trust it), from an authority made for this."""
    folder: Path = tmp_path_factory.mktemp("tls")
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, key, issuer_name: str, issuer_key, *, authority: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer_name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate("test authority", root_key, "test authority", root_key, authority=True)
    leaf = certificate("localhost", key, "test authority", root_key, authority=False)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    (folder / "cert.pem").write_bytes(leaf.public_bytes(pem))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    client = ssl.create_default_context(cadata=root.public_bytes(pem).decode())
    return server, client


async def test_tls_carries_bodies_both_ways(wire, tls) -> None:
    async def pieces(data: bytes):
        for at in range(0, len(data), 300_000):
            yield memoryview(data)[at : at + 300_000]

    async def handler(request: Request) -> Response:
        data = await request.body.read(1 << 24)
        assert request.scheme == "https"
        if request.raw_path == b"/stream":
            return Response(200, [], pieces(data))
        return Response(200, body=data)

    async with wire.serving(handler, tls=tls) as served:
        for path in (b"/", b"/stream"):
            client = await served.connect()
            for size in (0, 10, 4096, 3 << 20):
                body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
                raw = b"PUT %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path, size)
                assert (await client.ask(raw + body)).body == body


async def test_tls_refuses_and_ends_like_plain(wire, tls) -> None:
    async with wire.serving(hello, tls=tls) as served:
        client = await served.connect()
        assert (await client.ask(b"GET / HTTP/1.1\r\n\r\n")).status == 400
        client.leave()
        client = await served.connect()
        assert (await client.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).status == 200
        assert await client.closed() == b""


async def test_a_tls_client_that_leaves_cancels_its_handler(wire, tls) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Response:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Response(200)

    async with wire.serving(handler, tls=tls) as served:
        client = await served.connect()
        await client.send(GET)
        await started.wait()
        client.leave()
        await cancelled.wait()


async def test_a_drain_waited_for_every_idle_tls_client_to_say_goodbye(wire, tls) -> None:
    """A client that keeps its connection for later reads nothing meanwhile, so it does not answer a close_notify."""
    async with wire.serving(hello, tls=tls, linger_seconds_max=3600.0) as served:

        def ask() -> ssl.SSLSocket:
            plain = socket.create_connection(("127.0.0.1", served.port))
            kept = tls[1].wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
            kept.sendall(GET)
            assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200")
            return kept

        kept = await asyncio.to_thread(ask)
        assert await served.server.drain(10.0) is True
        assert await asyncio.to_thread(kept.recv, 1) == b"", "it was not told"
        kept.close()


async def test_plain_and_tls_may_be_served_at_once(tls) -> None:
    server = Server(hello)
    plain, secure = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
    ports = plain.getsockname()[1], secure.getsockname()[1]
    await server.start([plain])
    await server.start([secure], tls[0])
    for port, context, scheme in ((ports[0], None, b"http "), (ports[1], tls[1], b"https ")):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost" if context else None
        )
        writer.write(GET)
        assert (await reader.readuntil(scheme)).startswith(b"HTTP/1.1 200")
        writer.transport.abort()
    await server.drain(0.0)


def test_the_layer_works_on_the_standard_library_loop_too() -> None:
    data = bytes(range(256)) * 20_000

    async def main() -> None:
        server = Server(hello, dataclasses.replace(LIMITS, idle_seconds_max=1.0))
        sock = bind("127.0.0.1", 0)
        port = sock.getsockname()[1]
        await server.start([sock])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data))
        writer.write(data)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(5 + len(data)) == b"http " + data
        writer.close()
        await server.drain(5.0)

    asyncio.run(main())


def test_two_sockets_may_share_a_port_when_asked_to() -> None:
    with bind("127.0.0.1", 0, reuse_port=True) as one:
        port = one.getsockname()[1]
        with bind("127.0.0.1", port, reuse_port=True) as two:
            assert two.getsockname()[1] == port
        with pytest.raises(OSError):
            bind("127.0.0.1", port)
