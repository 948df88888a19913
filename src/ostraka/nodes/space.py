"""How much room a disk has, and what the processes that share it tell each other without a lock.

A page of shared memory beside the shard index: a generation that grows whenever a segment is unlinked, and for each
process the bytes it is about to write. Three reserves keep room for what must go on when a disk is full (ENGINE 22):
client writes stop first, then compaction; deletes and state commits always have some left.
"""

import contextlib
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ostraka.errors import Full, InUse
from ostraka.host import Host
from ostraka.limits import Limits

_SLOTS: Final = 63  # processes that share a disk; more of them share the first one's word
_WORD: Final = struct.Struct("<Q")
_PROMISES: Final = struct.Struct(f"<{_SLOTS}Q")
_SIZE: Final = 8 * (1 + _SLOTS)
_FREE_SECONDS: Final = 1.0


def create_shared(host: Host, path: Path) -> None:
    """Make the shared page anew, all zeros. Only for the one process that owns the store, before others open it."""
    host.files.shared(path, _SIZE, create=True)


def held_back(total: int, fraction: float, limits: Limits) -> int:
    """Bytes of a file system to be held back. The bound on the largest reserve scales all of them: on a huge disk as
    well, what must go on longer has room left when the others have to stop."""
    largest = total * limits.reserve_writes
    return int(total * fraction * min(1.0, limits.reserve_bytes_max / max(largest, 1.0)))


class Space:
    """Free room of one disk, as this process may use it. Any thread may call anything."""

    def __init__(self, directory: Path, shared: Path, host: Host, limits: Limits) -> None:
        self._directory = directory
        self._host = host
        self._limits = limits
        self._lock = threading.Lock()
        self._locks = contextlib.ExitStack()
        self._words = host.files.shared(shared, _SIZE)
        self._free = host.files.free(directory)
        self._free_until = host.clock.monotonic() + _FREE_SECONDS
        self._asking = threading.Lock()
        self._slot = self._take_slot(shared.parent)  # last: it holds a lock, and nothing below may fail
        self._mine = 0
        self._store(self._slot, 0)

    def _take_slot(self, directory: Path) -> int:
        for slot in range(1, _SLOTS + 1):
            try:
                self._locks.enter_context(self._host.files.lock(directory / f"slot-{slot}"))
            except InUse:
                continue
            return slot
        return 1

    def close(self) -> None:
        self._store(self._slot, 0)
        self._locks.close()

    def _load(self, word: int) -> int:
        return int(_WORD.unpack_from(self._words, word * 8)[0])

    def _store(self, word: int, value: int) -> None:
        _WORD.pack_into(self._words, word * 8, value)

    @property
    def generation(self) -> int:
        """Changes when a segment was unlinked by any process."""
        return self._load(0)

    def next_generation(self) -> None:
        """Only under the disk's compaction lock: the word has one writer at a time."""
        self._store(0, self._load(0) + 1)

    def free(self) -> tuple[int, int]:
        """(free, total) bytes of the file system, as last known. It never waits for the disk: what is older than a
        second is asked for by a thread, and whoever comes next has it."""
        if self._host.clock.monotonic() >= self._free_until and self._asking.acquire(blocking=False):
            try:
                threading.Thread(target=self._ask, name="free", daemon=True).start()
            except RuntimeError:  # no thread to be had: the next caller tries again
                self._asking.release()
        return self._free

    def _ask(self) -> None:
        try:
            with contextlib.suppress(OSError):  # a disk on its way out: the next write finds out
                self._free = self._host.files.free(self._directory)
            self._free_until = self._host.clock.monotonic() + _FREE_SECONDS
        finally:
            self._asking.release()

    def check(self, fraction: float) -> None:
        """Full if the reserve is touched already, by what is known to be free."""
        free, total = self.free()
        if free < (reserve := held_back(total, fraction, self._limits)):
            raise self._full(free, reserve)

    def _full(self, free: int, reserve: int) -> Full:
        return Full(
            f"{self._directory}: {free} bytes free, {reserve} of them held back: delete objects, or take a larger disk",
            reason="disk",
        )

    def pressure(self) -> float:
        """How near the disk is to its reserve, by what is known to be free: 0 with room enough, 1 with none left."""
        free, total = self.free()
        near = held_back(total, self._limits.near_full, self._limits)
        reserve = held_back(total, self._limits.reserve_writes, self._limits)
        return min(1.0, max(0.0, (near - free) / max(1, near - reserve)))

    def left(self) -> int:
        """Bytes that clients may still write, by what is known to be free."""
        free, total = self.free()
        return max(0, free - held_back(total, self._limits.reserve_writes, self._limits))

    @contextlib.contextmanager
    def reserve(self, size: int, fraction: float) -> Iterator[None]:
        """Hold ``size`` bytes while they are being written; Full if that would cut into the reserve."""
        with self._lock:
            self._free = free, total = self._host.files.free(self._directory)
            reserve = held_back(total, fraction, self._limits)
            promised = sum(_PROMISES.unpack_from(self._words, 8))
            if free - promised - size < reserve:
                raise self._full(free, reserve)
            self._mine += size
            self._store(self._slot, self._mine)
        try:
            yield
        finally:
            with self._lock:
                self._mine -= size
                self._store(self._slot, self._mine)
