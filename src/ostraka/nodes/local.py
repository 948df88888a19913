"""A disk of this machine: a directory whose segments hold shards, and whose index knows where they lie.

Several worker processes serve one directory: each appends to segment files of its own, all share the shard index.
``open_owner`` is for the one process that owns the store: it sees to it that the index can be believed, before any
worker opens it with ``open_shared``. A store that has one process only uses what ``open_owner`` returns.

What is durable when: `write` returns after the records were synced (segments/writer.py). The index is not synced; it
is derived, and rebuilt when in doubt (recovery.py).
"""

import contextlib
import errno
import itertools
import threading
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from ostraka.errors import Full
from ostraka.host import Host
from ostraka.limits import Limits
from ostraka.nodes import compaction, recovery
from ostraka.nodes.lookup import Lookup
from ostraka.nodes.settling import Settling
from ostraka.nodes.shard_index import SEALED, SETTLED, SegmentInfo, ShardIndex
from ostraka.nodes.space import Space, create_shared
from ostraka.nodes.types import Owner, ShardWrite
from ostraka.segments.descriptors import Descriptors
from ostraka.segments.format import Identity, SegmentId, ShardHeader, sum_cells
from ostraka.segments.sweep import Sweep
from ostraka.segments.writer import NO_ROOM, Extent, Record, SegmentWriter


class Found(msgspec.Struct, frozen=True):
    """A record on this disk, and whether the index names it (else it is dead, or its write was never acknowledged)."""

    extent: Extent
    named: bool


class LocalDisk:
    """Implements nodes.types.Disk. Every method may be called from any thread of the process that opened it."""

    def __init__(
        self, path: Path, number: int, store_id: bytes, incarnation: bytes, host: Host, limits: Limits, *, owner: bool
    ) -> None:
        self.path = path
        self.number = number
        self.incarnation = incarnation
        self.identity = Identity(store_id, number)
        self.host = host
        self.limits = limits
        self.directory = recovery.segments_directory(path)
        mark = recovery.read_open_mark(host, path)
        self._owner = owner
        self._map_size = mark.map_size
        self._opening = threading.Lock()
        self._index: ShardIndex | None = None
        self._closed = False
        self.space = Space(path, recovery.index_directory(path) / "shared", host, limits)
        self.descriptors = Descriptors(self.directory, host.files, limits.segment_files_open_max)
        self._generation = self.space.generation
        self._lookup = Lookup(path, self.identity, host, limits, lambda: self.index, self.descriptors)
        self.settling = Settling()
        self._unmarked: dict[SegmentId, tuple[int | None, int]] = {}  # what the index could not be told yet
        sequence = itertools.count()
        self._writers = tuple(self._writer(sequence, direct=direct) for direct in (False, True, False, True))
        self._buffered, self._direct, self._moved_buffered, self._moved_direct = self._writers

    @classmethod
    def open_owner(
        cls, path: Path, number: int, store_id: bytes, incarnation: bytes, host: Host, limits: Limits
    ) -> "LocalDisk":
        """Open the disk for the process that owns the store, rebuilding its index if that is in doubt.

        Nobody else may have it open. It opens the index itself only when it is used, so that an owner that merely
        supervises workers holds nothing. Raises OSError, and Refused for a later format.
        """
        recovery.prepare(host, path, Identity(store_id, number))
        create_shared(host, recovery.index_directory(path) / "shared")
        return cls(path, number, store_id, incarnation, host, limits, owner=True)

    @classmethod
    def open_shared(
        cls, path: Path, number: int, store_id: bytes, incarnation: bytes, host: Host, limits: Limits
    ) -> "LocalDisk":
        """Open the disk in a worker, after the owner has. Raises OSError, also if it has not."""
        return cls(path, number, store_id, incarnation, host, limits, owner=False)

    def _writer(self, sequence: Iterator[int], *, direct: bool) -> SegmentWriter:
        return SegmentWriter(
            self.directory,
            self.identity,
            self.incarnation,
            sequence,
            self.host.files,
            self.limits,
            direct=direct,
            on_sealed=self._sealed,
        )

    @property
    def index(self) -> ShardIndex:
        index = self._index
        if index is None:
            with self._opening:
                if self._closed:
                    raise OSError(errno.EBADF, f"{self.path}: closed")
                if self._index is None:
                    self._index = recovery.open_index(self.host, self.path, self._map_size)
                index = self._index
        return index

    def close(self) -> None:
        """Seal what is open and close. The owner, who closes last, leaves the index marked clean."""
        with self._opening:
            if self._closed:
                return
        for writer in self._writers:
            writer.seal()
        with self._opening:
            self._closed = True
            if self._index is not None:
                self._index.close()
                self._index = None
        self.descriptors.close()
        self.space.close()
        if self._owner:
            recovery.close_clean(self.host, self.path)

    # -- writing

    def write(self, shards: Sequence[ShardWrite]) -> None:
        """Append and sync. Raises Full below the reserve or when the file system is full, OSError if it failed."""
        buffered: list[Record] = []
        direct: list[Record] = []
        total = 0
        for shard in shards:
            record = self._record(shard)
            size = record.header.shard_size
            total += size + 4096
            (direct if size >= self.limits.direct_shard_size_min else buffered).append(record)
        written: list[Record] = []
        with self.space.reserve(total, self.limits.reserve_writes):
            try:
                for writer, records in ((self._buffered, buffered), (self._direct, direct)):
                    if records:
                        self._append(writer, records)
                        written += records
            except BaseException:
                if written:  # all of it failed for whoever asked: nobody will settle or release these
                    with contextlib.suppress(Full, OSError):
                        self.release([(record.header.write_id, record.header.index) for record in written])
                raise

    def _record(self, shard: ShardWrite) -> Record:
        size = sum(memoryview(piece).nbytes for piece in shard.data)
        cell_size = self.limits.pack_cell_size if shard.owner == Owner.PACK else self.limits.cell_size
        cells = sum_cells(shard.data, cell_size, shard.write_id, shard.index)
        header = ShardHeader(
            shard.write_id,
            shard.index,
            shard.k,
            shard.m,
            int(shard.owner),
            shard.owner_id,
            shard.body_length,
            size,
            cell_size,
            0,
            cells,
        )
        return Record(header, shard.data)

    def _append(self, writer: SegmentWriter, records: list[Record]) -> None:
        try:
            writer.append(records, self._publish)
        except OSError as e:
            raise self._full(e) from e

    def _full(self, error: OSError) -> Exception:
        if error.errno in NO_ROOM:
            return Full(f"{self.path}: {error.strerror}", reason="disk")
        return error

    def _publish(self, extents: Sequence[Extent]) -> None:
        self.settling.wrote(extents)  # before the segment can be sealed, and so before anyone could compact it
        try:
            self.index.put(extents)
        except BaseException:
            self.settling.settle([extent.header.write_id for extent in extents])
            raise
        self._flush_settled()

    def _sealed(self, segment: SegmentId, size: int) -> None:
        settled = self.settling.sealed(segment)
        self._mark(segment, size, SEALED | SETTLED if settled else SEALED)

    def _mark(self, segment: SegmentId, total: int | None, flags: int) -> None:
        """Tell the index; what it has no room for is told later. It never fails the append that happened upon it."""
        try:
            self.index.mark(segment, total=total, flags=flags)
        except (Full, OSError):
            with self._opening:
                known, more = self._unmarked.get(segment, (None, 0))
                self._unmarked[segment] = (known if total is None else total, more | flags)

    # -- what became of writes

    def settle(self, write_ids: Iterable[bytes]) -> None:
        """These writes were committed or given up: their segments may be compacted. Cheap; never waits."""
        self.settling.settle(write_ids)

    def _flush_settled(self) -> None:
        for segment in self.settling.take_settled():
            self._mark(segment, None, SETTLED)
        if self._unmarked:
            with self._opening:
                again, self._unmarked = self._unmarked, {}
            for segment, (total, flags) in again.items():
                self._mark(segment, total, flags)

    def release(self, shards: Sequence[tuple[bytes, int]]) -> None:
        self.settling.settle(write_id for write_id, _ in shards)
        self.index.remove(shards)

    # -- reading

    def read(self, write_id: bytes, index: int, offset: int, length: int) -> memoryview:
        return self._lookup.read(write_id, index, offset, length)

    def read_into(self, write_id: bytes, index: int, offset: int, into: memoryview) -> None:
        """Fill ``into`` with the shard's bytes from ``offset`` on, every cell that they touch verified."""
        self._lookup.read_into(write_id, index, offset, into)

    def read_now(self, write_id: bytes, index: int, offset: int, length: int) -> memoryview | None:
        if self._index is None:  # to open it may take as long as the disk likes
            return None
        return self._lookup.read_now(write_id, index, offset, length)

    def verify(self, write_id: bytes, index: int) -> None:
        """Read every cell and the record's header. Raises Absent, Corrupt or OSError if it is not all good."""
        self._lookup.verify(write_id, index)

    def free(self) -> tuple[int, int]:
        return self.space.free()

    # -- upkeep

    def tend(self) -> bool:
        """Close files that compaction, here or in another process, has unlinked, and those nobody used since the
        last call. False when there is nothing left to close: no need to call again until something is read."""
        self._flush_settled()
        generation = self.space.generation
        if generation != self._generation:
            self._generation = generation
            self.descriptors.keep_only(set(recovery.segment_ids(self.host, self.path)))
        if not self._lookup.used:
            self.descriptors.close()
        self._lookup.used = False
        return len(self.descriptors) > 0

    def segments(self) -> list[SegmentInfo]:
        """Every segment file on the disk, whichever process wrote it. ``live`` is an upper bound after a rebuild:
        shards that were released before count again until their segment is compacted."""
        self._flush_settled()
        known = {info.segment: info for info in self.index.segments()}
        return [
            known.get(segment) or SegmentInfo(segment, 0, 0, False, False)
            for segment in recovery.segment_ids(self.host, self.path)
        ]

    def compact(self, segment: SegmentId, is_live: compaction.IsLive, live: Container[bytes] = ()) -> int:
        """Rewrite what is alive in one segment and unlink it; returns the bytes that came free.

        ``live`` are the incarnations, other than ours, that may still write or commit. 0 if the segment may not be
        compacted now: it is open, or holds writes that are not settled (ENGINE 19). Raises Full, OSError, Corrupt
        (a live shard is damaged: repair it first), and whatever ``is_live`` raises; then nothing was lost.
        """
        self._flush_settled()
        if any(segment in writer.open_segments() for writer in self._writers):
            return 0
        if segment[:16] == self.incarnation or segment[:16] in live:
            settled = self.settling.done(segment) or any(
                info.settled for info in self.index.segments() if info.segment == segment
            )
            if not settled:
                return 0
        return compaction.compact(self, segment, is_live)

    def append_moved(self, records: Sequence[Record]) -> list[Extent]:
        """Compaction's appends: synced, not yet in the index, and settled from the start."""
        moved: list[Extent] = []
        for direct, writer in ((False, self._moved_buffered), (True, self._moved_direct)):
            part = [r for r in records if (r.header.shard_size >= self.limits.direct_shard_size_min) is direct]
            if part:
                try:
                    moved += writer.append(part, _nobody)
                except OSError as e:
                    raise self._full(e) from e
        return moved

    def iterate(self) -> Iterator[Found]:
        """Every record of every segment, dead ones too (fsck asks the disk itself, not the index)."""
        for segment in recovery.segment_ids(self.host, self.path):
            read = recovery.read_headers(self.host, self.path, self.identity, segment)
            for extent in read[0] if read is not None else ():
                header = extent.header
                places = self.index.copies(header.write_id, header.index)
                named = any((p.segment, p.offset) == (extent.segment, extent.offset) for p in places)
                yield Found(extent, named)

    def sweep(self, segment: SegmentId) -> Sweep | None:
        """All of a segment, to be verified in the order of the disk; close it. None when it has gone."""
        read = recovery.read_headers(self.host, self.path, self.identity, segment)
        if read is None:
            return None
        try:
            return Sweep(self.host.files, self.directory, self.identity, segment, read[0])
        except FileNotFoundError:
            return None


def _nobody(extents: Sequence[Extent]) -> None:
    """Compaction publishes by moving rows, after the sync."""
