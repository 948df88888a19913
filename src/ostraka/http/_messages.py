"""What a handler sees and gives: headers, request, response. Plain carriers; nothing here does I/O.

Names of headers are lower case; values are text decoded as UTF-8 with ``surrogateescape``, so that whatever bytes
a client sent (Latin-1 included) come back by ``value.encode("utf-8", "surrogateescape")``.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostraka.http._body import Body

Buffer = bytes | bytearray | memoryview
ResponseBody = Buffer | Sequence[Buffer] | AsyncIterable[Buffer]


class Headers:
    """The header fields of one message, in the order received, duplicates kept."""

    __slots__ = ("_items", "first", "get")
    get: Callable[[str], str | None]  # the value of the first field of that (lower-case) name, or None

    def __init__(self, first: dict[str, str], items: list[tuple[str, str]] | None = None) -> None:
        """``first``: the first value of each (lower-case) name. ``items``: all fields, if a name came twice."""
        self.first = first
        self.get = first.get  # the dictionary's own: asked a dozen times in each request
        self._items = items

    @staticmethod
    def of(items: list[tuple[str, str]]) -> "Headers":
        """From (lower-case name, value stripped of blanks around it), in order."""
        first = dict(reversed(items))
        return Headers(dict(items)) if len(first) == len(items) else Headers(first, items)

    def get_all(self, name: str) -> list[str]:
        """The values of every field of that name, in order."""
        return [v for n, v in self if n == name]

    @property
    def has_duplicates(self) -> bool:
        """Whether any name came more than once."""
        return self._items is not None

    def __contains__(self, name: object) -> bool:
        return name in self.first

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.first.items() if self._items is None else self._items)

    def __len__(self) -> int:
        return len(self.first if self._items is None else self._items)

    def __repr__(self) -> str:  # values may be credentials: names only
        return f"Headers({[n for n, _ in self]})"


class Request:
    """One request, its head parsed and its body not yet read.

    ``target`` is what stood in the request line, byte for byte; ``raw_path`` and ``raw_query`` are its two halves
    (authority removed from an absolute target; the query without its ``?``), still percent-encoded as sent.
    """

    __slots__ = (
        "body",
        "headers",
        "keep_alive",
        "method",
        "peer",
        "raw_path",
        "raw_query",
        "received_at",
        "scheme",
        "target",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        raw_path: bytes,
        raw_query: bytes,
        headers: Headers,
        version: tuple[int, int],
        keep_alive: bool,
        body: "Body",
        peer: str,
        scheme: str,
        received_at: float,
    ) -> None:
        self.method = method
        self.target = target
        self.raw_path = raw_path
        self.raw_query = raw_query
        self.headers = headers
        self.version = version  # (1, 0) or (1, 1)
        self.keep_alive = keep_alive  # what the client asked for
        self.body = body
        self.peer = peer  # the address, without the port
        self.scheme = scheme  # "http" or "https"
        self.received_at = received_at  # monotonic seconds, when the head was complete

    def __repr__(self) -> str:  # a query may hold a presigned signature
        return f"Request({self.method} {self.raw_path!r} from {self.peer})"


class Response:
    """What a handler answers.

    ``body`` is a buffer, a sequence of buffers, or an async iterable of buffers; then ``length`` is the sum of
    their sizes if known, else None and the body goes out chunked. The layer writes Content-Length,
    Transfer-Encoding and Connection itself, and Date and Server unless given. For HEAD and 304 nothing is sent of the
    body: ``length`` says which Content-Length to announce. A Content-Length among ``headers`` is taken as
    ``length``.

    A yielded buffer may be reused when the iterator is asked for the next: the kernel (or TLS) has it by then.
    ``close``: end the connection after this response.
    """

    __slots__ = ("body", "close", "headers", "length", "status")

    def __init__(
        self,
        status: int,
        headers: Sequence[tuple[str, str]] = (),
        body: ResponseBody = b"",
        *,
        length: int | None = None,
        close: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.length = length
        self.close = close

    def __repr__(self) -> str:
        return f"Response({self.status})"


async def discard(body: ResponseBody) -> None:
    """Let go of a body that will not be sent: an async generator is closed, so that it frees what it holds."""
    if isinstance(body, AsyncIterator):
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()
