"""What is sent: bytes, or a run of a file, read as often as it has to be."""

from collections.abc import Iterator
from pathlib import Path

from ostraka.errors import Truncated
from ostraka.host import Buffer, File

PIECE_SIZE = 1 << 20


class BytesBody:
    """A body in memory."""

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data)
        self.size = len(self._view)

    def pieces(self) -> Iterator[Buffer]:
        for start in range(0, self.size, PIECE_SIZE):
            yield self._view[start : start + PIECE_SIZE]


class FileBody:
    """``size`` bytes of a file from ``offset``. Raises Truncated when the file became shorter."""

    def __init__(self, file: File, path: Path, offset: int, size: int) -> None:
        self._file = file
        self._path = path
        self._offset = offset
        self.size = size

    def pieces(self) -> Iterator[Buffer]:
        buffer = bytearray(min(PIECE_SIZE, self.size))
        done = 0
        while done < self.size:
            view = memoryview(buffer)[: min(len(buffer), self.size - done)]
            read = self._file.preadv([view], self._offset + done)
            if not read:
                raise Truncated(f"{self._path} became shorter while it was read: give the command again")
            yield view[:read]
            done += read
