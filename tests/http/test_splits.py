"""However the network cuts a stream of requests, the handler sees the same requests and the client the same bytes."""

import itertools
import random

import pytest

from ostraka.errors import OstrakaError
from ostraka.http import Request, Response

SEED = 20

GET = b"GET /b/k?x=%20 HTTP/1.1\r\nHost: a\r\nX-Amz-Date: now \r\n\r\n"
PUT = b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nhello\r\n\r\nyou"
EMPTY_PUT = b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
UNREAD = b"PUT /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\nGET / HTTP/1.1\r\nHost: evil\r\n\r\n."
HALF_READ = UNREAD.replace(b"/unread", b"/half")
CHUNKED = (
    b"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b'5\r\nhello\r\nB;ext=1;q="z"\r\n\r\n0\r\n\r\nworl\r\n0001\r\nd\r\n0;last\r\nX-Sum: abc \r\nX-Two: 2\r\n\r\n'
)
EMPTY_CHUNKED = b"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
EXPECT = b"PUT /b/k HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
HEAD = b"HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n"
STREAM = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
FAIL = b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n"

STREAMS = {
    "gets": GET * 3,
    "puts": PUT + EMPTY_PUT + PUT,
    "unread": UNREAD + HALF_READ + GET,
    "chunked": CHUNKED + EMPTY_CHUNKED + GET,
    "expect": EXPECT + GET,
    "streams": STREAM + HEAD + GET,
    "blank lines": b"\r\n" + GET + b"\r\n" + GET,
    "old": OLD + OLD,
    "after close": PUT + CLOSE + GET,
    "failing handler": GET + FAIL + GET,
    "bad chunk size": CHUNKED.replace(b"0001", b"0x01") + GET,
    "chunk longer than it says": CHUNKED.replace(b"5\r\nhello", b"4\r\nhello") + GET,
    "bad trailer": CHUNKED.replace(b"X-Sum:", b"X Sum:") + GET,
    "smuggled length": GET + PUT.replace(b"th: 12", b"th: 12\r\nTransfer-Encoding: chunked") + GET,
    "bare line feed": GET + GET.replace(b"\r\nX", b"\nX") + GET,
    "bad method": GET + b"FROB / HTTP/1.1\r\nHost: a\r\n\r\n" + GET,
    "long": PUT.replace(b"Length: 12", b"Length: 5000") + b"z" * (5000 - 12) + GET,
}


async def _pieces():
    for piece in (b"one", b"", memoryview(b"two")):
        yield piece


def make_handler(seen: list):
    async def handler(request: Request) -> Response:
        body, trailers = b"", None
        note = [request.method, request.target, list(request.headers)]
        seen.append(note)
        if request.raw_path == b"/fail":
            raise RuntimeError("as told")
        if request.raw_path == b"/unread":
            return Response(403, body=b"no")
        if request.raw_path == b"/half":
            view = memoryview(bytearray(7))
            count = await request.body.fill(view)
            note.append(bytes(view[:count]))
            return Response(403, body=b"no")
        try:
            body = await request.body.read(1 << 20)
        except OstrakaError as e:
            note.append(type(e).__name__)
            raise
        trailers = list(request.body.trailers or ())
        note += [body, trailers]
        if request.raw_path == b"/stream":
            return Response(200, body=_pieces())
        return Response(200, [("ETag", '"x"')], body)

    return handler


async def _outcome(wire, pieces: list[bytes]) -> tuple[list, bytes, bool]:
    seen: list = []
    hooks = {"on_error": lambda request, error: seen.append(repr(error))}
    async with wire.in_memory(make_handler(seen), hooks=hooks) as connect:
        client = connect()
        for piece in pieces:
            await client.feed(piece)
        ended = client.closing or client.half_closed
        return seen, bytes(client.written), ended


def _without_continue(outcome: tuple[list, bytes, bool]) -> tuple[list, bytes, bool]:
    # whether the 100 is sent depends, as it may, on whether some of the body came before it was asked for
    seen, written, ended = outcome
    return seen, written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""), ended


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_means_the_same_wherever_it_is_cut(wire, name: str) -> None:
    raw = STREAMS[name]
    whole = _without_continue(await _outcome(wire, [raw]))
    assert whole[0]
    for cut in range(1, len(raw)):
        if len(raw) > 1000 and 300 < cut < len(raw) - 100 and cut % 97:
            continue  # the middle of a long body, where nothing changes
        assert _without_continue(await _outcome(wire, [raw[:cut], raw[cut:]])) == whole, cut


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_means_the_same_byte_by_byte_and_in_random_pieces(wire, name: str) -> None:
    raw = STREAMS[name]
    whole = _without_continue(await _outcome(wire, [raw]))
    if len(raw) < 1000:
        assert _without_continue(await _outcome(wire, [raw[i : i + 1] for i in range(len(raw))])) == whole
    dice = random.Random(f"{SEED} {name}")
    for _ in range(30):
        cuts = sorted({0, len(raw), *(dice.randrange(1, len(raw)) for _ in range(dice.randrange(1, 9)))})
        pieces = [raw[a:b] for a, b in itertools.pairwise(cuts)]
        assert _without_continue(await _outcome(wire, pieces)) == whole, (SEED, cuts)


async def test_the_whole_streams_are_understood_as_written(wire) -> None:
    """The anchor of the two tests above: what the uncut streams mean."""
    seen, written, ended = await _outcome(wire, [STREAMS["chunked"]])
    assert seen[0][3:] == [b"hello\r\n0\r\n\r\nworld", [("x-sum", "abc"), ("x-two", "2")]]
    assert seen[1][3:] == [b"", []]
    assert seen[2][:2] == ["GET", b"/b/k?x=%20"]
    assert written.count(b"HTTP/1.1 200 OK") == 3
    assert not ended

    seen, written, ended = await _outcome(wire, [STREAMS["unread"]])
    assert [s[1] for s in seen] == [b"/unread", b"/half", b"/b/k?x=%20"]
    assert seen[1][3] == b"GET / H"
    assert not ended

    seen, written, ended = await _outcome(wire, [STREAMS["streams"]])
    assert b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\nHTTP/1.1 200 OK" in written

    for name in ("bad chunk size", "chunk longer than it says", "bad trailer"):
        seen, written, ended = await _outcome(wire, [STREAMS[name]])
        assert [s[1] for s in seen] == [b"/c"], name
        assert seen[0][3] == "Invalid"
        assert written.startswith(b"HTTP/1.1 400 ")
        assert ended

    seen, written, ended = await _outcome(wire, [STREAMS["failing handler"]])
    assert [s if isinstance(s, str) else s[1] for s in seen] == [b"/b/k?x=%20", b"/fail", "RuntimeError('as told')"]
    assert b"HTTP/1.1 500 Internal Server Error" in written
    assert ended

    seen, written, ended = await _outcome(wire, [STREAMS["after close"]])
    assert len(seen) == 2
    assert ended


async def test_random_bytes_never_reach_a_handler_or_hang(wire) -> None:
    dice = random.Random(SEED)
    seen: list = []
    async with wire.in_memory(make_handler(seen)) as connect:
        for _ in range(300):
            client = connect()
            noise = dice.randbytes(dice.randrange(1, 400)) + b"\r\n\r\n"
            await client.feed(noise)
            assert not seen, (SEED, noise)
            assert client.half_closed or client.closing or not noise.strip(b"\r\n")


async def test_damaged_requests_are_answered_or_refused_but_never_crash_the_connection(wire, caplog) -> None:
    dice = random.Random(SEED)
    raws = list(STREAMS.values())
    seen: list = []
    async with wire.in_memory(make_handler(seen), hooks={"on_error": lambda r, e: None}) as connect:
        for _ in range(1500):
            raw = bytearray(dice.choice(raws)[:1500])
            for _ in range(dice.randrange(1, 4)):
                raw[dice.randrange(len(raw))] = dice.choice(b"\0\r\n :;0a\xff,")
            client = connect()
            await client.feed(bytes(raw))
            await client.end()
            assert client.closing or client.half_closed, (SEED, bytes(raw))
            client.close()
            await client.settle()
        assert connect.server.connections == 0
    assert not caplog.records, caplog.records[0].getMessage()
