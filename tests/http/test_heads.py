"""Heads: what is taken, what is refused with which status, and that a refusal ends the connection."""

import pytest

from ostraka.http import Request, Response

HOST = b"Host: bucket.example\r\n"


def get(*fields: bytes, line: bytes = b"GET /b/k HTTP/1.1") -> bytes:
    return line + b"\r\n" + HOST + b"".join(f + b"\r\n" for f in fields) + b"\r\n"


REFUSED = {
    "content length and transfer encoding": (400, get(b"Content-Length: 5", b"Transfer-Encoding: chunked")),
    "transfer encoding and content length": (400, get(b"Transfer-Encoding: chunked", b"Content-Length: 5")),
    "two different content lengths": (400, get(b"Content-Length: 5", b"Content-Length: 6")),
    "two equal content lengths": (400, get(b"Content-Length: 5", b"Content-Length: 5")),
    "two content lengths spelt differently": (400, get(b"Content-Length: 5", b"content-length: 6")),
    "a list of content lengths": (400, get(b"Content-Length: 5, 5")),
    "a signed content length": (400, get(b"Content-Length: +5")),
    "a negative content length": (400, get(b"Content-Length: -5")),
    "a hexadecimal content length": (400, get(b"Content-Length: 0x5")),
    "an empty content length": (400, get(b"Content-Length:")),
    "a content length with a blank": (400, get(b"Content-Length: 1 5")),
    "a content length with an underscore": (400, get(b"Content-Length: 1_5")),
    "a content length in other digits": (400, get("Content-Length: ٥".encode())),
    "a content length beyond 64 bits": (400, get(b"Content-Length: 99999999999999999999999999")),
    "a content length beyond the bound": (413, get(b"Content-Length: 18446744073709551615")),
    "bare line feeds": (400, get().replace(b"\r\n", b"\n")),
    "one bare line feed": (400, get(b"A: b\nC: d")),
    "a bare carriage return": (400, get(b"A: b\rC: d")),
    "obsolete line folding": (400, get(b"A: b\r\n c")),
    "a folded first field": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "a blank before the colon": (400, get(b"Content-Length : 5")),
    "a field without colon": (400, get(b"nonsense")),
    "a field without name": (400, get(b": x")),
    "a name that is no token": (400, get(b"A(: x")),
    "a name that is not ASCII": (400, get("Ä: x".encode())),
    "a NUL in a value": (400, get(b"A: b\0c")),
    "a NUL in the target": (400, get(line=b"GET /a\0b HTTP/1.1")),
    "a control character in a value": (400, get(b"A: b\x01c")),
    "a delete in a value": (400, get(b"A: b\x7fc")),
    "an unknown transfer coding": (501, get(b"Transfer-Encoding: gzip")),
    "a list of transfer codings": (501, get(b"Transfer-Encoding: gzip, chunked")),
    "a transfer coding after chunked": (501, get(b"Transfer-Encoding: chunked, gzip")),
    "identity": (501, get(b"Transfer-Encoding: identity")),
    "a misspelt chunked": (501, get(b"Transfer-Encoding: xchunked")),
    "a quoted chunked": (501, get(b'Transfer-Encoding: "chunked"')),
    "a vertical tab before chunked": (400, get(b"Transfer-Encoding: \x0bchunked")),
    "chunked twice": (400, get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    "an empty transfer encoding": (501, get(b"Transfer-Encoding:")),
    "chunked in HTTP/1.0": (400, get(b"Transfer-Encoding: chunked", line=b"PUT / HTTP/1.0")),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, get(b"Host: bucket.example")),
    "a host with a path": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "a host with user information": (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    "a host with a blank": (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "another host in the target": (400, get(line=b"GET http://other.example/ HTTP/1.1")),
    "user information in the target": (400, get(line=b"GET http://u@bucket.example/ HTTP/1.1")),
    "a target without slash": (400, get(line=b"GET b/k HTTP/1.1")),
    "an asterisk for GET": (400, get(line=b"GET * HTTP/1.1")),
    "a fragment": (400, get(line=b"GET /a#b HTTP/1.1")),
    "a raw blank in the target": (400, get(line=b"GET /a b HTTP/1.1")),
    "a tab in the target": (400, get(line=b"GET /a\tb HTTP/1.1")),
    "raw UTF-8 in the target": (400, get(line="GET /ä HTTP/1.1".encode())),
    "two blanks in the request line": (400, get(line=b"GET  / HTTP/1.1")),
    "a tab in the request line": (400, get(line=b"GET\t/ HTTP/1.1")),
    "a blank after the version": (400, get(line=b"GET / HTTP/1.1 ")),
    "no version": (400, get(line=b"GET /")),
    "another protocol": (400, get(line=b"GET / RTSP/1.0")),
    "lower case protocol": (400, get(line=b"GET / http/1.1")),
    "HTTP/2 as text": (505, get(line=b"GET / HTTP/2.0")),
    "the preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/1.2": (505, get(line=b"GET / HTTP/1.2")),
    "HTTP/0.9": (505, get(line=b"GET / HTTP/0.9")),
    "HTTP/1.10": (400, get(line=b"GET / HTTP/1.10")),
    "an unknown method": (501, get(line=b"FROB / HTTP/1.1")),
    "a method in lower case": (501, get(line=b"get / HTTP/1.1")),
    "a tunnel": (501, get(line=b"CONNECT a:1 HTTP/1.1")),
    "an unknown expectation": (417, get(b"Expect: the-best", b"Content-Length: 1")),
    "a TLS hello": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    "a long target": (414, get(line=b"GET /" + b"a" * (16 << 10) + b" HTTP/1.1")),
    "an endless request line": (414, b"GET /" + b"a" * (17 << 10)),
    "a long field": (431, get(b"A: " + b"b" * (64 << 10))),
    "an endless head": (431, get()[:-2] + b"A: bbbb\r\n" * 8000),
    "too many fields": (431, get(*[b"A%d: b" % i for i in range(200)])),
    "an endless field": (431, get()[:-2] + b"A: " + b"b" * (65 << 10)),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_bad_head_is_refused_and_ends_the_connection(wire, case: str) -> None:
    status, raw = REFUSED[case]
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return Response(200)

    async with wire.in_memory(handler) as connect:
        client = connect()
        await client.feed(raw)
        await client.feed(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert bytes(client.written[9:12]) == b"%d" % status, bytes(client.written[:80])
        assert client.written.count(b"HTTP/1.1 ") == 1
        assert b"Connection: close\r\n" in client.written
        assert client.half_closed or client.closing
        assert not seen
        assert connect.server.refusals == {status: 1}


TAKEN = {
    "plain": (get(), "/b/k", ""),
    "absolute": (get(line=b"GET http://bucket.example/b/k?x=1 HTTP/1.1"), "/b/k", "x=1"),
    "absolute without path": (get(line=b"GET http://bucket.example?x HTTP/1.1"), "/", "x"),
    "raw": (get(line=b"GET //a/../b/./%2F%zz+?a=%20&b=?? HTTP/1.1"), "//a/../b/./%2F%zz+", "a=%20&b=??"),
    "asterisk": (get(line=b"OPTIONS * HTTP/1.1"), "*", ""),
    "empty lines before it": (b"\r\n\r\n" + get(), "/b/k", ""),
    "1.0 without host": (b"GET /b/k HTTP/1.0\r\n\r\n", "/b/k", ""),
    "an offer to upgrade": (get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), "/b/k", ""),
    "an IPv6 host": (b"GET /b/k HTTP/1.1\r\nHost: [::1]:9000\r\n\r\n", "/b/k", ""),
    "an empty host": (b"GET /b/k HTTP/1.1\r\nHost:\r\n\r\n", "/b/k", ""),
    "the longest target": (get(line=b"GET /" + b"a" * 16383 + b" HTTP/1.1"), "/" + "a" * 16383, ""),
    "exactly as many fields as may be": (get(*[b"A%d: b" % i for i in range(199)]), "/b/k", ""),
}


@pytest.mark.parametrize("case", TAKEN)
async def test_a_good_head_reaches_the_handler_as_sent(wire, case: str) -> None:
    raw, path, query = TAKEN[case]
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return Response(204)

    async with wire.in_memory(handler) as connect:
        client = connect()
        await client.feed(raw)
        assert client.written.startswith(b"HTTP/1.1 204 "), bytes(client.written)
        [request] = seen
        assert request.raw_path.decode() == path
        assert request.raw_query.decode() == query
        assert b" " + request.target + b" HTTP/1." in raw
        assert request.peer == "192.0.2.7"
        assert request.scheme == "http"
        assert request.received_at == 1000.0


async def test_header_values_keep_their_bytes_order_and_duplicates_and_lose_blanks_around(wire) -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return Response(200)

    async with wire.in_memory(handler) as connect:
        fields = [b"X-A:  one \t ", b"X-B: caf\xc3\xa9", b"x-a: two", b"X-C: caf\xe9", b"X-D:", b'X-E: a, b;c="d"']
        await connect().feed(get(*fields))
        await connect().feed(get(b"X-C: caf\xe9"))
        headers = seen[0].headers
        assert headers.get("x-a") == "one"
        assert headers.get_all("x-a") == ["one", "two"]
        assert headers.has_duplicates
        assert headers.get("x-b") == "café"
        assert headers.get("x-c").encode("utf-8", "surrogateescape") == b"caf\xe9"
        assert headers.get("x-d") == ""
        assert headers.get("x-missing") is None
        assert "x-e" in headers
        assert [n for n, _ in headers] == ["host", "x-a", "x-b", "x-a", "x-c", "x-d", "x-e"]
        assert len(headers) == 7
        assert "two" not in repr(headers)
        assert seen[1].headers.get("x-c").encode("utf-8", "surrogateescape") == b"caf\xe9"
        assert not seen[1].headers.has_duplicates


async def test_names_that_differ_in_case_only_are_one_name(wire) -> None:
    async with wire.in_memory(lambda r: _echo(r)) as connect:
        client = connect()
        await client.feed(get(b"ACCEPT: a", b"accept: b", b"Accept: c"))
        assert client.written.endswith(b"a|b|c")


async def _echo(request: Request) -> Response:
    return Response(200, body="|".join(request.headers.get_all("accept")).encode())


async def test_a_request_after_connection_close_of_another_client_is_not_affected(wire) -> None:
    """A parser shared between heads once refused whatever followed a ``Connection: close``."""
    async with wire.in_memory(_echo) as connect:
        for _ in range(3):
            client = connect()
            await client.feed(get(b"Connection: close"))
            assert client.written.startswith(b"HTTP/1.1 200")
            assert client.closing
