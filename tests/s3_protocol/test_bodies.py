"""Bodies come out of their framing whole and verified, wherever the stream is split; cut or lying ones never end."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import io
import itertools
import random

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, CrtCrc32Checksum
from s3_signing import Headers

from ostraka.limits import LIMITS
from ostraka.s3.auth import Authenticated, ChunkSigning, Payload
from ostraka.s3.bodies import AwsChunkedBody, Body, PlainBody, open_body, read_all
from ostraka.s3.digests import Digests, expected_of
from ostraka.s3.errors import BodyError, S3Error

SIGNING = ChunkSigning(b"k" * 32, "20130524T000000Z", "20130524/r/s3/aws4_request", "0" * 64)
TRAILER = "x-amz-checksum-crc32"


class Wire:
    """A connection that gives its bytes in pieces cut at the given places."""

    def __init__(self, data: bytes, cuts: list[int], *, now: bool = False) -> None:
        self.length: int | None = len(data)
        edges = [0, *sorted(cuts), len(data)]
        self._pieces = [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
        self._now = now

    async def read_into(self, view: memoryview) -> int:
        if not self._pieces:
            return 0
        piece = self._pieces[0][: len(view)]
        view[: len(piece)] = piece
        self._pieces[0] = self._pieces[0][len(piece) :]
        if not self._pieces[0]:
            del self._pieces[0]
        return len(piece)

    def read_now(self) -> bytes | None:
        return b"".join(self._pieces) if self._now else None


def crc32(data: bytes) -> str:
    return base64.b64encode(binascii.crc32(data).to_bytes(4, "big")).decode()


def sign(kind: str, *lines: str) -> str:
    text = "\n".join((kind, SIGNING.timestamp, SIGNING.scope, *lines))
    return hmac.new(SIGNING.key, text.encode(), "sha256").hexdigest()


def signed_frames(chunks: list[bytes], trailer: str | None = None) -> bytes:
    """Framing as AWS describes it, written independently of the decoder."""
    out, previous = b"", SIGNING.seed
    for chunk in [*chunks, b""]:
        empty, hashed = hashlib.sha256().hexdigest(), hashlib.sha256(chunk).hexdigest()
        previous = sign("AWS4-HMAC-SHA256-PAYLOAD", previous, empty, hashed)
        out += f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk + (b"\r\n" if chunk else b"")
    if trailer is not None:
        hashed = hashlib.sha256(f"{TRAILER}:{trailer}\n".encode()).hexdigest()
        signature = sign("AWS4-HMAC-SHA256-TRAILER", previous, hashed)
        out += f"{TRAILER}:{trailer}\r\nx-amz-trailer-signature:{signature}\r\n".encode()
    return out + b"\r\n"


def botocore_frames(data: bytes) -> bytes:
    wrapper = AwsChunkedWrapper(
        io.BytesIO(data), checksum_cls=CrtCrc32Checksum, checksum_name=TRAILER, chunk_size=1 << 14
    )
    out = b""
    while piece := wrapper.read():
        out += piece
    return out


DATA = random.Random(7).randbytes(40_000)
CHUNKS = [DATA[:16384], DATA[16384:32768], DATA[32768:]]
FORMS = {
    Payload.CHUNKED_SIGNED: signed_frames(CHUNKS),
    Payload.CHUNKED_SIGNED_TRAILER: signed_frames(CHUNKS, crc32(DATA)),
    Payload.CHUNKED_UNSIGNED_TRAILER: botocore_frames(DATA),
}


def body_of(wire: Wire, form: Payload, length: int = len(DATA), *, inline: bool = True) -> Body:
    headers = [("x-amz-decoded-content-length", str(length))]
    if form is not Payload.CHUNKED_SIGNED:
        headers.append(("x-amz-trailer", TRAILER))
    auth = Authenticated(None, form, "", SIGNING)
    return open_body(wire, auth, Headers(headers), LIMITS, inline=inline)


def drain(body: Body, view_size: int = 7000) -> bytes:
    async def run() -> bytes:
        out, view = b"", memoryview(bytearray(view_size))
        while n := await body.read_into(view):
            out += view[:n]
        assert await body.read_into(view) == 0
        return out

    return asyncio.run(run())


def fails(body: Body, view_size: int = 7000) -> str:
    with pytest.raises(BodyError) as caught:
        drain(body, view_size)
    return caught.value.code


@pytest.mark.parametrize("form", FORMS)
def test_split_anywhere_the_body_is_the_same(form: Payload) -> None:
    framed, rng = FORMS[form], random.Random(11)
    print("seed 11")
    for _ in range(60):
        cuts = rng.sample(range(len(framed)), rng.choice([0, 1, 2, 5, 40]))
        body = body_of(Wire(framed, cuts), form)
        assert drain(body, rng.choice([100, 4096, 16384, 50_000, 1 << 17])) == DATA
        assert body.trailers == ({} if form is Payload.CHUNKED_SIGNED else {TRAILER: crc32(DATA)})


@pytest.mark.parametrize("form", FORMS)
def test_every_split_point_of_the_framing(form: Payload) -> None:
    small = b"x" * 30
    framed = {
        Payload.CHUNKED_SIGNED: signed_frames([small]),
        Payload.CHUNKED_SIGNED_TRAILER: signed_frames([small], crc32(small)),
        Payload.CHUNKED_UNSIGNED_TRAILER: botocore_frames(small),
    }[form]
    for cut in range(len(framed)):
        assert drain(body_of(Wire(framed, [cut]), form, 30), 11) == small
    assert drain(body_of(Wire(framed, list(range(len(framed)))), form, 30), 11) == small


@pytest.mark.parametrize("form", FORMS)
def test_a_body_cut_anywhere_is_incomplete(form: Payload) -> None:
    framed, rng = FORMS[form], random.Random(13)
    print("seed 13")
    places = [*range(len(framed) - 160, len(framed)), *rng.sample(range(len(framed)), 60), 0, 1]
    for cut in places:
        code = fails(body_of(Wire(framed[:cut], []), form))
        assert code == "IncompleteBody", cut


@pytest.mark.parametrize("form", FORMS)
def test_a_body_that_is_here_already_is_decoded_at_once(form: Payload) -> None:
    body = body_of(Wire(FORMS[form], [], now=True), form)
    data = body.read_now()
    assert data is not None
    assert bytes(data) == DATA
    assert bool(body.trailers) == (form is not Payload.CHUNKED_SIGNED)
    with pytest.raises(BodyError):
        body_of(Wire(FORMS[form][:-3], [], now=True), form).read_now()
    with pytest.raises(BodyError):
        body_of(Wire(FORMS[form], [], now=True), form, 10**12).read_now()
    assert body_of(Wire(FORMS[form], []), form).read_now() is None


def test_an_empty_body_in_every_form() -> None:
    for form, framed in (
        (Payload.CHUNKED_SIGNED, signed_frames([])),
        (Payload.CHUNKED_SIGNED_TRAILER, signed_frames([], crc32(b""))),
        (Payload.CHUNKED_UNSIGNED_TRAILER, botocore_frames(b"")),
    ):
        assert drain(body_of(Wire(framed, []), form, 0)) == b""
        now = body_of(Wire(framed, [], now=True), form, 0).read_now()
        assert now is not None
        assert bytes(now) == b""


@pytest.mark.parametrize("form", [Payload.CHUNKED_SIGNED, Payload.CHUNKED_SIGNED_TRAILER])
def test_any_changed_byte_of_a_signed_body_is_found(form: Payload) -> None:
    framed, rng = FORMS[form], random.Random(17)
    print("seed 17")
    for place in [*rng.sample(range(len(framed)), 120), *range(len(framed) - 170, len(framed) - 2)]:
        broken = bytearray(framed)
        broken[place] ^= 1
        with pytest.raises(S3Error) as caught:
            drain(body_of(Wire(bytes(broken), []), form))
        assert caught.value.status in (400, 403), place


def test_chunks_in_another_order_do_not_match() -> None:
    frames = signed_frames([b"a" * 9000, b"b" * 9000])
    size = len(b"2328;chunk-signature=\r\n") + 64 + 9000 + 2
    swapped = frames[size : 2 * size] + frames[:size] + frames[2 * size :]
    assert fails(body_of(Wire(swapped, []), Payload.CHUNKED_SIGNED, 18000)) == "SignatureDoesNotMatch"
    dropped = frames[size:]
    assert fails(body_of(Wire(dropped, []), Payload.CHUNKED_SIGNED, 9000)) == "SignatureDoesNotMatch"


def test_the_declared_length_is_enforced() -> None:
    for form, framed in FORMS.items():
        for length in (0, 1, len(DATA) - 1, len(DATA) + 1):
            assert fails(body_of(Wire(framed, []), form, length)) == "IncompleteBody"


@pytest.mark.parametrize(
    ("framed", "code"),
    [
        (b"5\nhello\r\n0\r\n\r\n", "InvalidRequest"),
        (b"+5\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
        (b"0x5\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
        (b"5;a=b\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
        (b"5\r\nhelloX\r\n0\r\n\r\n", "InvalidRequest"),
        (b"5\r\nhello0\r\n\r\n", "InvalidRequest"),
        (b"-1\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
        (b"11111111111111111\r\nhello", "InvalidRequest"),
        (b"ffffffffffffffff\r\nhello", "IncompleteBody"),
        (b"A" * 5000, "InvalidRequest"),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\nmore", "InvalidRequest"),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32 : a\r\n\r\n", "MalformedTrailerError"),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-sha1:aaaa\r\n\r\n", "MalformedTrailerError"),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:a\r\nx-amz-checksum-crc32:a\r\n\r\n", "MalformedTrailerError"),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:\r\n\r\n", "MalformedTrailerError"),
        (b"5\r\nhello\r\n0\r\n\r\n", "MalformedTrailerError"),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:" + b"a" * 5000, "InvalidRequest"),
        (b"5\r\nhello\r\n0\r\nx-amz-trailer-signature:aa\r\nx-amz-checksum-crc32:a\r\n\r\n", "MalformedTrailerError"),
    ],
)
def test_malformed_framing(framed: bytes, code: str) -> None:
    assert fails(body_of(Wire(framed, []), Payload.CHUNKED_UNSIGNED_TRAILER, 5)) == code


def test_a_line_end_of_lf_alone_in_a_trailer_is_tolerated() -> None:
    framed = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:" + crc32(b"hello").encode() + b"\n\r\n\r\n"
    assert drain(body_of(Wire(framed, []), Payload.CHUNKED_UNSIGNED_TRAILER, 5)) == b"hello"


def test_an_unsigned_trailer_under_a_signed_form_is_refused() -> None:
    text = signed_frames([DATA[:100]])[:-2] + f"{TRAILER}:{crc32(DATA[:100])}\r\n\r\n".encode()
    assert fails(body_of(Wire(text, []), Payload.CHUNKED_SIGNED_TRAILER, 100)) == "MalformedTrailerError"
    assert fails(body_of(Wire(text, []), Payload.CHUNKED_SIGNED, 100)) == "InvalidRequest"


def test_only_the_last_signed_chunk_may_be_small() -> None:
    framed = signed_frames([DATA[:100], DATA[100:200]])
    assert fails(body_of(Wire(framed, []), Payload.CHUNKED_SIGNED, 200)) == "InvalidChunkSizeError"


def test_a_verifier_off_the_loop_finds_the_same() -> None:
    async def run(framed: bytes) -> None:
        body = body_of(Wire(framed, [5000, 17000]), Payload.CHUNKED_SIGNED_TRAILER, inline=False)
        expected = expected_of(Headers([("x-amz-trailer", TRAILER)]))
        digests = Digests(expected, body.verifier, trailers=lambda: body.trailers)
        while True:
            view = memoryview(bytearray(6000))
            n = await body.read_into(view)
            if not n:
                break
            await asyncio.to_thread(digests.update, view[:n])
        done = digests.finish()
        assert done.etag == hashlib.md5(DATA).hexdigest()
        assert done.checksums == {"CRC32": crc32(DATA)}

    asyncio.run(run(FORMS[Payload.CHUNKED_SIGNED_TRAILER]))
    for place in (200, 17000, len(FORMS[Payload.CHUNKED_SIGNED_TRAILER]) - 20):
        broken = bytearray(FORMS[Payload.CHUNKED_SIGNED_TRAILER])
        broken[place] ^= 1
        with pytest.raises(BodyError):
            asyncio.run(run(bytes(broken)))


def test_plain_bodies_must_hash_to_what_was_signed() -> None:
    good = hashlib.sha256(DATA).hexdigest()
    assert drain(PlainBody(Wire(DATA, [9, 500]), good)) == DATA
    assert fails(PlainBody(Wire(DATA, []), "0" * 64)) == "XAmzContentSHA256Mismatch"
    with pytest.raises(BodyError):
        PlainBody(Wire(DATA, [], now=True), "0" * 64).read_now()
    later = PlainBody(Wire(DATA, []), "0" * 64, inline=False)
    assert drain(later) == DATA
    assert later.verifier is not None
    later.verifier.update(DATA)
    with pytest.raises(BodyError):
        later.verifier.finish()


def test_a_plain_body_that_ends_early_is_incomplete() -> None:
    wire = Wire(DATA, [])
    wire.length = len(DATA) + 1
    assert fails(PlainBody(wire)) == "IncompleteBody"


def test_open_body_refuses_contradictions() -> None:
    wire = Wire(b"", [])
    for auth, headers, code in (
        (Authenticated(None, Payload.CHUNKED_UNSIGNED_TRAILER), [], "MissingContentLength"),
        (
            Authenticated(None, Payload.CHUNKED_UNSIGNED_TRAILER),
            [("x-amz-decoded-content-length", "-1")],
            "InvalidArgument",
        ),
        (Authenticated(None, Payload.CHUNKED_SIGNED), [("x-amz-decoded-content-length", "1")], "InvalidRequest"),
        (
            Authenticated(None, Payload.CHUNKED_SIGNED),
            [("x-amz-decoded-content-length", str(10**17))],
            "EntityTooLarge",
        ),
    ):
        with pytest.raises(S3Error) as caught:
            open_body(wire, auth, Headers(headers), LIMITS)
        assert caught.value.code == code


def test_small_bodies_are_read_whole_within_a_bound() -> None:
    for now in (True, False):
        assert asyncio.run(read_all(PlainBody(Wire(DATA, [3], now=now)), 50_000)) == DATA
        endless = Wire(DATA, [3], now=now)
        endless.length = None
        with pytest.raises(S3Error) as caught:
            asyncio.run(read_all(PlainBody(endless), 30_000))
        assert caught.value.code == "MaxMessageLengthExceeded"


def test_data_is_received_straight_into_the_readers_memory() -> None:
    class Direct(Wire):
        def __init__(self, data: bytes) -> None:
            super().__init__(data, [])
            self.sizes: list[int] = []

        async def read_into(self, view: memoryview) -> int:
            n = await super().read_into(view)
            self.sizes.append(n)
            return n

    data = bytes(1 << 20)
    wire = Direct(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")
    body = AwsChunkedBody(wire, len(data), trailers=[])
    assert drain(body, 1 << 21) == data
    assert sum(n for n in wire.sizes if n > 4096) > len(data) - 4096
    assert len(wire.sizes) <= 5
