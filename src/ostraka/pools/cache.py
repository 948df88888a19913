"""A cache of objects in a local directory: what was read lately from a pool that is far away.

Each process of a store has a subdirectory of its own, in which it alone writes and removes, within its part of the
bound; it reads in those of the others too. Files appear whole or not at all, are never changed, and are derived: who
reads one verifies it, and nothing is synced. What was not read for the longest time goes first.
"""

import contextlib
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

from ostraka.host import Host

_SHARE_MAX: Final = 16  # one object takes at most this part of a process's share


class Cache:
    """Objects by name. Any thread may call anything; names are hexadecimal digits.

    ``row`` of ``rows``: which of the store's processes this is. ``bytes_max``: of all of them together.
    """

    def __init__(self, directory: Path, bytes_max: int, row: int, rows: int, host: Host) -> None:
        self.bytes_max = bytes_max // rows
        self._files = host.files
        self._random = host.random
        self._lock = threading.Lock()
        self._own = directory / str(row)
        self._others = [directory / str(other) for other in range(rows) if other != row]
        self._files.mkdir(self._own)
        self._sizes: OrderedDict[str, int] = OrderedDict()  # the one read last stands last
        self._bytes = 0
        self.hits = 0
        self.misses = 0
        for name in self._files.names(self._own):
            self._found(name)

    def _found(self, name: str) -> None:
        """A file that was there before."""
        path = self._own / name
        try:
            if name.startswith("."):  # staging that a crash left
                self._files.unlink(path)
                return
            file = self._files.open(path)
            try:
                size = file.size()
            finally:
                file.close()
        except OSError:
            return
        self._sizes[name] = size
        self._bytes += size

    def takes(self, size: int) -> bool:
        """Whether an object of that size is kept at all."""
        return size <= self.bytes_max // _SHARE_MAX

    def get(self, name: str, offset: int, size: int) -> bytes | None:
        """A range of an object; None if it is not here. It is shorter than asked for if the file is not whole."""
        with self._lock:
            if name in self._sizes:
                self._sizes.move_to_end(name)
        for directory in (self._own, *self._others):
            with contextlib.suppress(OSError):  # absent, or a bad disk: the object itself is elsewhere
                file = self._files.open(directory / name)
                try:
                    data = bytearray(size)
                    count = file.preadv([data], offset)
                finally:
                    file.close()
                self.hits += 1
                return bytes(data[:count])
        self.misses += 1
        return None

    def put(self, name: str, data: bytes) -> None:
        """Keep an object, if there is room on the disk."""
        path, staging = self._own / name, self._own / f".{name}.{self._random(6).hex()}"
        try:
            file = self._files.open(staging, write=True, create=True)
            try:
                file.pwritev([data], 0)
            finally:
                file.close()
            self._files.rename(staging, path)
        except OSError:
            with contextlib.suppress(OSError):
                self._files.unlink(staging)
            return
        with self._lock:
            self._bytes += len(data) - self._sizes.pop(name, 0)
            self._sizes[name] = len(data)
            over = []
            while self._bytes > self.bytes_max:
                oldest, size = self._sizes.popitem(last=False)
                self._bytes -= size
                over.append(oldest)
        for each in over:
            self._unlink(each)

    def drop(self, name: str) -> None:
        """Forget an object, if it is ours: others find out by themselves that nobody asks for theirs."""
        with self._lock:
            self._bytes -= self._sizes.pop(name, 0)
        self._unlink(name)

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._files.unlink(self._own / name)
