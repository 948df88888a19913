"""The seam under the index: an ordered map with transactions, of which LMDB is one (a simulator brings another).

It holds three tables: ``rows`` and ``tails`` (keys.py), and ``meta``. Nothing in it is ever synced by a commit; a
killed process leaves the last committed transaction, a power cut may leave anything.

LMDB changes its pages through a writable map, which costs half of the processor time that writing them by pwrite
does (bench/state_spike.py). What a writable map risks is a SIGBUS where a sparse file finds no block on a full disk.
`Map.reserve` excludes it: blocks are allocated before a transaction changes anything, and a full disk is an error
while nothing has happened yet. Only file systems that keep an allocated block in place honour that; on others (btrfs,
ZFS, FUSE) pages are written by pwrite.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import lmdb
from xxhash import xxh3_64

from ostraka.errors import Full
from ostraka.host import file_system_of
from ostraka.limits import MIB

KEY_SIZE_MAX = 511  # LMDB's bound on a key
PAGE_SIZE = 4096
_IN_PLACE = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs"})
_RESERVE_STEP = 32 * MIB
_READERS_MAX = 1024  # read transactions at once, all processes together
_SPARE_TRANSACTIONS = 16


class Table(Protocol):
    """A handle to one table of the map."""


class Cursor(Protocol):
    """A position in one table, as LMDB has it."""

    def first(self) -> bool: ...

    def last(self) -> bool: ...

    def set_range(self, key: bytes, /) -> bool:
        """Go to the first key at or after key; False when there is none."""
        ...

    def prev(self) -> bool: ...

    def key(self) -> bytes: ...

    def item(self) -> tuple[bytes, bytes]: ...

    def iternext(self) -> Iterator[tuple[bytes, bytes]]:
        """From here (from the first, when not positioned) upward."""
        ...

    def iterprev(self) -> Iterator[tuple[bytes, bytes]]: ...

    def putmulti(
        self, items: Iterable[tuple[bytes, bytes]], dupdata: bool = True, overwrite: bool = True, append: bool = False
    ) -> tuple[int, int]: ...

    def close(self) -> None: ...


class Transaction(Protocol):
    """A consistent moment; a writing one excludes other writers in every process."""

    def get(self, key: bytes, default: None = None, db: Table | None = None) -> bytes | None: ...

    def put(
        self,
        key: bytes,
        value: bytes,
        dupdata: bool = True,
        overwrite: bool = True,
        append: bool = False,
        db: Table | None = None,
    ) -> bool: ...

    def delete(self, key: bytes, value: bytes = b"", db: Table | None = None) -> bool: ...

    def cursor(self, db: Table | None = None) -> Cursor: ...

    def commit(self) -> None: ...

    def abort(self) -> None: ...


class Map(Protocol):
    """An open index."""

    rows: Table
    tails: Table
    meta: Table

    def begin(self, write: bool = False) -> Transaction: ...

    def reserve(self, size: int) -> None:
        """Make sure that a transaction that changes at most ``size`` bytes of pages finds room; else Full.

        Called while holding the writing transaction, before it changes anything.
        """
        ...

    def forget_dead_readers(self) -> int: ...

    def fingerprint(self) -> tuple[int, int]:
        """Sync everything; (size of the pages in use, checksum of them all). Nobody may write meanwhile."""
        ...

    def size(self) -> int:
        """Bytes of pages in use."""
        ...

    def close(self) -> None: ...


def keeps_allocations(directory: Path) -> bool:
    """Whether a block that was allocated to a file there stays its block when it is written."""
    return file_system_of(directory) in _IN_PLACE


OpenMap = Callable[[Path, int], Map]


def file_checksum(preadv: Callable[[Sequence[memoryview], int], int], size: int) -> int:
    """The checksum of the first ``size`` bytes of the file that preadv reads; -1 when it has fewer."""
    state, buffer, at = xxh3_64(), bytearray(MIB), 0
    view = memoryview(buffer)
    while at < size:
        count = preadv([view[: min(MIB, size - at)]], at)
        if count == 0:
            return -1
        state.update(view[:count])
        at += count
    return state.intdigest()


class LmdbMap:
    """LMDB in the file at path, with its lock file beside it; ``size_max`` bounds the sparse file."""

    def __init__(self, path: Path, size_max: int, *, readonly: bool = False) -> None:
        self._env = lmdb.open(
            str(path),
            subdir=False,
            map_size=size_max,
            max_dbs=3,
            max_readers=_READERS_MAX,
            max_spare_txns=_SPARE_TRANSACTIONS,
            sync=False,
            metasync=False,
            writemap=not readonly and keeps_allocations(path.parent),
            readonly=readonly,
            readahead=False,
            mode=0o600,
        )
        try:
            self.rows: Table = self._env.open_db(b"rows", create=not readonly)
            self.tails: Table = self._env.open_db(b"tails", create=not readonly)
            self.meta: Table = self._env.open_db(b"meta", create=not readonly)
            self._fd = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
        except BaseException:
            self._env.close()
            raise
        self._size_max = size_max
        self._reserved = 0

    def begin(self, write: bool = False) -> Transaction:
        return self._env.begin(write=write)  # type: ignore[return-value]  # LMDB's stubs say Buffer where we say bytes

    def reserve(self, size: int) -> None:
        needed = self.size() + size
        if needed <= self._reserved:
            return
        target = min(-(-needed // _RESERVE_STEP) * _RESERVE_STEP, self._size_max)
        if needed > target:
            raise Full("the index of the state has reached its bound", reason="state_index")
        try:
            os.posix_fallocate(self._fd, self._reserved, target - self._reserved)
        except OSError as error:
            raise Full(f"no room for the index of the state: {error}", reason="state_index") from error
        self._reserved = target

    def forget_dead_readers(self) -> int:
        return self._env.reader_check()

    def fingerprint(self) -> tuple[int, int]:
        self._env.sync(True)
        size = self.size()
        return size, file_checksum(partial(os.preadv, self._fd), size)

    def size(self) -> int:
        return (self._env.info()["last_pgno"] + 1) * PAGE_SIZE

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._env.close()
