"""Bytes on their way between the loop and a file, in pieces, with memory that does not grow with their number.

Towards the disk small pieces are gathered and large ones written as they are; from the disk one buffer is read ahead
while the other is with the reader.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future

from ostraka.backends.local.staging import Staged
from ostraka.backends.local.threads import Threads
from ostraka.errors import PreconditionFailed, Truncated
from ostraka.host import Buffer
from ostraka.tree import Status, TreeFile


class Spool:
    """Writes pieces to a staged file, in the order in which they come, from ``offset`` on."""

    def __init__(self, threads: Threads, staged: Staged, gather_size: int, offset: int = 0) -> None:
        self.offset = offset
        self._threads = threads
        self._staged = staged
        self._gather_size = gather_size
        self._gathered = bytearray()

    async def add(self, piece: Buffer) -> None:
        """Take the piece; it is the caller's again when this returns."""
        view = memoryview(piece).cast("B")
        if len(view) < self._gather_size:
            self._gathered += view
            if len(self._gathered) >= self._gather_size:
                await self._threads.run(self.write_rest)
        else:
            await self._threads.run(lambda: self._write_both(view))

    def _write_both(self, view: memoryview) -> None:
        self.write_rest()
        self._write(view)

    def write_rest(self) -> None:
        """In a thread: all pieces so far are in the file (not synced)."""
        if self._gathered:
            gathered, self._gathered = self._gathered, bytearray()
            self._write(gathered)

    def _write(self, data: Buffer) -> None:
        self._staged.write(data, self.offset)
        self.offset += len(data)

    def end(self) -> None:
        """In a thread: what came is on stable storage, and the file closed."""
        try:
            self.write_rest()
            self._staged.sync()
        finally:
            self._staged.keep()


def whole(path: str, file: TreeFile, status: Status, offset: int, end: int) -> bytes:
    """The bytes of an open file from ``offset`` to ``end``, in a thread; raises as Flow does."""
    data = file.pread(end - offset, offset)
    _check(path, file, status, offset + len(data), end, end)
    return data


def _check(path: str, file: TreeFile, status: Status, came: int, wanted: int, end: int) -> None:
    """Truncated if the file ended early; PreconditionFailed if, at the end, it is another by now."""
    if came < wanted:
        raise Truncated(f"{path}: it ended at {came} bytes while it was read", reason="body")
    if came == end:
        now = file.status()
        if (now.size, now.modified) != (status.size, status.modified):  # our own writes never do that
            raise PreconditionFailed(f"{path}: another program changed it in place", reason="changed")


class Flow:
    """The bytes of an open file from ``offset`` to ``end``; the first piece was read by whoever opened it."""

    def __init__(self, path: str, file: TreeFile, status: Status, offset: int, end: int, piece_size: int) -> None:
        self.status = status
        self._path = path
        self._file = file
        self._offset = offset
        self._end = end
        size = min(piece_size, end - offset)
        self._buffers = [memoryview(bytearray(size))]
        if offset + size < end:
            self._buffers.append(memoryview(bytearray(size)))
        self._ahead: Future[memoryview] | None = None
        self._first = self._read(self._buffers[0], offset)

    def _read(self, buffer: memoryview, offset: int) -> memoryview:
        """The next piece, in a thread. Truncated if the file ends early, PreconditionFailed if it is another by now."""
        buffer = buffer[: self._end - offset]
        size = self._file.preadv([buffer], offset) if len(buffer) else 0
        _check(self._path, self._file, self.status, offset + size, offset + len(buffer), self._end)
        return buffer

    async def pieces(self, threads: Threads) -> AsyncIterator[Buffer]:
        piece, turn = self._first, 0
        while len(piece):
            self._offset += len(piece)
            turn = 1 - turn
            if self._offset < self._end:
                buffer, offset = self._buffers[turn], self._offset
                self._ahead = threads.start(lambda b=buffer, o=offset: self._read(b, o))  # type: ignore[misc]
            yield piece
            if self._offset == self._end:
                return
            assert self._ahead is not None
            piece = await asyncio.wrap_future(self._ahead)

    def close(self) -> None:
        """Give the file back, at once or when the thread that reads it is done."""
        if self._ahead is None:
            self._file.close()
        else:
            self._ahead.add_done_callback(lambda _: self._file.close())
