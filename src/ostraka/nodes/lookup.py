"""From (write id, index) to verified bytes, and how sure one must be before a shard is called absent.

The order of doubt: the index; if the place it tells has gone, the index once again (compaction moved the shard); if
bytes there do not verify, any other copy that the index knows; and where the index knows nothing, the segments
themselves, by a census that is at most ``limits.index_trust_seconds`` old. A disk whose directory has gone, or some
segment of which cannot be read, answers OSError and never "absent".
"""

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from ostraka.errors import Absent, Corrupt
from ostraka.host import Host
from ostraka.limits import Limits
from ostraka.nodes import recovery
from ostraka.nodes.census import Census
from ostraka.nodes.shard_index import ShardIndex, shard_key
from ostraka.segments.descriptors import Descriptor, Descriptors
from ostraka.segments.format import Identity, cell_seed, first_bad_cell, segment_seed
from ostraka.segments.reader import read_header, read_shard
from ostraka.segments.writer import Extent

_VERIFY_SIZE: Final = 4 << 20
_CENSUS_SHARE: Final = 50  # a census that took long is trusted longer: at most 2 % of the time goes into them
_HOT_MAX: Final = 4096  # places that are kept for reads that may not wait
_PLACES_MAX: Final = 16  # a shard may move while we look, but not for ever

T = TypeVar("T")


class Lookup:
    """Reading of one disk. Every method may be called from any thread."""

    def __init__(
        self,
        disk: Path,
        identity: Identity,
        host: Host,
        limits: Limits,
        index: Callable[[], ShardIndex],
        descriptors: Descriptors,
    ) -> None:
        self._disk = disk
        self._identity = identity
        self._host = host
        self._limits = limits
        self._index = index
        self._descriptors = descriptors
        self._census_lock = threading.Lock()
        self._kept: Census | None = None
        self._kept_until = 0.0
        self._hot: dict[tuple[bytes, int], tuple[Extent, int]] = {}
        self.used = False  # since somebody last cleared it

    def read(self, write_id: bytes, index: int, offset: int, length: int) -> memoryview:
        def whole_cells(descriptor: Descriptor, extent: Extent) -> memoryview | int:
            first, start, size = _cells(extent, offset, length)
            whole = memoryview(bytearray(size))
            bad = read_shard(descriptor.file, extent.offset, extent.header, first, whole)
            return whole[offset - start : offset - start + length] if bad is None else bad

        return self._attempt(write_id, index, offset + length, whole_cells)

    def read_into(self, write_id: bytes, index: int, offset: int, into: memoryview) -> None:
        """Whole cells are read in place; a cell that ``into`` holds only a part of goes through a copy."""

        def pieces(descriptor: Descriptor, extent: Extent) -> int | None:
            cell_size, shard_size = extent.header.cell_size, extent.header.shard_size
            end = offset + len(into)
            at = offset
            while at < end:
                whole_until = end if end == shard_size else end // cell_size * cell_size
                if at % cell_size == 0 and whole_until > at:
                    part = into[at - offset : whole_until - offset]
                    bad = read_shard(descriptor.file, extent.offset, extent.header, at // cell_size, part)
                    at = whole_until
                else:
                    stop = min(end, (at // cell_size + 1) * cell_size)
                    first, start, size = _cells(extent, at, stop - at)
                    cell = memoryview(bytearray(size))
                    bad = read_shard(descriptor.file, extent.offset, extent.header, first, cell)
                    into[at - offset : stop - offset] = cell[at - start : stop - start]
                    at = stop
                if bad is not None:
                    return bad
            return None

        self._attempt(write_id, index, offset + len(into), pieces)

    def read_now(self, write_id: bytes, index: int, offset: int, length: int) -> memoryview | None:
        """Every microsecond counts here: what a lookup told is kept, since shards never change. A place that is no
        longer right shows by its file being gone or its cells not verifying, and is looked up anew next time."""
        key = (write_id, index)
        try:
            hot = self._hot.get(key)
            if hot is None:
                extent = self._index().get(write_id, index)
                if extent is None:
                    return None
                if len(self._hot) >= _HOT_MAX:
                    self._hot.clear()
                hot = self._hot[key] = (extent, cell_seed(write_id, index))
            extent, seed = hot
            header = extent.header
            cell_size, end = header.cell_size, offset + length
            if end > header.shard_size:
                return None
            descriptor = self._descriptors.take_cached(extent.segment)
            if descriptor is None:
                del self._hot[key]
                return None
            first = offset // cell_size
            start = first * cell_size
            stop = -(-end // cell_size) * cell_size
            size = (stop if stop < header.shard_size else header.shard_size) - start
            whole = memoryview(bytearray(size))
            try:
                done = descriptor.file.preadv_now((whole,), extent.offset + header.data_offset + start)
            finally:
                self._descriptors.give(descriptor)
            self.used = True
            if done != size:
                return None  # not cached
            if first_bad_cell(whole, first, cell_size, header.cells, seed) is not None:
                del self._hot[key]  # the slow path finds out
                return None
            return whole[offset - start : end - start]
        except (OSError, KeyError):  # KeyError: another thread dropped what we looked at
            return None

    def verify(self, write_id: bytes, index: int) -> None:
        """Every cell, and the record's header. Raises Absent, Corrupt or OSError if it is not all good."""

        def all_cells(descriptor: Descriptor, extent: Extent) -> int | None:
            seed = segment_seed(self._identity, extent.segment)
            header = read_header(descriptor.file, seed, extent.offset)
            if header is None or (header.key, header.cells) != (extent.header.key, extent.header.cells):
                return 0
            return first_bad(descriptor, extent)

        self._attempt(write_id, index, 0, all_cells)

    def _attempt(self, write_id: bytes, index: int, end: int, read: Callable[[Descriptor, Extent], T | int]) -> T:
        """The first place of the shard from which ``read`` gets verified bytes (it answers a cell's number if not)."""
        damage = ""
        for extent in self._places(write_id, index):
            if end > extent.header.shard_size:
                damage = f"has {extent.header.shard_size} bytes, byte {end} was asked for"
                continue
            try:
                descriptor = self._descriptors.take(extent.segment)
            except FileNotFoundError:
                continue
            try:
                self.used = True
                result = read(descriptor, extent)
            finally:
                self._descriptors.give(descriptor)
            if type(result) is not int:
                return result  # type: ignore[return-value]
            damage = f"cell {result} does not verify"
        shard = f"disk {self._identity.disk}: shard {write_id.hex()}.{index}"
        if damage:
            raise Corrupt(f"{shard} {damage}", reason="shard")
        lost = self._overlooked(write_id, index)
        if lost is None:
            raise Absent(f"{shard} is not here", reason="shard")
        self._index().put([lost])  # the index had lost it, or it was released: then these are bytes nobody asks for
        return self._attempt(write_id, index, end, read)

    def _places(self, write_id: bytes, index: int) -> Iterator[Extent]:
        """Where the index says the shard is, each place once, the likeliest first."""
        tried: set[tuple[bytes, int]] = set()
        for _ in range(_PLACES_MAX):
            extent = self._index().get(write_id, index)
            if extent is None or (extent.segment, extent.offset) in tried:
                break
            tried.add((extent.segment, extent.offset))
            yield extent  # and when that did not do: perhaps it moved meanwhile
        for extent in self._index().copies(write_id, index):
            if (extent.segment, extent.offset) not in tried:
                tried.add((extent.segment, extent.offset))
                yield extent

    def _overlooked(self, write_id: bytes, index: int) -> Extent | None:
        """A record of the shard that the index does not name. None means that there is none, for sure.

        Raises OSError if some segment, or all of the directory, cannot be asked.
        """
        for again in (False, True):
            census = self._census(again)
            moved = False
            for segment, offset in census.places(write_id, index):
                try:
                    descriptor = self._descriptors.take(segment)
                except FileNotFoundError:
                    moved = True  # compacted since the census
                    continue
                try:
                    header = read_header(descriptor.file, segment_seed(self._identity, segment), offset)
                finally:
                    self._descriptors.give(descriptor)
                if header is not None and header.key == shard_key(write_id, index):
                    return recovery.extent_of(segment, offset, header)
            if not moved:
                break
        if census.unreadable:
            raise OSError(errno.EIO, f"{self._disk}: {census.unreadable} segments cannot be read")
        return None

    def _census(self, anew: bool) -> Census:
        """A census that is new enough. Raises OSError if the directory of the segments is gone."""
        with self._census_lock:
            segments = recovery.segment_ids(self._host, self._disk)
            began = self._host.clock.monotonic()
            if not anew and self._kept is not None and began < self._kept_until:
                return self._kept
            census = Census()
            for segment in segments:
                try:
                    read = recovery.read_headers(self._host, self._disk, self._identity, segment)
                except OSError:
                    census.unreadable += 1
                    continue
                if read is not None:
                    census.add(segment, read[0])
            census.close()
            ended = self._host.clock.monotonic()
            self._kept = census
            trusted = 0.0 if census.unreadable else self._limits.index_trust_seconds
            self._kept_until = ended + max(trusted, _CENSUS_SHARE * (ended - began))
            return census


def _cells(extent: Extent, offset: int, length: int) -> tuple[int, int, int]:
    """(first cell, its first byte, bytes of all cells) that a range of the shard touches."""
    cell_size = extent.header.cell_size
    first = offset // cell_size
    end = min(-(-(offset + length) // cell_size) * cell_size, extent.header.shard_size)
    return first, first * cell_size, max(0, end - first * cell_size)


def first_bad(descriptor: Descriptor, extent: Extent) -> int | None:
    """The first cell of a shard that does not verify, or None."""
    header = extent.header
    step = max(header.cell_size, _VERIFY_SIZE // header.cell_size * header.cell_size)
    scratch = memoryview(bytearray(min(step, header.shard_size)))
    for start in range(0, header.shard_size, step):
        part = scratch[: min(step, header.shard_size - start)]
        bad = read_shard(descriptor.file, extent.offset, header, start // header.cell_size, part)
        if bad is not None:
            return bad
    return None
