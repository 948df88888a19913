"""The body of a request, as its handler reads it: pulled, never pushed.

What arrived together with the head lies in the connection's tail and is copied from there. Beyond that the socket is
received into the reader's own memory (``Connection.receive``), so that a large body is copied once, by the kernel.
A body sent in chunks is the same thing in runs: ``_run`` is how many bytes of data follow before the next framing;
for a body with Content-Length the whole body is one run.

Nothing is received while nobody reads, beyond a bounded read-ahead: a slow handler slows its client down.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ostraka.errors import TooLarge, Truncated
from ostraka.http._chunked import ChunkFraming
from ostraka.http._messages import Headers

if TYPE_CHECKING:
    from ostraka.http._connection import Connection

PIECE = 1 << 20  # a reader with more room than this is woken once for each so many bytes
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Body:
    """A request's body. One reader at a time.

    Every way to read raises ``Truncated`` when the client ends (reason "ended") or stalls (reason "stalled") before
    the end, ``Invalid`` for malformed chunk framing and ``TooLarge`` over a bound; the connection then ends with
    the response. ``length`` is None for a chunked body. ``received`` counts the bytes handed to the reader.
    ``trailers`` is set at the end of a chunked body. ``finished``: the reader has had all of it.
    """

    __slots__ = ("_chunks", "_connection", "_run", "awaits_continue", "error", "finished", "length", "received")

    def __init__(
        self, connection: "Connection | None", length: int | None, awaits_continue: bool, chunks: ChunkFraming | None
    ) -> None:
        self._connection = connection
        self._chunks = chunks
        self._run = length or 0
        self.awaits_continue = awaits_continue  # the client waits for our 100 before it sends
        self.error: Exception | None = None  # why it can no longer be read
        self.finished = length == 0
        self.length = length
        self.received = 0

    @property
    def trailers(self) -> Headers | None:
        return self._chunks.trailers if self._chunks else None

    def read_now(self) -> bytes | None:
        """The rest of the body if all of it is here already, else None; never waits, never asks for more."""
        if self.error is not None:
            return None
        if self.finished:
            return b""
        run, connection = self._run, self._connection
        if connection is None or self._chunks is not None:
            return None
        start = connection.pos
        if len(connection.tail) - start < run:
            return None
        connection.pos = end = start + run
        self._run = 0
        self.finished = True
        self.received += run
        data = connection.tail[start:end]
        connection.settle_tail()
        return data

    async def read_into(self, view: memoryview) -> int:
        """Fill ``view`` (writable bytes, not empty) with what is available, waiting for at least one byte.

        Returns the number of bytes; 0 at the end. Into a view larger than ``PIECE`` comes one whole piece (less only at
        the end), since waking the reader and whoever it feeds for each of the socket's reads costs more than reading.
        """
        if len(view) > PIECE:
            return await self._read(view[:PIECE], whole=True)
        return await self._read(view, whole=False)

    async def fill(self, view: memoryview) -> int:
        """Fill all of ``view``; returns less than its size only at the end of the body, 0 if nothing was left.

        The cheapest way to take a large body: the reader is woken once for each view.
        """
        return await self._read(view, whole=True)

    async def read(self, max_size: int) -> bytes:
        """The whole rest of the body. TooLarge (reason "body") if it is more than ``max_size`` bytes."""
        if self.error is not None:
            raise self.error
        data = self.read_now()
        if data is not None and len(data) <= max_size:
            return data
        if data is not None or (self.length is not None and self._run > max_size):
            raise self._too_large(max_size)
        if self.length is not None:
            buffer = bytearray(self._run)
            size = await self.fill(memoryview(buffer))
            return bytes(memoryview(buffer)[:size])
        parts, size = [], 0
        async for part in self.chunks(min(max_size + 1, 1 << 16)):
            size += len(part)
            if size > max_size:
                raise self._too_large(max_size)
            parts.append(part)
        return b"".join(parts)

    def _too_large(self, max_size: int) -> TooLarge:
        error = TooLarge(f"body is larger than {max_size} bytes", reason="body")
        self.error = self.error or error
        return error

    async def chunks(self, size: int = 1 << 18) -> AsyncIterator[bytes]:
        """Pieces of ``size`` bytes, the last one shorter."""
        buffer = memoryview(bytearray(size))
        while count := await self.fill(buffer):
            yield bytes(buffer[:count])

    # -- for the connection

    def took(self, size: int) -> None:
        """``size`` bytes of data went from the socket into the reader's view."""
        self._run -= size
        if not self._run and self._chunks is None:
            self.finished = True

    def unreceived(self, at_hand: int) -> int | None:
        """How many bytes are still to come from the client, of which ``at_hand`` lie in the tail; None: unknown."""
        if self.finished:
            return 0
        return max(0, self._run - at_hand) if self._chunks is None else None

    def skip_tail(self) -> None:
        """Throw away what the tail holds of a body with Content-Length."""
        connection = self._connection
        if connection is None or self._chunks is not None:
            return
        size = min(self._run, len(connection.tail) - connection.pos)
        connection.pos += size
        self.took(size)

    async def discard(self, scratch: memoryview) -> None:
        """Receive the rest into ``scratch``, which nobody looks at; nobody can read it any more."""
        while not self.finished:
            await self._read(scratch, whole=False)
        self.error = Truncated("the body was not read while its exchange lasted", reason="ended")

    def detach(self, error: Exception) -> None:
        """The exchange is over: whoever kept this body must not read from the next request."""
        if not self.finished and self.error is None:
            self.error = error
        self._connection = None

    # -- reading

    def _take(self, view: memoryview) -> int:
        """Copy into ``view`` what lies in the tail, reading framing as it comes; returns the bytes copied."""
        connection = self._connection
        if connection is None:
            return 0
        size, done = len(view), 0
        while done < size and not self.finished:
            if not self._run and self._chunks is not None:
                connection.pos, self._run = self._chunks.advance(connection.tail, connection.pos)
                self.finished = self._chunks.done
                if not self._run:
                    break
            count = min(self._run, size - done, len(connection.tail) - connection.pos)
            if not count:
                break
            start = connection.pos
            view[done : done + count] = memoryview(connection.tail)[start : start + count]
            connection.pos = start + count
            self.took(count)
            done += count
        connection.settle_tail()
        return done

    async def _read(self, view: memoryview, *, whole: bool) -> int:
        size, done = len(view), 0
        if not size:
            raise ValueError("an empty view cannot tell the end of the body from no room")
        if self.error is not None:
            raise self.error
        try:
            while True:
                done += self._take(view[done:])
                if self.finished or done == size or (done and not whole):
                    break
                done += await self._wait(view[done:], whole)
        except Exception as e:
            self.error = self.error or e  # its place in the stream is lost: no second try
            raise
        self.received += done
        return done

    async def _wait(self, view: memoryview, whole: bool) -> int:
        """Receive once the tail is used up; returns the bytes put into ``view`` (0: they went to the tail)."""
        connection = self._connection
        if connection is None:
            raise Truncated("the connection is gone", reason="ended")
        if self.awaits_continue:
            self.awaits_continue = False
            if connection.pos == len(connection.tail):  # RFC 9110 10.1.1: not once some of the body is here
                connection.write(CONTINUE)
        if self._run:
            return await connection.receive(view[: self._run], whole)
        return await connection.receive(None, False)


NO_BODY = Body(None, 0, False, None)  # shared by all requests without one: it never changes
