"""Rewriting a segment whose bytes are mostly dead, so that its room comes back.

Records that the state still names are read (verified), appended to fresh segments, synced, and only then does the
index name the new place and the old file go. At every moment at least one synced copy exists; a crash leaves both,
and the index, rebuilt, names both. Readers that hold the old file finish on it; who looks it up and finds it gone,
looks up again (lookup.py).

A live record whose bytes do not verify stops the compaction of its segment: good cells of a damaged shard may be all
that is left of them. The segment waits until the pool has repaired the shard.
"""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ostraka.errors import Corrupt, InUse
from ostraka.nodes import recovery
from ostraka.nodes.lookup import first_bad
from ostraka.segments.format import SegmentId, segment_name
from ostraka.segments.reader import read_shard
from ostraka.segments.writer import Extent, Record

if TYPE_CHECKING:
    from ostraka.nodes.local import LocalDisk

IsLive = Callable[[int, bytes, bytes, int], bool]  # (owner, owner id, write id, index)

_BATCH_SIZE: Final = 8 << 20


def compact(disk: "LocalDisk", segment: SegmentId, is_live: IsLive) -> int:
    """Rewrite one settled segment; returns the bytes that came free (0: somebody else compacts this disk)."""
    lock = recovery.index_directory(disk.path) / "compaction"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(disk.host.files.lock(lock))
        except InUse:
            return 0
        read = recovery.read_headers(disk.host, disk.path, disk.identity, segment)
        if read is None:
            return 0
        extents, _, size = read
        moves = _Moves(disk)
        for extent in extents:
            header = extent.header
            if not is_live(header.owner, header.owner_id, header.write_id, header.index):
                continue
            needed, old = _place_to_move(disk, extent)
            if needed:
                moves.add(old, extent)
        moves.flush()
        disk.host.files.unlink(disk.directory / segment_name(segment))
        disk.index.forget_segment(segment)
        disk.space.next_generation()
        disk.tend()
        return size - moves.written


def _place_to_move(disk: "LocalDisk", extent: Extent) -> tuple[bool, Extent | None]:
    """Whether this record has to move, and the place whose row shall then tell the new one (None: there is no row)."""
    known = disk.index.copies(extent.header.write_id, extent.header.index)
    for place in known:
        if (place.segment, place.offset) == (extent.segment, extent.offset):
            return True, place
    for place in known:
        try:
            descriptor = disk.descriptors.take(place.segment)
        except FileNotFoundError:
            continue
        try:
            if first_bad(descriptor, place) is None:
                return False, None
        finally:
            disk.descriptors.give(descriptor)
    return True, known[0] if known else None  # what the index names is damaged or gone: this one shall replace it


class _Moves:
    """Copies of records on their way to a fresh segment, a bounded number of bytes at a time."""

    def __init__(self, disk: "LocalDisk") -> None:
        self._disk = disk
        self._batch: list[tuple[Extent | None, Record]] = []
        self._bytes = 0
        self.written = 0

    def add(self, old: Extent | None, extent: Extent) -> None:
        """Read the record, verified, and write the batch when it is large enough. Raises Corrupt."""
        header = extent.header
        descriptor = self._disk.descriptors.take(extent.segment)
        try:
            data = memoryview(bytearray(header.shard_size))
            if read_shard(descriptor.file, extent.offset, header, 0, data) is not None:
                raise Corrupt(
                    f"disk {self._disk.number}: shard {header.write_id.hex()}.{header.index} is damaged; "
                    "its segment is compacted once it is repaired",
                    reason="shard",
                )
        finally:
            self._disk.descriptors.give(descriptor)
        self._batch.append((old, Record(header, [data])))
        self._bytes += header.shard_size
        if self._bytes >= _BATCH_SIZE:
            self.flush()

    def flush(self) -> None:
        disk = self._disk
        if not self._batch:
            return
        new: dict[bytes, Extent] = {}
        with disk.space.reserve(self._bytes, disk.limits.reserve_compaction):
            for extent in disk.append_moved([record for _, record in self._batch]):
                new[extent.header.key] = extent
                self.written += extent.size
        disk.index.move([(old, new[record.header.key]) for old, record in self._batch])
        self._batch = []
        self._bytes = 0
