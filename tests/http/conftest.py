"""What the tests of this room share: async tests on uvloop, a served handler with raw clients, and a transport
in memory that feeds a connection byte by byte."""

import asyncio
import contextlib
import dataclasses
import inspect
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from ostraka.http import Handler, Server, bind
from ostraka.limits import LIMITS

SECONDS_MAX = 20.0  # of one test; reached only when something hangs


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def main() -> None:
        async with asyncio.timeout(SECONDS_MAX):
            await pyfuncitem.obj(**arguments)

    uvloop.run(main())
    return True


class ManualClock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Reply:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Client:
    """A raw client over a real socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Reply:
        """The next head, without its body."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw[:-4].decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Reply(int(first.split()[1]), {n.lower(): v for n, v in headers.items()}, b"")

    async def reply(self, *, bodiless: bool = False) -> Reply:
        reply = await self.head()
        if bodiless or reply.status in (100, 204, 304):
            return reply
        if reply.headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                reply.body += (await self.reader.readexactly(size + 2))[:-2]
            assert await self.reader.readline() == b"\r\n"
        elif "content-length" in reply.headers:
            reply.body = await self.reader.readexactly(int(reply.headers["content-length"]))
        else:
            reply.body = await self.reader.read()
        return reply

    async def ask(self, data: bytes) -> Reply:
        await self.send(data)
        return await self.reply(bodiless=data.startswith(b"HEAD"))

    async def closed(self) -> bytes:
        """What comes until the server closes its side."""
        return await self.reader.read()

    def leave(self) -> None:
        """Close at once, by a reset."""
        self.writer.transport.abort()


class Served:
    def __init__(self, server: Server, port: int, tls: ssl.SSLContext | None) -> None:
        self.server = server
        self.port = port
        self._tls = tls
        self._clients: list[Client] = []

    async def connect(self, *, receive_buffer: int = 0) -> Client:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        name = "localhost" if self._tls else None
        client = Client(*await asyncio.open_connection(sock=sock, ssl=self._tls, server_hostname=name))
        self._clients.append(client)
        return client

    def leave(self) -> None:
        for client in self._clients:
            client.leave()


@contextlib.asynccontextmanager
async def serving(
    handler: Handler,
    *,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    clock: ManualClock | None = None,
    hooks: dict[str, Any] | None = None,
    **limits: Any,
) -> AsyncIterator[Served]:
    """The handler on a free port; ``tls``: (server's context, clients' context)."""
    sweep = 3600.0 if clock else 1.0
    server = Server(handler, dataclasses.replace(LIMITS, **limits), clock=clock, sweep_seconds=sweep, **(hooks or {}))
    sock = bind("127.0.0.1", 0)
    port = sock.getsockname()[1]
    await server.start([sock], tls[0] if tls else None)
    served = Served(server, port, tls[1] if tls else None)
    try:
        yield served
    finally:
        served.leave()
        await server.drain(0.0)
        assert server.connections == 0


class MemoryTransport(asyncio.Transport):
    """A client's end in memory: what is fed goes to the protocol, what it writes is kept."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.reading = True
        self.closing = False
        self.half_closed = False
        self.slow = False  # take nothing until ``take`` is called
        self.unsent = 0
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.7", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: Any) -> None:
        self.written += data
        if self.slow:
            self.unsent += len(data)
            self.protocol.pause_writing()

    def writelines(self, buffers: Any) -> None:
        self.write(b"".join(buffers))

    def take(self) -> None:
        self.unsent = 0
        self.protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    async def settle(self) -> None:
        """Let everything that can run, run."""
        for _ in range(12):
            await asyncio.sleep(0)

    async def feed(self, data: bytes) -> None:
        """Deliver data as the loop would: into the protocol's own buffer, only while it reads."""
        while data and not self.closing:
            if not self.reading:
                await self.settle()
                assert self.reading or self.closing, "the protocol stopped reading for good"
                continue
            buffer = self.protocol.get_buffer(-1)
            count = min(len(buffer), len(data))
            assert count > 0
            buffer[:count] = data[:count]
            self.protocol.buffer_updated(count)
            data = data[count:]
        await self.settle()

    async def end(self) -> None:
        if not self.closing and not self.protocol.eof_received():
            self.close()
        await self.settle()


@contextlib.asynccontextmanager
async def in_memory(handler: Handler, **options: Any) -> AsyncIterator[Any]:
    """Yields a function that makes a connection in memory; ``.server`` is the server."""
    limits = {k: v for k, v in options.items() if k not in ("hooks", "clock")}
    clock = options.get("clock") or ManualClock()
    hooks = options.get("hooks") or {}
    server = Server(handler, dataclasses.replace(LIMITS, **limits), clock=clock, sweep_seconds=3600.0, **hooks)
    await server.start([])

    def connect() -> MemoryTransport:
        return MemoryTransport(server.connect())

    connect.server = server  # type: ignore[attr-defined]
    try:
        yield connect
    finally:
        await server.drain(0.0)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something that no event announces is so."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0)


@pytest.fixture
def wire() -> SimpleNamespace:
    return SimpleNamespace(serving=serving, in_memory=in_memory, ManualClock=ManualClock, until=until)
