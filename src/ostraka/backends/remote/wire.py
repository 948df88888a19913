"""HTTP to a store: one request is one answer, and each way of failing has its kind. Knows nothing of any store.

Nothing is sent twice: whether a call may be repeated is its caller's to know (law 7), and a repeated conditional write
would fail by its own success. No URL stands in an error: the query may hold a signature.
"""

import asyncio
import atexit
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    BodyDecodeError,
    BuilderError,
    ClientClosedError,
    DetailedPyreqwestError,
    PoolTimeoutError,
    PyreqwestError,
    RequestTimeoutError,
)
from pyreqwest.request import RequestBuilder
from pyreqwest.response import Response

from ostraka.errors import Invalid, OstrakaError, Overloaded, Truncated, Unavailable
from ostraka.host import Buffer, Files
from ostraka.limits import LIMITS, Limits

READ_BYTES = 1 << 20  # of a body, handed on at once
EXIT_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: the URL encoded as it shall travel, the body whole."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


class Incoming:
    """An answer whose body is still to come. Header names are found in either case."""

    def __init__(self, response: Response, where: str, limits: Limits) -> None:
        self._reader = response.body_reader
        self._where = where
        self._limits = limits
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def pieces(self) -> AsyncIterator[Buffer]:
        """The body. Truncated if it ends early; Unavailable if the next bytes do not come. Where its length was told,
        its end is not asked for: the question costs as much as the body of a small object."""
        told = self.headers.get("content-length", "")
        left = int(told) if told.isdecimal() else -1
        while left:
            with _kinds(self._where):
                async with asyncio.timeout(self._limits.remote_answer_seconds_max):
                    piece = await self._reader.read(READ_BYTES)
            if piece is None:
                return
            left -= len(piece)
            yield memoryview(piece)

    async def whole(self) -> Answer:
        """The answer with its body; Unavailable if that is longer than any document may be."""
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > self._limits.remote_document_bytes_max:
                raise Unavailable(f"{self._where}: an answer of over {len(body)} bytes", reason="service")
        return Answer(self.status, self.headers, bytes(body))


class Wire:
    """Connections to one store, opened when they are wanted. Of one event loop."""

    def __init__(self, limits: Limits = LIMITS, *, authority: bytes = b"") -> None:
        """``authority``: certificates (PEM) to be trusted beside the system's."""
        self._limits = limits
        self._authority = authority
        self._client: Client | None = None
        self._closed = False

    async def send(self, request: Request) -> Answer:
        async with self.stream(request) as incoming:
            return await incoming.whole()

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Incoming]:
        """The answer as soon as its head is there. What is left of its body when the context closes is not received."""
        where = urlsplit(request.url).netloc
        seconds = self._limits.remote_answer_seconds_max + len(request.body) / self._limits.remote_rate_min
        with _kinds(where):
            call = self._built(request).streamed_read_buffer_limit(2 * READ_BYTES).build_streamed()
            async with asyncio.timeout(seconds):
                response = await call.__aenter__()
        try:
            yield Incoming(response, where, self._limits)
        finally:
            await call.__aexit__(None, None, None)

    def _built(self, request: Request) -> RequestBuilder:
        try:
            built = self._opened().request(request.method, request.url).headers(request.headers)
        except ValueError:  # its own words may hold the signature
            where = urlsplit(request.url).netloc
            raise Invalid(f"{where}: no name of a host, or a word that no header can hold", reason="config") from None
        if request.body:
            return built.body_bytes(request.body)
        # of an empty body the length would not be told, and stores demand it
        return built.header("content-length", "0") if request.method in ("PUT", "POST") else built

    def _opened(self) -> Client:
        if self._closed:
            raise Unavailable("the backend was closed", reason="closed")
        if self._client is None:
            builder = ClientBuilder().follow_redirects(False).referer(False).user_agent("ostraka")
            builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)  # the bytes as they are kept
            builder = builder.connect_timeout(timedelta(seconds=self._limits.remote_connect_seconds_max))
            builder = builder.pool_timeout(timedelta(seconds=self._limits.remote_answer_seconds_max))
            builder = builder.pool_idle_timeout(timedelta(seconds=self._limits.remote_idle_seconds_max))
            builder = builder.max_connections(self._limits.remote_connections_max)
            if self._authority:
                builder = builder.add_root_certificate_pem(self._authority)
            self._client = builder.build()
        return self._client

    async def close(self) -> None:
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.close()


@atexit.register
def _let_strangers_end() -> None:
    """The client's own threads wake our loop, and may still be at that when the loop has done all it had to and the
    program ends: a thread of no Python's making that wants the interpreter then aborts the process (obstore's does so
    too). At the latest after a few seconds the program ends nevertheless."""
    tick, left = threading.Event(), EXIT_SECONDS_MAX
    while left > 0:
        ours = {thread.ident for thread in threading.enumerate() if not thread.name.startswith("Dummy-")}
        if sys._current_frames().keys() <= ours:
            return
        tick.wait(0.001)
        left -= 0.001


def near(limits: Limits) -> Wire:
    """To who lends keys: it is close by, and asked before anything else, so that its silence should show soon."""
    return Wire(replace(limits, remote_connect_seconds_max=2.0, remote_answer_seconds_max=10.0))


def check_endpoint(endpoint: str, *, path: bool = False) -> SplitResult:
    """The parts of an endpoint's URL (with a path only if it may have one); Invalid (reason "config") if it is none."""
    none = Invalid(f"the endpoint {endpoint!r} is none: https://HOST[:PORT] is", reason="config")
    try:
        url = urlsplit(endpoint)
        named = bool(url.hostname) and url.port != 0  # which it looks at only now
    except ValueError:
        raise none from None
    if not named or url.scheme not in ("http", "https") or url.query or url.fragment or "@" in url.netloc:
        raise none
    if url.path.strip("/") and not path:
        raise Invalid(f"the endpoint {endpoint!r} has a path: https://HOST[:PORT] is one", reason="config")
    return url


def trusted(ca_file: str, files: Files) -> bytes:
    """The certificates in the file, "" for none; Invalid (reason "config") if it cannot be read."""
    if not ca_file:
        return b""
    try:
        return files.read(Path(ca_file))
    except OSError as error:
        raise Invalid(f"{ca_file}, which should hold certificates: {error.strerror}", reason="config") from None


class _kinds:
    """A block whose failures become errors of ours: a plain class, for it is entered at every piece."""

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, (PyreqwestError, TimeoutError)):
            raise _kind_of(error, self._where) from None


def _kind_of(error: Exception, where: str) -> OstrakaError:
    if isinstance(error, PoolTimeoutError):
        return Overloaded(f"{where}: too many requests at once", reason="timeout")
    if isinstance(error, (RequestTimeoutError, TimeoutError)):
        return Unavailable(f"{where}: no answer in time", reason="timeout")
    if isinstance(error, BodyDecodeError):
        return Truncated(f"{where}: the answer ended early", reason="body")
    if isinstance(error, ClientClosedError):
        return Unavailable("the backend was closed", reason="closed")
    if isinstance(error, BuilderError):
        return Invalid(f"{where}: no request can be made of this: {_cause(error)}", reason="config")
    return Unavailable(f"{where}: {_cause(error)}", reason="connection")


def _cause(error: Exception) -> str:
    """The innermost cause, in its own words: the outer ones quote the URL."""
    causes = error.details["causes"] if isinstance(error, DetailedPyreqwestError) else None
    return causes[-1]["message"] if causes and len(causes) > 1 else "the connection failed"
