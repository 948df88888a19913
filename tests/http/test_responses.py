"""Responses: framed right, no faster than the client reads, and torn rather than cut short in silence."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from ostraka.http import Request, Response

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_10 = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
DATE = "Thu, 01 Jan 1970 00:16:40 GMT"


def answer(response: Response):
    async def handler(request: Request) -> Response:
        return response

    return handler


async def pieces(*items: bytes) -> AsyncIterator[bytes]:
    for item in items:
        yield item


async def raw_answer(wire, response: Response, request: bytes = GET, **options) -> tuple[str, bool]:
    async with wire.in_memory(answer(response), **options) as connect:
        client = connect()
        await client.feed(request)
        return client.written.decode(), client.closing or client.half_closed


STAMP = f"Date: {DATE}\r\nServer: Ostraka\r\n"


@pytest.mark.parametrize(
    ("response", "request_", "expected", "ends"),
    [
        (
            lambda: Response(200, [("A", "b")], b"hi"),
            GET,
            f"200 OK\r\n{STAMP}A: b\r\nContent-Length: 2\r\n\r\nhi",
            False,
        ),
        (lambda: Response(200, [], memoryview(b"hi")), GET, f"200 OK\r\n{STAMP}Content-Length: 2\r\n\r\nhi", False),
        (
            lambda: Response(200, [], [b"h", bytearray(b"i")]),
            GET,
            f"200 OK\r\n{STAMP}Content-Length: 2\r\n\r\nhi",
            False,
        ),
        (lambda: Response(404), GET, f"404 Not Found\r\n{STAMP}Content-Length: 0\r\n\r\n", False),
        (lambda: Response(204), GET, f"204 No Content\r\n{STAMP}\r\n", False),
        (lambda: Response(304, length=9), GET, f"304 Not Modified\r\n{STAMP}Content-Length: 9\r\n\r\n", False),
        (lambda: Response(304), GET, f"304 Not Modified\r\n{STAMP}\r\n", False),
        (lambda: Response(200, length=7), HEAD, f"200 OK\r\n{STAMP}Content-Length: 7\r\n\r\n", False),
        (lambda: Response(200, [("content-length", "7")]), HEAD, f"200 OK\r\n{STAMP}Content-Length: 7\r\n\r\n", False),
        (lambda: Response(404, [], b"<xml/>"), HEAD, f"404 Not Found\r\n{STAMP}Content-Length: 6\r\n\r\n", False),
        (
            lambda: Response(200, [], pieces(b"ab", b"", b"c"), length=3),
            GET,
            f"200 OK\r\n{STAMP}Content-Length: 3\r\n\r\nabc",
            False,
        ),
        (
            lambda: Response(200, [], pieces(b"ab", b"c")),
            GET,
            f"200 OK\r\n{STAMP}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            False,
        ),
        (
            lambda: Response(200, [], pieces()),
            GET,
            f"200 OK\r\n{STAMP}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            False,
        ),
        (lambda: Response(200, [], pieces(), length=0), GET, f"200 OK\r\n{STAMP}Content-Length: 0\r\n\r\n", False),
        (lambda: Response(200, [], pieces(b"abc")), GET_10, f"200 OK\r\n{STAMP}Connection: close\r\n\r\nabc", True),
        (
            lambda: Response(200, [], pieces(b"abc"), length=3),
            HEAD,
            f"200 OK\r\n{STAMP}Content-Length: 3\r\n\r\n",
            False,
        ),
        (
            lambda: Response(200, [], b"hi", close=True),
            GET,
            f"200 OK\r\n{STAMP}Content-Length: 2\r\nConnection: close\r\n\r\nhi",
            True,
        ),
        (
            lambda: Response(200, [("Server", "mine"), ("date", "then")]),
            GET,
            "200 OK\r\nServer: mine\r\ndate: then\r\nContent-Length: 0\r\n\r\n",
            False,
        ),
        (lambda: Response(299, [("A", "é\udcff")]), GET, None, False),
    ],
)
async def test_responses_are_framed_by_their_kind(wire, response, request_, expected, ends) -> None:
    made = response()
    async with wire.in_memory(answer(made)) as connect:
        client = connect()
        await client.feed(request_)
        written = bytes(client.written)
        assert (client.closing or client.half_closed) == ends
    if expected is None:
        assert written == b"HTTP/1.1 299 Status\r\n" + STAMP.encode() + b"A: \xc3\xa9\xff\r\nContent-Length: 0\r\n\r\n"
    else:
        assert written.decode() == "HTTP/1.1 " + expected


@pytest.mark.parametrize(
    "response",
    [
        lambda: Response(200, [("A", "b\r\nC: d")]),
        lambda: Response(200, [("A", "b\nC: d")]),
        lambda: Response(200, [("A", "b\rC: d")]),
        lambda: Response(200, [("A", "b\0")]),
        lambda: Response(200, [("A\r\nB", "c")]),
        lambda: Response(200, [("A", "\ud800")]),
        lambda: Response(200, [("Content-Length", "3")], b"four"),
        lambda: Response(200, [("Content-Length", "+4")], b"four"),
        lambda: Response(200, [("Transfer-Encoding", "chunked")], b"four"),
        lambda: Response(200, [("Connection", "upgrade")], b"four"),
        lambda: Response(200, [], pieces(b"four"), length=3),
    ],
)
async def test_a_response_that_cannot_be_sent_as_it_is_becomes_a_500_or_a_torn_connection(wire, response) -> None:
    errors: list[BaseException] = []
    made = response()
    async with wire.in_memory(answer(made), hooks={"on_error": lambda r, e: errors.append(e)}) as connect:
        client = connect()
        await client.feed(GET)
        assert client.closing or client.half_closed
        assert len(errors) == 1
        assert b"C: d" not in client.written
        assert client.written == b"" or client.written.startswith(b"HTTP/1.1 500 "), client.written


async def test_a_handler_that_fails_is_an_empty_500_and_the_end(wire) -> None:
    errors: list[BaseException] = []
    done: list[tuple[int, int]] = []

    async def handler(request: Request) -> Response:
        if request.method == "PUT":
            asyncio.get_running_loop().create_future().cancel()
            raise asyncio.CancelledError  # not ours: nobody cancelled this request
        raise ValueError("secret")

    hooks = {
        "on_error": lambda r, e: errors.append(e),
        "on_complete": lambda r, status, sent, seconds: done.append((status, sent)),
    }
    async with wire.in_memory(handler, hooks=hooks) as connect:
        for raw in (GET, b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n"):
            client = connect()
            await client.feed(raw)
            assert client.written.startswith(b"HTTP/1.1 500 ")
            assert client.written.endswith(b"Content-Length: 0\r\nConnection: close\r\n\r\n")
            assert client.closing
    assert [type(e) for e in errors] == [ValueError, asyncio.CancelledError]
    assert done == [(500, 0), (500, 0)]


async def test_hooks_that_fail_do_not_harm_the_exchange(wire) -> None:
    def bad(*_: object) -> None:
        raise RuntimeError("hook")

    async with wire.in_memory(answer(Response(200)), hooks={"on_complete": bad, "on_error": bad}) as connect:
        client = connect()
        await client.feed(GET + GET)
        assert client.written.count(b"HTTP/1.1 200") == 2


async def test_completion_tells_status_bytes_and_time(wire) -> None:
    clock = wire.ManualClock()
    done: list[tuple[str, int, int, float, int]] = []

    async def handler(request: Request) -> Response:
        await request.body.read(100)
        clock.now += 2.5
        return Response(206, [], pieces(b"ab", b"cde"), length=5)

    def note(request: Request, status: int, sent: int, seconds: float) -> None:
        done.append((request.method, status, sent, seconds, request.body.received))

    async with wire.in_memory(handler, clock=clock, hooks={"on_complete": note}) as connect:
        await connect().feed(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    assert done == [("PUT", 206, 5, 2.5, 3)]


async def test_a_stream_that_fails_before_its_first_piece_is_still_a_500(wire) -> None:
    async def failing() -> AsyncIterator[bytes]:
        raise OSError("disk")
        yield b""

    errors: list[BaseException] = []
    async with wire.in_memory(
        answer(Response(200, [], failing(), length=5)), hooks={"on_error": lambda r, e: errors.append(e)}
    ) as connect:
        client = connect()
        await client.feed(GET)
        assert client.written.startswith(b"HTTP/1.1 500 ")
        assert isinstance(errors[0], OSError)


@pytest.mark.parametrize(("length", "raw"), [(10, GET), (None, GET), (None, GET_10)])
async def test_a_stream_that_fails_midway_never_ends_cleanly(wire, length: int | None, raw: bytes) -> None:
    freed = asyncio.Event()

    async def failing() -> AsyncIterator[bytes]:
        try:
            yield b"half"
            raise OSError("disk")
        finally:
            freed.set()

    hooks = {"on_error": lambda r, e: None}
    handler = answer(Response(200, [], failing(), length=length))
    async with wire.serving(handler, hooks=hooks) as served:
        client = await served.connect()
        await client.send(raw)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.reply()
        await freed.wait()


async def test_a_stream_that_ends_short_of_its_length_never_ends_cleanly(wire) -> None:
    handler = answer(Response(200, [], pieces(b"half"), length=10))
    async with wire.serving(handler, hooks={"on_error": lambda r, e: None}) as served:
        client = await served.connect()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.ask(GET)


async def test_a_slow_reader_is_given_one_piece_at_a_time(wire) -> None:
    made: list[int] = []

    async def many() -> AsyncIterator[bytes]:
        for i in range(5):
            made.append(i)
            yield b"%d" % i

    async with wire.in_memory(answer(Response(200, [], many(), length=5))) as connect:
        client = connect()
        client.slow = True
        await client.feed(GET)
        for expected in range(1, 6):
            assert len(made) == expected
            client.take()
            await client.settle()
        assert client.written.endswith(b"01234")


async def test_a_piece_may_be_reused_once_the_next_is_asked_for(wire) -> None:
    data = random.Random(20).randbytes(8 << 20)

    async def reusing() -> AsyncIterator[memoryview]:
        buffer = bytearray(1 << 18)
        for at in range(0, len(data), len(buffer)):
            buffer[:] = data[at : at + len(buffer)]
            yield memoryview(buffer)
            buffer[:] = bytes(len(buffer))

    handler = answer(Response(200, [], reusing(), length=len(data)))
    async with wire.serving(handler) as served:
        client = await served.connect(receive_buffer=16 << 10)
        assert (await client.ask(GET)).body == data


async def test_a_slow_reader_holds_up_its_own_pipeline_only(wire) -> None:
    calls: list[bytes] = []

    async def handler(request: Request) -> Response:
        calls.append(request.target)
        return Response(200, body=b"x" * 100)

    async with wire.in_memory(handler) as connect:
        slow, other = connect(), connect()
        slow.slow = True
        await slow.feed(GET * 5)
        assert len(calls) == 1
        await other.feed(GET)
        assert len(calls) == 2
        for _ in range(5):
            slow.take()
            await slow.settle()
        assert len(calls) == 6


async def test_a_reader_that_stops_is_cut_and_one_that_crawls_is_not(wire) -> None:
    clock = wire.ManualClock()
    done: list[int] = []
    hooks = {"on_complete": lambda r, status, sent, seconds: done.append(status)}
    handler = answer(Response(200, body=b"x" * 1000))
    async with wire.in_memory(handler, clock=clock, hooks=hooks, write_idle_seconds_max=60.0) as connect:
        client = connect()
        client.slow = True
        await client.feed(GET)
        connect.server.sweep()
        for _ in range(5):
            client.unsent -= 10
            clock.now += 61
            connect.server.sweep()
            connect.server.sweep()
            assert not client.closing
        clock.now += 61
        connect.server.sweep()
        await client.settle()
        assert client.closing
        assert done == [499]


async def test_a_client_that_leaves_midway_frees_the_stream(wire) -> None:
    freed, first = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65_536
                first.set()
        finally:
            freed.set()

    hooks = {"on_complete": lambda r, status, sent, seconds: done.append(status)}
    async with wire.serving(answer(Response(200, [], endless())), hooks=hooks) as served:
        client = await served.connect()
        await client.send(GET)
        await client.head()
        await first.wait()
        client.leave()
        await freed.wait()
        await wire.until(lambda: bool(done))
    assert done == [499]


async def test_large_bodies_in_several_buffers_arrive_whole(wire) -> None:
    parts = [random.Random(i).randbytes(700_000) for i in range(5)]
    async with wire.serving(answer(Response(200, [], parts))) as served:
        client = await served.connect(receive_buffer=16 << 10)
        for _ in range(2):
            assert (await client.ask(GET)).body == b"".join(parts)


async def test_an_answer_at_hand_is_sent_in_the_call_that_brought_the_request(wire) -> None:
    done: list[tuple[int, int]] = []

    def handler(request: Request) -> Response:
        if request.target == b"/fails":
            raise RuntimeError("our own mistake")
        return Response(200, body=request.target)

    hooks = {"on_complete": lambda request, status, sent, seconds: done.append((status, sent))}
    async with wire.in_memory(handler, hooks=hooks) as connect:
        client = connect()
        view = client.protocol.get_buffer(-1)
        view[: len(GET)] = GET
        client.protocol.buffer_updated(len(GET))  # and not one turn of the loop
        assert bytes(client.written).startswith(b"HTTP/1.1 200 OK\r\n")
        assert done == [(200, 1)]
        await client.feed(GET * 40)  # sent ahead: the connection's task answers them
        await client.settle()
        assert client.written.count(b"HTTP/1.1 200 OK\r\n") == 41
        assert len(done) == 41
        await client.feed(b"GET /fails HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.settle()
        assert client.written.count(b"HTTP/1.1 500 ") == 1
        assert client.closing


async def test_an_answer_at_hand_is_complete_when_a_slow_reader_took_it(wire) -> None:
    done: list[int] = []

    def handler(request: Request) -> Response:
        return Response(200, body=b"x" * 100)

    hooks = {"on_complete": lambda request, status, sent, seconds: done.append(sent)}
    async with wire.in_memory(handler, hooks=hooks) as connect:
        slow = connect()
        slow.slow = True
        await slow.feed(GET * 3)
        await slow.settle()
        for taken in range(3):
            assert done == [100] * taken
            slow.take()
            await slow.settle()
        assert done == [100] * 3


async def test_a_handler_whose_client_left_at_once_begins_and_ends(wire) -> None:
    events: list[str] = []

    async def handler(request: Request) -> Response:
        events.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("ended")
        return Response(200)

    hooks = {"on_complete": lambda request, status, sent, seconds: events.append(str(status))}
    async with wire.in_memory(handler, hooks=hooks) as connect:
        client = connect()
        view = client.protocol.get_buffer(-1)
        view[: len(GET)] = GET
        client.protocol.buffer_updated(len(GET))
        client.protocol.connection_lost(None)
        await client.settle()
        assert events == ["begun", "ended", "499"]
