"""Bodies: received where the reader wants them, bounded, with every way to end early told apart."""

import asyncio
import hashlib
import random

import pytest

from ostraka.errors import Invalid, OstrakaError, TooLarge, Truncated
from ostraka.http import Request, Response
from ostraka.http._body import PIECE

SEED = 20
HOST = b"Host: a\r\n"


def put(body: bytes, *fields: bytes, path: bytes = b"/k") -> bytes:
    extra = b"".join(f + b"\r\n" for f in fields)
    return b"PUT " + path + b" HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n" % len(body) + extra + b"\r\n" + body


def chunked(data: bytes, *fields: bytes) -> bytes:
    extra = b"".join(f + b"\r\n" for f in fields)
    return b"PUT /k HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n" + extra + b"\r\n" + data


async def hashed(request: Request) -> Response:
    digest = hashlib.sha256()
    view = memoryview(bytearray(100_000))
    while count := await request.body.fill(view):
        digest.update(view[:count])
    return Response(200, body=digest.hexdigest().encode())


@pytest.mark.parametrize("size", [0, 1, 4096, 65_536, 300_000, 8 << 20])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_arrives_unchanged_over_a_socket(wire, size: int, framing: str) -> None:
    data = random.Random(SEED).randbytes(size)
    if framing == "length":
        raw = put(data)
    else:
        dice, parts, at = random.Random(SEED), [], 0
        while at < size:
            n = dice.choice([1, 10, 1000, 70_000, 1 << 20])
            parts.append(b"%x\r\n%b\r\n" % (len(data[at : at + n]), data[at : at + n]))
            at += n
        raw = chunked(b"".join(parts) + b"0\r\n\r\n")
    async with wire.serving(hashed) as served:
        client = await served.connect()
        for _ in range(2):
            reply = await client.ask(raw)
            assert reply.body.decode() == hashlib.sha256(data).hexdigest()


async def test_a_small_body_that_came_with_its_head_is_read_without_waiting(wire) -> None:
    async def handler(request: Request) -> Response:
        body = request.body.read_now()
        assert body is not None
        assert request.body.read_now() == b""
        assert request.body.received == len(body)
        return Response(200, body=body)

    async with wire.in_memory(handler) as connect:
        client = connect()
        await client.feed(put(b"x" * 4096) + put(b"") + put(b"abc"))
        assert client.written.count(b"HTTP/1.1 200") == 3
        assert client.written.endswith(b"\r\n\r\nabc")


async def test_read_now_is_none_until_the_whole_body_is_there(wire) -> None:
    early: list[bytes | None] = []

    async def handler(request: Request) -> Response:
        early.append(request.body.read_now())
        return Response(200, body=await request.body.read(100))

    async with wire.in_memory(handler) as connect:
        client = connect()
        await client.feed(put(b"0123456789")[:-3])
        await client.feed(b"789")
        await client.feed(chunked(b"1\r\na\r\n0\r\n\r\n"))
        assert early == [None, None]
        assert client.written.endswith(b"\r\n\r\na")
        assert b"\r\n\r\n0123456789HTTP/1.1" in client.written


async def test_a_large_body_is_received_into_the_readers_own_memory(wire) -> None:
    view = memoryview(bytearray(1000))
    lent: list[memoryview] = []

    async def handler(request: Request) -> Response:
        assert await request.body.fill(view[:600]) == 600
        assert await request.body.fill(view[600:]) == 300
        assert await request.body.fill(view) == 0
        return Response(200)

    async with wire.in_memory(handler) as connect:
        client = connect()
        await client.feed(put(b"a" * 900)[:-900])
        for size in (100, 500, 300):
            buffer = client.protocol.get_buffer(-1)
            lent.append(buffer)
            assert buffer.obj is view.obj
            assert len(buffer) >= size
            await client.feed(b"a" * size)
        assert [len(b) for b in lent] == [
            600,
            500,
            300,
        ]  # never more than the body: the next request is not the reader's
        assert client.written.startswith(b"HTTP/1.1 200")
        assert client.protocol.get_buffer(-1).obj is connect.server.scratch.obj


async def test_a_waiting_connection_holds_no_buffer(wire) -> None:
    async with wire.in_memory(hashed) as connect:
        client = connect()
        await client.feed(put(b"x" * 4096))
        assert client.protocol.tail == b""
        await client.feed(b"PUT /k HTT")
        assert client.protocol.tail == b"PUT /k HTT"


async def test_nobody_reading_stops_the_client_within_the_read_ahead(wire) -> None:
    go = asyncio.Event()

    async def handler(request: Request) -> Response:
        await go.wait()
        return Response(200, body=b"%d" % len(await request.body.read(1 << 20)))

    async with wire.in_memory(handler, read_ahead_bytes_max=1000, body_buffer_bytes=500) as connect:
        client = connect()
        raw = put(b"x" * 100_000)
        fed = 0
        while client.reading:
            await client.feed(raw[fed : fed + 500])
            fed += 500
        assert 1000 < fed <= 2000
        assert len(client.protocol.tail) - client.protocol.pos <= 1500
        go.set()
        await client.feed(raw[fed:])
        assert client.written.endswith(b"\r\n\r\n100000")


async def test_pipelined_requests_wait_in_order_within_the_read_ahead(wire) -> None:
    go = asyncio.Event()

    async def handler(request: Request) -> Response:
        await go.wait()
        return Response(200, body=request.target)

    async with wire.in_memory(handler, read_ahead_bytes_max=200, body_buffer_bytes=100) as connect:
        client = connect()
        raws = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(100)]
        raw, fed = b"".join(raws), 0
        while client.reading:
            await client.feed(raw[fed : fed + 100])
            fed += 100
        assert fed <= 400
        assert not client.written
        go.set()
        await client.feed(raw[fed:])
        order = [int(part.split(b"HTTP/1.1")[0]) for part in bytes(client.written).split(b"\r\n\r\n/")[1:]]
        assert order == list(range(100))


@pytest.mark.parametrize("raw", [put(b"x" * 1000)[:-1], chunked(b"3e8\r\n" + b"x" * 999), chunked(b"1\r\na\r\n")])
async def test_a_client_that_ends_early_is_truncated_never_a_short_body(wire, raw: bytes) -> None:
    errors: list[Exception] = []

    async def handler(request: Request) -> Response:
        try:
            await request.body.read(5000)
        except Truncated as e:
            errors.append(e)
            with pytest.raises(Truncated):  # and it stays so
                await request.body.read(5000)
            return Response(400, body=b"IncompleteBody")
        return Response(200)

    async with wire.serving(handler) as served:
        client = await served.connect()
        await client.send(raw)
        client.writer.write_eof()
        reply = await client.reply()
        assert (reply.status, reply.body) == (400, b"IncompleteBody")
        assert await client.closed() == b""
        assert errors[0].reason == "ended"


async def test_a_client_that_vanishes_mid_body_ends_its_handler(wire) -> None:
    started, ended = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def handler(request: Request) -> Response:
        started.set()
        try:
            await request.body.read(1 << 20)
        finally:
            ended.set()
        return Response(200)

    hooks = {"on_complete": lambda request, status, sent, seconds: done.append(status)}
    async with wire.serving(handler, hooks=hooks) as served:
        client = await served.connect()
        await client.send(put(b"x" * 1000)[:-1])
        await started.wait()
        client.leave()
        await ended.wait()
    assert done in ([499], [400])  # by whether the reset or the end was seen first


async def test_a_client_that_leaves_cancels_its_handler(wire) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def handler(request: Request) -> Response:
        await request.body.read(100)
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Response(200)

    hooks = {"on_complete": lambda request, status, sent, seconds: done.append(status)}
    async with wire.serving(handler, hooks=hooks) as served:
        for end in ("reset", "end of stream"):
            started.clear()
            cancelled.clear()
            client = await served.connect()
            await client.send(put(b"hello"))
            await started.wait()
            if end == "reset":
                client.leave()
            else:
                client.writer.close()
            await cancelled.wait()
    assert done == [499, 499]


async def test_a_stalled_body_is_an_error_of_its_own(wire) -> None:
    clock = wire.ManualClock()
    reasons: list[str] = []

    async def handler(request: Request) -> Response:
        try:
            await request.body.read(100)
        except Truncated as e:
            reasons.append(e.reason)
            raise
        return Response(200)

    async with wire.in_memory(handler, clock=clock, body_idle_seconds_max=60.0) as connect:
        client = connect()
        await client.feed(put(b"0123456789")[:-5])
        for _ in range(3):  # it moves, slowly
            connect.server.sweep()
            clock.now += 50
            connect.server.sweep()
            await client.feed(b"x")
        assert not client.written
        connect.server.sweep()
        clock.now += 61
        connect.server.sweep()
        await client.settle()
        assert reasons == ["stalled"]
        assert client.written.startswith(b"HTTP/1.1 408 ")
        assert client.half_closed


ODD_CHUNKS = {
    "a size with a sign": (b"+5\r\nhello\r\n0\r\n\r\n", Invalid),
    "a size with 0x": (b"0x5\r\nhello\r\n0\r\n\r\n", Invalid),
    "a size with a blank before": (b" 5\r\nhello\r\n0\r\n\r\n", Invalid),
    "a size with a blank after": (b"5 \r\nhello\r\n0\r\n\r\n", Invalid),
    "a size with an underscore": (b"0_5\r\nhello\r\n0\r\n\r\n", Invalid),
    "no size": (b"\r\nhello\r\n0\r\n\r\n", Invalid),
    "an extension without size": (b";a=b\r\nhello\r\n0\r\n\r\n", Invalid),
    "a negative size": (b"-1\r\nhello\r\n0\r\n\r\n", Invalid),
    "a size of 16 digits": (b"0000000000000005\r\nhello\r\n0\r\n\r\n", Invalid),
    "a size beyond the bound": (b"fffffffffffffff\r\nhello", TooLarge),
    "a bare line feed after the size": (b"5\nhello\r\n0\r\n\r\n", Invalid),
    "a bare line feed after the data": (b"5\r\nhello\n0\r\n\r\n", Invalid),
    "a bare line feed at the end": (b"5\r\nhello\r\n0\r\n\n", Invalid),
    "data longer than the size": (b"5\r\nhello!\r\n0\r\n\r\n", Invalid),
    "a NUL in an extension": (b"5;a=\0\r\nhello\r\n0\r\n\r\n", Invalid),
    "a carriage return in an extension": (b"5;a=\rb\r\nhello\r\n0\r\n\r\n", Invalid),
    "an endless extension": (b"5;" + b"a" * 5000, TooLarge),
    "many extensions": (b"".join(b"1;" + b"a" * 1000 + b"\r\nx\r\n" for _ in range(70)), TooLarge),
    "a trailer without colon": (b"0\r\nabc\r\n\r\n", Invalid),
    "a trailer with a blank before the colon": (b"0\r\na : b\r\n\r\n", Invalid),
    "a folded trailer": (b"0\r\na: b\r\n c\r\n\r\n", Invalid),
    "a length in the trailers": (b"0\r\nContent-Length: 5\r\n\r\n", Invalid),
    "a coding in the trailers": (b"0\r\nTransfer-Encoding: chunked\r\n\r\n", Invalid),
    "a host in the trailers": (b"0\r\nHost: b\r\n\r\n", Invalid),
    "credentials in the trailers": (b"0\r\nAuthorization: me\r\n\r\n", Invalid),
    "too many trailers": (b"0\r\n" + b"".join(b"a%d: b\r\n" % i for i in range(201)) + b"\r\n", TooLarge),
    "too many bytes of trailers": (b"0\r\n" + b"".join(b"a%d: %b\r\n" % (i, b"b" * 4000) for i in range(20)), TooLarge),
}


@pytest.mark.parametrize("case", ODD_CHUNKS)
async def test_odd_chunk_framing_is_an_error_and_ends_the_connection(wire, case: str) -> None:
    data, kind = ODD_CHUNKS[case]
    errors: list[OstrakaError] = []
    seen: list[bytes] = []

    async def handler(request: Request) -> Response:
        seen.append(request.target)
        try:
            await request.body.read(1 << 20)
        except OstrakaError as e:
            errors.append(e)
            raise
        return Response(200)

    async with wire.in_memory(handler) as connect:
        client = connect()
        await client.feed(chunked(data))
        await client.feed(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert [type(e) for e in errors] == [kind]
        assert client.written.startswith(b"HTTP/1.1 413 " if kind is TooLarge else b"HTTP/1.1 400 ")
        assert client.half_closed or client.closing
        assert seen == [b"/k"]


async def test_extensions_and_trailers_within_bounds_are_taken(wire) -> None:
    async def handler(request: Request) -> Response:
        body = await request.body.read(100)
        assert request.body.trailers is not None
        return Response(200, body=body + repr(list(request.body.trailers)).encode())

    async with wire.in_memory(handler) as connect:
        client = connect()
        await client.feed(chunked(b'5;a;b="c d"\r\nhello\r\n00000\r\nX-Amz-Checksum-Crc32c: AAAAAA== \r\nb:c\r\n\r\n'))
        assert client.written.endswith(b"hello[('x-amz-checksum-crc32c', 'AAAAAA=='), ('b', 'c')]")


async def test_read_stops_at_its_bound(wire) -> None:
    async def handler(request: Request) -> Response:
        await request.body.read(10)
        return Response(200)

    async with wire.in_memory(handler) as connect:
        for raw in (put(b"x" * 11), put(b"x" * 5000), chunked(b"b\r\nhello world\r\n0\r\n\r\n")):
            client = connect()
            await client.feed(raw[:-1])
            await client.feed(raw[-1:])
            assert client.written.startswith(b"HTTP/1.1 "), raw
            assert client.written[9:12] == b"413"
        client = connect()
        await client.feed(put(b"x" * 10) + chunked(b"a\r\nhello worl\r\n0\r\n\r\n"))
        assert client.written.count(b"HTTP/1.1 200") == 2


async def test_a_body_kept_beyond_its_exchange_cannot_read_the_next_request(wire) -> None:
    kept: list[Request] = []

    async def handler(request: Request) -> Response:
        if kept:
            with pytest.raises(Truncated):
                await kept[0].body.read(100)
            assert kept[0].body.read_now() is None
        kept.append(request)
        return Response(200)

    async with wire.in_memory(handler) as connect:
        client = connect()
        await client.feed(put(b"first") + put(b"second"))
        assert client.written.count(b"HTTP/1.1 200") == 2


async def test_a_reader_that_is_cancelled_does_not_shift_the_stream(wire) -> None:
    waiting = asyncio.Event()
    view = memoryview(bytearray(8))

    async def handler(request: Request) -> Response:
        if request.method == "PUT":
            task = asyncio.ensure_future(request.body.fill(view))
            waiting.set()
            await seen_half.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return Response(408)
        return Response(200, body=request.target)

    seen_half = asyncio.Event()
    async with wire.in_memory(handler) as connect:
        client = connect()
        await client.feed(put(b"0123456789")[:-10])
        await client.feed(b"0123")
        seen_half.set()
        await client.settle()
        assert client.written.startswith(b"HTTP/1.1 408 ")
        await client.feed(b"456789" + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.written.endswith(b"/next")


async def test_a_pieces_iterator_gives_the_body_in_order(wire) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, body=[piece async for piece in request.body.chunks(7)])

    async with wire.in_memory(handler) as connect:
        client = connect()
        await client.feed(put(b"0123456789" * 3))
        assert client.written.endswith(b"\r\n\r\n" + b"0123456789" * 3)


class TestContinue:
    RAW = put(b"0123456789", b"Expect: 100-continue")
    HEAD, BODY = RAW[:-10], RAW[-10:]

    async def test_it_is_sent_when_the_handler_first_reads(self, wire) -> None:
        go = asyncio.Event()

        async def handler(request: Request) -> Response:
            assert request.body.read_now() is None
            await go.wait()
            return Response(200, body=await request.body.read(100))

        async with wire.in_memory(handler) as connect:
            client = connect()
            await client.feed(self.HEAD)
            assert client.written == b""
            go.set()
            await client.settle()
            assert client.written == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.feed(self.BODY)
            assert client.written.endswith(b"0123456789")
            assert client.written.count(b"100 Continue") == 1
            await client.feed(self.HEAD)
            await client.feed(self.BODY)
            assert client.written.count(b"HTTP/1.1 200") == 2

    async def test_it_is_not_sent_when_the_body_came_unasked(self, wire) -> None:
        async with wire.in_memory(hashed) as connect:
            client = connect()
            await client.feed(self.RAW)
            assert b"100 Continue" not in client.written
            assert client.written.startswith(b"HTTP/1.1 200")

    async def test_a_refusal_without_it_ends_the_connection(self, wire) -> None:
        async def handler(request: Request) -> Response:
            return Response(403, body=b"no")

        async with wire.in_memory(handler) as connect:
            client = connect()
            await client.feed(self.HEAD)
            assert client.written.startswith(b"HTTP/1.1 403")
            assert b"100 Continue" not in client.written
            assert b"Connection: close\r\n" in client.written
            assert client.half_closed

    async def test_an_empty_body_gets_it_too_and_the_connection_goes_on(self, wire) -> None:
        """Without it, boto3 waited for a minute for the answer to its next upload, and then sent that again."""
        async with wire.in_memory(hashed) as connect:
            client = connect()
            await client.feed(put(b"", b"Expect: 100-continue"))
            assert client.written.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
            assert b"Connection: close" not in client.written
            await client.feed(self.HEAD)
            await client.feed(self.BODY)
            assert client.written.count(b"HTTP/1.1 100") == client.written.count(b"HTTP/1.1 200") == 2

    async def test_it_is_not_sent_to_old_clients(self, wire) -> None:
        async with wire.in_memory(hashed) as connect:
            client = connect()
            await client.feed(self.HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"))
            await client.feed(self.BODY)
            assert b"100 Continue" not in client.written
            assert client.written.count(b"HTTP/1.1 200") == 1


class TestEarlyRefusal:
    @staticmethod
    async def refuse(request: Request) -> Response:
        if request.method == "GET":
            return Response(200, body=b"next")
        return Response(403, body=b"no")

    async def test_a_short_rest_is_drained_and_the_connection_goes_on(self, wire) -> None:
        async with wire.in_memory(self.refuse, drain_bytes_max=1000) as connect:
            client = connect()
            raw = put(b"x" * 1000)
            await client.feed(raw[:-1000])
            assert client.written.startswith(b"HTTP/1.1 403")  # before the body came
            assert b"Connection" not in client.written
            await client.feed(raw[-1000:] + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.written.endswith(b"next")

    async def test_a_long_rest_ends_the_connection(self, wire) -> None:
        async with wire.in_memory(self.refuse, drain_bytes_max=1000) as connect:
            client = connect()
            await client.feed(put(b"x" * 1001)[:-1001])
            assert client.written.startswith(b"HTTP/1.1 403")
            assert b"Connection: close\r\n" in client.written
            assert client.half_closed
            assert not client.closing
            await client.feed(b"x" * 1000)
            assert not client.closing
            await client.feed(b"x")
            assert client.closing

    async def test_an_unread_chunked_body_ends_the_connection(self, wire) -> None:
        async with wire.in_memory(self.refuse) as connect:
            client = connect()
            await client.feed(chunked(b"5\r\nhello\r\n"))
            assert b"Connection: close\r\n" in client.written

    async def test_a_client_in_full_flow_still_sees_the_answer(self, wire) -> None:
        async with wire.serving(self.refuse, drain_bytes_max=64 << 20) as served:
            client = await served.connect()
            client.writer.write(put(b"x" * (16 << 20), b"A: b")[: 8 << 20])
            reply = await client.reply()
            assert (reply.status, reply.body) == (403, b"no")
            client.leave()
            client = await served.connect()
            await client.send(chunked(b"100000\r\n" + b"x" * (1 << 20)))
            reply = await client.reply()
            assert (reply.status, reply.body) == (403, b"no")
            assert await client.closed() == b""

    async def test_a_lingering_client_is_cut_in_the_end(self, wire) -> None:
        clock = wire.ManualClock()
        async with wire.in_memory(self.refuse, clock=clock) as connect:
            client = connect()
            await client.feed(chunked(b"5\r\nhello\r\n"))
            assert not client.closing
            connect.server.sweep()
            clock.now += 5.0
            connect.server.sweep()
            assert client.closing


async def test_a_reader_with_much_room_is_woken_once_for_each_piece_however_the_body_trickles_in(wire) -> None:
    data = random.Random(SEED).randbytes(2 * PIECE + 5)
    counts: list[int] = []
    begun = asyncio.Event()

    async def handler(request: Request) -> Response:
        begun.set()
        view, at = memoryview(bytearray(len(data) + PIECE)), 0
        while count := await request.body.read_into(view[at:]):
            counts.append(count)
            at += count
        return Response(200, body=hashlib.sha256(view[:at]).hexdigest().encode())

    raw = put(data)
    async with wire.serving(handler) as served:
        client = await served.connect()
        await client.send(raw[:1000])
        await begun.wait()
        for at in range(1000, len(raw), 100_000):
            await client.send(raw[at : at + 100_000])
        reply = await client.reply()
        assert reply.body.decode() == hashlib.sha256(data).hexdigest()
        assert counts == [PIECE, PIECE, 5]
