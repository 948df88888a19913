"""Where on a disk each shard lies: (write id, index) to a place in a segment, and how much of each segment is alive.

An LMDB environment under <disk>/shards/ that all worker processes share (docs/format/shard-index.md). It is derived:
the segments are the truth, it is never synced, and whoever doubts it rebuilds it. Rows carry a checksum bound to
their key, since LMDB's pages have none: a damaged row reads as missing, and the disk then asks the segments. Whoever
opens it is told of any damage that is met, for it should not be believed the next time.

Knows nothing of when to doubt (local.py) nor of files (segments/).
"""

import contextlib
import errno
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import lmdb
import msgspec
from xxhash import xxh3_64_intdigest

from ostraka.errors import Full
from ostraka.host import Buffer
from ostraka.segments.format import SegmentId, ShardHeader
from ostraka.segments.writer import Extent

KEY_SIZE: Final = 17  # write id, index; a second copy of a shard has one byte more
_ROW: Final = struct.Struct("<20sQQIQQIBBBB")  # then the cells' checksums, then the row's
_SUM: Final = struct.Struct("<Q")
_SEGMENT: Final = struct.Struct("<QQQB7x")
_READERS_MAX: Final = 1024

_SUFFIXES: Final = (b"", *(bytes((n,)) for n in range(256)))  # of the key of one copy after the other

SEALED: Final = 1
SETTLED: Final = 2  # every write in it was committed or given up: anybody may compact it


class SegmentInfo(msgspec.Struct, frozen=True):
    """One segment as the index sees it. ``total``: bytes in the file; ``live``: of records that the index names."""

    segment: SegmentId
    total: int
    live: int
    sealed: bool
    settled: bool

    @property
    def incarnation(self) -> bytes:
        return self.segment[:16]


def shard_key(write_id: bytes, index: int) -> bytes:
    return write_id + bytes((index,))


def _pack_row(key: bytes, e: Extent) -> bytes:
    h = e.header
    row = (
        _ROW.pack(
            e.segment, e.offset, e.size, h.data_offset, h.body_length, h.shard_size, h.cell_size, h.k, h.m, h.owner, 0
        )
        + h.cells
    )
    return row + _SUM.pack(xxh3_64_intdigest(key + row))


def _unpack_row(key: bytes, row: bytes) -> Extent | None:
    """The place that a row tells (owner ids are not kept here), or None if the row is damaged."""
    if len(row) < _ROW.size + _SUM.size or _SUM.unpack_from(row, len(row) - 8)[0] != xxh3_64_intdigest(key + row[:-8]):
        return None
    segment, offset, size, data_offset, body_length, shard_size, cell_size, k, m, owner, _ = _ROW.unpack_from(row)
    cells = row[_ROW.size : -8]
    header = ShardHeader(key[:16], key[16], k, m, owner, b"", body_length, shard_size, cell_size, data_offset, cells)
    return Extent(segment, offset, size, header)


class ShardIndex:
    """The index of one disk, open in this process. Any thread may call anything; no call spans an await."""

    def __init__(self, path: Path, map_size: int, on_damage: Callable[[str], None]) -> None:
        self._on_damage = on_damage
        with self._faults():
            self._env = lmdb.open(
                str(path),
                map_size=map_size,
                max_dbs=2,
                max_readers=_READERS_MAX,
                max_spare_txns=8,
                sync=False,
                metasync=False,
                mode=0o600,
            )
            self._env.reader_check()
            self._rows = self._env.open_db(b"rows")
            self._segments = self._env.open_db(b"segments")

    def close(self) -> None:
        self._env.close()

    def _fault(self, error: lmdb.Error) -> Exception:
        """LMDB's errors in our words: no room, or a device (or an index) that cannot be trusted."""
        text = str(error)
        if isinstance(error, lmdb.MapFullError) or "No space left" in text or "quota" in text:
            return Full(f"shard index: {text}", reason="disk")
        self._on_damage(text)
        return OSError(errno.EIO, f"shard index: {text}; it is built anew at the next start")

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as e:
            raise self._fault(e) from e

    def get(self, write_id: bytes, index: int) -> Extent | None:
        """Where the shard is, or None if the index has no intact row of it."""
        key = write_id + bytes((index,))
        try:
            with self._env.begin(db=self._rows) as txn:
                row = txn.get(key)
        except lmdb.Error as e:
            raise self._fault(e) from e
        if row is None:
            return None
        extent = _unpack_row(key, row)
        if extent is None:
            self._on_damage("a row does not match its checksum")
        return extent

    def copies(self, write_id: bytes, index: int) -> list[Extent]:
        """Every place that is known to hold the shard: after a rebuild there may be more than one."""
        prefix = shard_key(write_id, index)
        found = []
        with self._faults(), self._env.begin(db=self._rows) as txn:
            for key, row in _prefixed(txn, prefix):
                extent = _unpack_row(key, row)
                if extent is not None:
                    found.append(extent)
        return found

    def put(self, extents: Sequence[Extent]) -> None:
        """Name these; a shard that was elsewhere is now here, and its old bytes are dead. Raises Full, OSError."""
        with self._faults(), self._env.begin(write=True, db=self._rows) as txn:
            live: dict[SegmentId, int] = {}
            ends: dict[SegmentId, int] = {}
            for e in extents:
                key = e.header.key
                if not txn.put(key, _pack_row(key, e), overwrite=False):
                    self._drop(txn, key, live)
                    txn.put(key, _pack_row(key, e))
                live[e.segment] = live.get(e.segment, 0) + e.size
                ends[e.segment] = max(ends.get(e.segment, 0), e.offset + e.size)
            self._count(txn, live, ends)

    def put_copies(self, extents: Sequence[Extent]) -> None:
        """Name these beside what is named already (rebuilding: nobody knows yet which copy is good)."""
        with self._faults(), self._env.begin(write=True, db=self._rows) as txn:
            live: dict[SegmentId, int] = {}
            for e in extents:
                key = e.header.key
                for suffix in _SUFFIXES:
                    if txn.put(key + suffix, _pack_row(key + suffix, e), overwrite=False):
                        live[e.segment] = live.get(e.segment, 0) + e.size
                        break
            self._count(txn, live, {})

    def remove(self, shards: Sequence[tuple[bytes, int]]) -> None:
        """Forget these shards; their bytes are dead. Unknown ones are ignored."""
        with self._faults(), self._env.begin(write=True, db=self._rows) as txn:
            live: dict[SegmentId, int] = {}
            for write_id, index in shards:
                self._drop(txn, shard_key(write_id, index), live)
            self._count(txn, live, {})

    def move(self, moves: Sequence[tuple[Extent | None, Extent]]) -> None:
        """Compaction wrote (old place, new place): repoint rows that still name the old one.

        A shard that was released meanwhile stays released: its new copy is dead bytes. With None as the old place the
        index had lost the shard, and has it again.
        """
        with self._faults(), self._env.begin(write=True, db=self._rows) as txn:
            live: dict[SegmentId, int] = {}
            ends: dict[SegmentId, int] = {}
            for old, new in moves:
                key = new.header.key
                ends[new.segment] = max(ends.get(new.segment, 0), new.offset + new.size)
                if old is None:
                    if txn.put(key, _pack_row(key, new), overwrite=False):
                        live[new.segment] = live.get(new.segment, 0) + new.size
                    continue
                for found, row in list(_prefixed(txn, key)):
                    at = _unpack_row(found, row)
                    if at is not None and (at.segment, at.offset) == (old.segment, old.offset):
                        txn.put(found, _pack_row(found, new))
                        live[old.segment] = live.get(old.segment, 0) - old.size
                        live[new.segment] = live.get(new.segment, 0) + new.size
                        break
            self._count(txn, live, ends)

    def _drop(self, txn: lmdb.Transaction, prefix: bytes, live: dict[SegmentId, int]) -> None:
        for key, row in list(_prefixed(txn, prefix)):
            extent = _unpack_row(key, row)
            if extent is not None:
                live[extent.segment] = live.get(extent.segment, 0) - extent.size
            txn.delete(key)

    def _count(self, txn: lmdb.Transaction, live: dict[SegmentId, int], ends: dict[SegmentId, int]) -> None:
        for segment in live.keys() | ends.keys():
            total, alive, flags = _unpack_segment(segment, txn.get(segment, db=self._segments))
            total = max(total, ends.get(segment, 0))
            self._put_segment(txn, segment, total, max(0, alive + live.get(segment, 0)), flags)

    def _put_segment(self, txn: lmdb.Transaction, segment: SegmentId, total: int, live: int, flags: int) -> None:
        row = _SEGMENT.pack(total, live, 0, flags)
        row = _SEGMENT.pack(total, live, xxh3_64_intdigest(segment + row), flags)
        txn.put(segment, row, db=self._segments)

    def mark(self, segment: SegmentId, *, total: int | None = None, flags: int) -> None:
        """Add flags to a segment, and set its size if told."""
        with self._faults(), self._env.begin(write=True, db=self._segments) as txn:
            known, live, old = _unpack_segment(segment, txn.get(segment))
            self._put_segment(txn, segment, known if total is None else total, live, old | flags)

    def forget_segment(self, segment: SegmentId) -> None:
        with self._faults(), self._env.begin(write=True, db=self._segments) as txn:
            txn.delete(segment)

    def segments(self) -> list[SegmentInfo]:
        with self._faults(), self._env.begin(db=self._segments) as txn:
            found = []
            for segment, row in txn.cursor():
                total, live, flags = _unpack_segment(segment, row)
                found.append(SegmentInfo(segment, total, live, bool(flags & SEALED), bool(flags & SETTLED)))
            return found

    def segment(self, segment: SegmentId) -> SegmentInfo:
        """One of them, as `segments` has it; all zeros when it is not known."""
        with self._faults(), self._env.begin(db=self._segments) as txn:
            total, live, flags = _unpack_segment(segment, txn.get(segment))
        return SegmentInfo(segment, total, live, bool(flags & SEALED), bool(flags & SETTLED))

    def named_in(self, segment: SegmentId) -> Iterator[Extent]:
        """What the index says to lie in that segment. It reads all of the index: only where there is a doubt."""
        with self._faults(), self._env.begin(db=self._rows) as txn:
            for key, row in txn.cursor():
                if row[: len(segment)] == segment:
                    extent = _unpack_row(bytes(key), bytes(row))
                    if extent is not None:
                        yield extent

    def count(self) -> int:
        """Rows, second copies included."""
        with self._faults(), self._env.begin(db=self._rows) as txn:
            return int(txn.stat(self._rows)["entries"])


def _unpack_segment(segment: Buffer, row: Buffer | None) -> tuple[int, int, int]:
    """(total, live, flags); of a damaged row nothing is believed, and nothing is compacted because of it."""
    if row is None or len(row) != _SEGMENT.size:
        return 0, 0, 0
    total, live, checksum, flags = _SEGMENT.unpack(row)
    if checksum != xxh3_64_intdigest(bytes(segment) + _SEGMENT.pack(total, live, 0, flags)):
        return 0, 0, 0
    return total, live, flags


def _prefixed(txn: lmdb.Transaction, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    cursor = txn.cursor()
    if cursor.set_range(prefix):
        for key, row in cursor:
            if key[:KEY_SIZE] != prefix:
                return
            yield bytes(key), bytes(row)
