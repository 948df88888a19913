"""Request bodies, taken out of their framing and checked: plain ones, and aws-chunked in its three forms.

Both classes are an ``objects.types.Source``. A body whose framing lies or is cut ends in a ``BodyError``, never in a
clean end. Chunk data goes from the connection straight into the reader's memory; only framing passes through a small
buffer of our own.

What the payload's signature covers is hashed by a *verifier*. With ``inline=True`` the body feeds its verifier itself
and raises before it says that it has ended. With ``inline=False`` the reader must feed ``body.verifier`` (Digests does,
in a worker thread) and call its ``finish`` before anything is committed.
"""

import contextlib
import hashlib
import hmac
import re
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from ostraka.host import Buffer
from ostraka.limits import LIMITS, Limits
from ostraka.s3.auth.types import Authenticated, ChunkSigning, Payload
from ostraka.s3.digests import Headers, Verifier
from ostraka.s3.errors import BodyError, S3Error

_EMPTY_SHA256 = hashlib.sha256().hexdigest()
_SIGNATURE = "x-amz-trailer-signature"
_signed_header = re.compile(rb"([0-9a-fA-F]{1,16});chunk-signature=([0-9a-f]{64})\r\n").fullmatch
_plain_header = re.compile(rb"([0-9a-fA-F]{1,16})\r\n").fullmatch
_trailer_line = re.compile(rb"([A-Za-z0-9\-_]{1,128}):[ \t]*([!-~](?:[ -~]{0,1022}[!-~])?)[ \t]*\r?\n").fullmatch


class Incoming(Protocol):
    """What the HTTP layer gives: ``objects.types.Source``."""

    length: int | None

    async def read_into(self, view: memoryview) -> int: ...

    def read_now(self) -> Buffer | None: ...


class Sha256Verifier:
    """The payload must hash to what x-amz-content-sha256 said, which the request's signature covers."""

    __slots__ = ("_expected", "_hash")

    def __init__(self, expected: str) -> None:
        """``expected``: lower-case hex."""
        self._expected = expected
        self._hash = hashlib.sha256()

    def update(self, data: Buffer, /) -> None:
        self._hash.update(data)

    def finish(self) -> None:
        computed = self._hash.hexdigest()
        if computed != self._expected:
            fields = {"ClientComputedContentSHA256": self._expected, "S3ComputedContentSHA256": computed}
            raise BodyError("XAmzContentSHA256Mismatch", fields=fields)


class ChunkVerifier:
    """The chain of chunk signatures. The decoder announces each chunk before it delivers its data.

    ``announce`` and ``end`` are called by the decoder, ``update`` and ``finish`` by whoever hashes (maybe another
    thread); the queue between them is a deque, whose operations are atomic.
    """

    __slots__ = ("_announced", "_ended", "_hash", "_left", "_previous", "_signature", "_signing", "_trailer")

    def __init__(self, signing: ChunkSigning) -> None:
        self._signing = signing
        self._previous = signing.seed
        self._announced: deque[tuple[int, str]] = deque()
        self._hash = hashlib.sha256()
        self._left = 0
        self._signature = ""
        self._ended = False
        self._trailer: tuple[bytes, str] | None = None

    def announce(self, size: int, signature: str) -> None:
        """The next chunk (the last one has size 0)."""
        self._announced.append((size, signature))

    def end(self, trailer: tuple[bytes, str] | None) -> None:
        """The framing is complete; ``trailer`` is (canonical trailing headers, their signature) where signed."""
        self._trailer = trailer
        self._ended = True

    def update(self, data: Buffer, /) -> None:
        view = memoryview(data)
        start, size = 0, len(view)
        while start < size:
            if not self._left:
                if not self._announced:
                    raise BodyError("IncompleteBody", "More bytes than the chunks announced")
                self._left, self._signature = self._announced.popleft()
                self._hash = hashlib.sha256()
            n = min(self._left, size - start)
            self._hash.update(view[start : start + n])
            start += n
            self._left -= n
            if not self._left:
                self._check(self._hash.hexdigest(), self._signature)

    def finish(self) -> None:
        if self._left or not self._ended or len(self._announced) != 1 or self._announced[0][0]:
            raise BodyError("IncompleteBody")
        self._check(_EMPTY_SHA256, self._announced.popleft()[1])
        if self._trailer is not None:
            text, signature = self._trailer
            hashed = hashlib.sha256(text).hexdigest()
            self._compare(f"AWS4-HMAC-SHA256-TRAILER\n{self._place()}\n{self._previous}\n{hashed}", signature)

    def _place(self) -> str:
        return f"{self._signing.timestamp}\n{self._signing.scope}"

    def _check(self, hashed: str, signature: str) -> None:
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{self._place()}\n{self._previous}\n{_EMPTY_SHA256}\n{hashed}"
        self._compare(text, signature)
        self._previous = signature

    def _compare(self, to_sign: str, signature: str) -> None:
        right = hmac.digest(self._signing.key, to_sign.encode("utf-8", "surrogateescape"), "sha256").hex()
        if not hmac.compare_digest(right, signature):
            fields = {"StringToSign": to_sign, "SignatureProvided": signature}
            raise BodyError("SignatureDoesNotMatch", fields=fields)


class PlainBody:
    """A body without framing of its own."""

    __slots__ = ("_inline", "_received", "_source", "length", "trailers", "verifier")

    def __init__(self, source: Incoming, sha256: str = "", *, inline: bool = True) -> None:
        """``sha256``: lower-case hex that the body must hash to, or ""."""
        verifier = Sha256Verifier(sha256) if sha256 else None
        self._source = source
        self._inline: Verifier | None = verifier if inline else None
        self.verifier: Verifier | None = None if inline else verifier
        self._received = 0
        self.length = source.length
        self.trailers: dict[str, str] = {}

    async def read_into(self, view: memoryview) -> int:
        n = await self._source.read_into(view)
        if n:
            self._received += n
            if self._inline is not None:
                self._inline.update(view[:n])
            return n
        self._end()
        return 0

    def read_now(self) -> Buffer | None:
        data = self._source.read_now()
        if data is not None:
            self._received += len(data)
            if self._inline is not None:
                self._inline.update(data)
            self._end()
        return data

    def _end(self) -> None:
        if self.length is not None and self._received != self.length:
            raise BodyError("IncompleteBody")
        if self._inline is not None:
            self._inline.finish()
            self._inline = None


class AwsChunkedBody:
    """An aws-chunked body: signed chunks, unsigned ones with trailing headers, or both."""

    __slots__ = (
        "_allowed", "_carry", "_crlf_due", "_done", "_end", "_inline", "_left", "_limits", "_pos", "_previous",
        "_signed", "_source", "_total", "_view", "length", "trailers", "verifier",
    )  # fmt: skip

    def __init__(
        self,
        source: Incoming,
        length: int,
        *,
        signing: ChunkSigning | None = None,
        trailers: Sequence[str] | None = None,
        inline: bool = True,
        limits: Limits = LIMITS,
    ) -> None:
        """``length``: x-amz-decoded-content-length. ``signing``: chunks carry signatures.

        ``trailers``: lower-case names of the trailing headers that may come; None: this form has none.
        """
        self._source = source
        self._signed = ChunkVerifier(signing) if signing is not None else None
        self._inline: Verifier | None = self._signed if inline else None
        self.verifier: Verifier | None = None if inline else self._signed
        self._allowed = trailers
        self._limits = limits
        self._carry = bytearray(limits.chunk_framing_bytes_max)
        self._view = memoryview(self._carry)
        self._pos = self._end = 0
        self._left = 0  # data bytes of the current chunk still to come
        self._previous = limits.signed_chunk_size_min  # size of the chunk before
        self._total = 0
        self._crlf_due = False
        self._done = False
        self.length: int | None = length
        self.trailers: dict[str, str] = {}

    async def read_into(self, view: memoryview) -> int:
        """Fill view across chunks; 0 only after the framing, the trailers and the end of the body were checked."""
        filled, size = 0, len(view)
        while filled < size and not self._done:
            if not self._left:
                await self._next_chunk()
                continue
            n = min(self._left, size - filled)
            have = self._end - self._pos
            if have:
                n = min(n, have)
                view[filled : filled + n] = self._view[self._pos : self._pos + n]
                self._pos += n
            else:
                n = await self._source.read_into(view[filled : filled + n])
                if not n:
                    raise BodyError("IncompleteBody")
            filled += n
            self._left -= n
            self._crlf_due = not self._left
        if self._inline is not None:
            if filled:
                self._inline.update(view[:filled])
            if self._done:
                self._inline.finish()
                self._inline = None
        return filled

    def read_now(self) -> Buffer | None:
        """The decoded body if all of it has arrived already, else None."""
        if self._total or self._pos or self._end or self._done:
            return None
        raw = self._source.read_now()
        if raw is None:
            return None
        length = self.length or 0
        if length > len(raw):
            raise BodyError("IncompleteBody")
        self._source = _Held(raw)
        out = memoryview(bytearray(length + 1))  # room for one more, so that the end is reached
        size = 0
        while n := _run(self.read_into(out[size:])):
            size += n
        return out[:length]

    async def _next_chunk(self) -> None:
        """Parse the framing up to the next data, or to the end of the body."""
        if self._crlf_due:
            if await self._line(2) != b"\r\n":
                raise _malformed()
            self._crlf_due = False
        line = await self._line(self._limits.chunk_header_bytes_max)
        m = _signed_header(line) if self._signed is not None else _plain_header(line)
        if m is None:
            raise _malformed()
        size = int(m[1], 16)
        if self._signed is not None:
            if size and self._previous < self._limits.signed_chunk_size_min:
                raise BodyError("InvalidChunkSizeError")
            self._previous = size
            self._signed.announce(size, m[2].decode("ascii"))
        self._total += size
        if self._total > (self.length or 0) or (not size and self._total != self.length):
            raise BodyError("IncompleteBody", "The body is not as long as x-amz-decoded-content-length says")
        self._left = size
        if not size:
            await self._finish()

    async def _finish(self) -> None:
        canonical, signature = await self._read_trailers()
        signed = self._signed is not None and self._allowed is not None
        if signed and (canonical or self._allowed) and not signature:
            raise BodyError("MalformedTrailerError", "The trailing headers are not signed")
        if signature and not signed:
            raise BodyError("MalformedTrailerError")
        if self._signed is not None:
            self._signed.end((canonical, signature) if signature else None)
        while True:  # nothing but line ends may follow
            if self._view[self._pos : self._end].tobytes().strip(b"\r\n"):
                raise _malformed()
            self._pos, self._end = 0, await self._source.read_into(self._view)
            if not self._end:
                break
            if self._end > 4:
                raise _malformed()
        self._done = True

    async def _read_trailers(self) -> tuple[bytes, str]:
        """Trailing headers into ``self.trailers``; (their canonical form, their signature or "")."""
        signature = ""
        lines: list[bytes] = []
        for _ in range(self._limits.trailers_max + 2):
            line = await self._line(len(self._carry))
            if line in (b"\r\n", b"\n"):
                if self._allowed and set(self._allowed) - self.trailers.keys():
                    raise BodyError("MalformedTrailerError")
                return b"".join(sorted(lines)), signature
            m = _trailer_line(line)
            if m is None or self._allowed is None:
                raise BodyError("MalformedTrailerError") if self._allowed is not None else _malformed()
            name, value = m[1].decode("ascii").lower(), m[2].decode("ascii")
            if name == _SIGNATURE and not signature:
                signature = value
            elif name in self._allowed and name not in self.trailers:
                self.trailers[name] = value
                lines.append(f"{name}:{value}\n".encode())
            else:
                raise BodyError("MalformedTrailerError")
        raise BodyError("MalformedTrailerError")

    async def _line(self, size_max: int) -> bytes:
        """The next line with its end, of at most that many bytes."""
        while True:
            stop = self._carry.find(b"\n", self._pos, min(self._end, self._pos + size_max))
            if stop >= 0:
                line = self._view[self._pos : stop + 1].tobytes()
                self._pos = stop + 1
                return line
            have = self._end - self._pos
            if have >= size_max:
                raise _malformed()
            if self._pos:
                self._view[:have] = self._view[self._pos : self._end].tobytes()
                self._pos, self._end = 0, have
            if self._end == len(self._carry):
                raise _malformed()
            n = await self._source.read_into(self._view[self._end :])
            if not n:
                raise BodyError("IncompleteBody")
            self._end += n


Body = PlainBody | AwsChunkedBody


class _Held:
    """A body that is all here."""

    __slots__ = ("_data", "_pos", "length")

    def __init__(self, data: Buffer) -> None:
        self._data = memoryview(data)
        self._pos = 0
        self.length: int | None = len(data)

    async def read_into(self, view: memoryview) -> int:
        n = min(len(view), len(self._data) - self._pos)
        view[:n] = self._data[self._pos : self._pos + n]
        self._pos += n
        return n

    def read_now(self) -> Buffer | None:
        return None


def _run(coroutine: Coroutine[Any, Any, int]) -> int:
    """Drive a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return int(done.value)
    with contextlib.suppress(RuntimeError):
        coroutine.close()
    raise AssertionError("a body that was all here waited")


def _malformed() -> BodyError:
    return BodyError("InvalidRequest", "The aws-chunked framing of the body is malformed")


def decoded_length(headers: Headers) -> int:
    """x-amz-decoded-content-length; raises S3Error MissingContentLength or InvalidArgument."""
    text = headers.get("x-amz-decoded-content-length")
    if text is None:
        raise S3Error("MissingContentLength")
    if not re.fullmatch(r"[0-9]{1,18}", text):
        fields = {"ArgumentName": "x-amz-decoded-content-length", "ArgumentValue": text}
        raise S3Error("InvalidArgument", "x-amz-decoded-content-length must be a number", fields=fields)
    return int(text)


def open_body(source: Incoming, auth: Authenticated, headers: Headers, limits: Limits, *, inline: bool = True) -> Body:
    """The body of an authenticated request, decoded; ``length`` is that of the object's bytes.

    Raises S3Error for a form that contradicts the headers. Content-Length itself is not demanded here.
    """
    if not auth.payload.chunked:
        return PlainBody(source, auth.payload_sha256, inline=inline)
    length = decoded_length(headers)
    if length > limits.object_size_max:
        raise S3Error("EntityTooLarge")
    signing = None
    if auth.payload is not Payload.CHUNKED_UNSIGNED_TRAILER:
        if auth.chunks is None:
            raise S3Error("InvalidRequest", "Signed chunks require a signed request")
        signing = auth.chunks
    trailers: list[str] | None = None
    if auth.payload is not Payload.CHUNKED_SIGNED:
        announced = headers.get("x-amz-trailer") or ""
        trailers = [n.strip().lower() for n in announced.split(",") if n.strip()]
    return AwsChunkedBody(source, length, signing=signing, trailers=trailers, inline=inline, limits=limits)


async def read_all(body: Body, size_max: int) -> bytes:
    """A whole small body (a configuration's XML). Raises S3Error MaxMessageLengthExceeded over ``size_max``."""
    if body.length is not None and body.length > size_max:
        raise S3Error("MaxMessageLengthExceeded")
    data = body.read_now()
    if data is not None:
        if len(data) > size_max:
            raise S3Error("MaxMessageLengthExceeded")
        return bytes(data)
    out = bytearray()
    piece = memoryview(bytearray(min(size_max + 1, 64 * 1024)))
    while n := await body.read_into(piece):
        out += piece[:n]
        if len(out) > size_max:
            raise S3Error("MaxMessageLengthExceeded")
    return bytes(out)
