"""What may be stored, as a source that the core reads (``objects.types.Source``).

Bytes are there at once; everything else is read piece by piece, in a thread where reading may wait.
"""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from ostraka.errors import Invalid
from ostraka.host import Buffer
from ostraka.objects.types import Source

BYTES_AT_ONCE_MAX = 1 << 20  # a body of up to this is handed over whole

_BUFFERS = (bytes, bytearray, memoryview)
Body = Buffer | Path | IO[bytes] | Iterable[Buffer] | AsyncIterable[Buffer]


class BytesSource:
    """A body in memory. It must not change until the call returns."""

    __slots__ = ("_left", "length")

    def __init__(self, data: Buffer) -> None:
        self._left = data if type(data) is bytes else memoryview(data).cast("B")
        self.length: int | None = len(self._left)

    async def read_into(self, view: memoryview) -> int:
        left = memoryview(self._left)
        size = min(len(view), len(left))
        view[:size] = left[:size]
        self._left = left[size:]
        return size

    def read_now(self) -> Buffer | None:
        if len(self._left) > BYTES_AT_ONCE_MAX:
            return None
        whole, self._left = self._left, b""
        return whole


_NON_BLOCKING = "a file in non-blocking mode cannot be stored: make it block"


class FileSource:
    """A binary file object, from where it stands to its end; read in a thread."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.length: int | None = _left_in(file)

    async def read_into(self, view: memoryview) -> int:
        try:
            return await asyncio.to_thread(self._read, view)
        except ValueError as e:  # closed, or not open for reading
            raise Invalid(f"the body's file cannot be read: {e}", reason="body") from e

    def _read(self, view: memoryview) -> int:
        readinto: Any = getattr(self._file, "readinto", None)
        if readinto is not None:
            size = readinto(view)
            if size is None:  # nothing there at this moment: taken for the end, it would cut the object short
                raise Invalid(_NON_BLOCKING, reason="body")
            return int(size)
        data = self._file.read(len(view))
        if data is None:
            raise Invalid(_NON_BLOCKING, reason="body")
        if isinstance(data, str):
            raise Invalid("a file to be stored must be opened in binary mode", reason="body")
        view[: len(data)] = data
        return len(data)

    def read_now(self) -> Buffer | None:
        return None


class PiecesSource:
    """Pieces of bytes that come one after the other; ordinary iterators are advanced in a thread."""

    length: int | None = None

    def __init__(self, pieces: Iterable[Buffer] | AsyncIterable[Buffer]) -> None:
        self._later: AsyncIterator[Buffer] | None = None
        self._now: Iterator[Buffer] | None = None
        if isinstance(pieces, AsyncIterable):
            self._later = aiter(pieces)
        else:
            self._now = iter(pieces)
        self._rest = memoryview(b"")

    async def read_into(self, view: memoryview) -> int:
        while not self._rest:
            piece = await self._next()
            if piece is None:
                return 0
            try:
                self._rest = memoryview(piece).cast("B")
            except TypeError:
                message = f"a body in pieces is pieces of bytes, and one of them is {type(piece).__name__}"
                raise Invalid(message, reason="body") from None
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    async def _next(self) -> Buffer | None:
        if self._later is not None:
            return await anext(self._later, None)
        assert self._now is not None
        return await asyncio.to_thread(next, self._now, None)

    def read_now(self) -> Buffer | None:
        return None


def _left_in(file: IO[bytes]) -> int | None:
    """Bytes from where a regular file stands to its end; None if that cannot be told."""
    try:
        return max(os.fstat(file.fileno()).st_size - file.tell(), 0) if file.seekable() else None
    except (AttributeError, OSError, ValueError):
        return None


def source_of(body: Body) -> tuple[Source, IO[bytes] | None]:
    """The source of a body, and a file to be closed when it is done. Raises Invalid for what is none."""
    if isinstance(body, _BUFFERS):
        return BytesSource(body), None
    if isinstance(body, Path):
        file = body.open("rb")
        return FileSource(file), file
    if isinstance(body, str):
        raise Invalid("a body is bytes, not text: encode it, or pass a Path to store a file", reason="body")
    if hasattr(body, "read"):
        return FileSource(cast(IO[bytes], body)), None
    if isinstance(body, AsyncIterable | Iterable):
        return PiecesSource(cast(Iterable[Buffer] | AsyncIterable[Buffer], body)), None
    raise Invalid(f"a body is bytes, a Path, a binary file or an iterable of bytes, not {type(body)}", reason="body")
