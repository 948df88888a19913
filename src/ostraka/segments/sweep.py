"""Verifying a segment from front to back, at the speed of the disk and past the page cache.

Records are read many at a time in large aligned blocks; header and cells are verified in memory. Which records there
should be is told by who asks (from a footer, or a scan): what lies between them is nobody's.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ostraka.host import File, Files
from ostraka.segments.format import (
    DIRECT_ALIGNMENT,
    Identity,
    SegmentId,
    align,
    cell_seed,
    first_bad_cell,
    segment_name,
    segment_seed,
    unpack_record_header,
)
from ostraka.segments.writer import Extent

BLOCK_SIZE: Final = 4 << 20


class Swept(NamedTuple):
    """What a step came to: records with whether all of each verified, and bytes that were read."""

    records: list[tuple[Extent, bool]]
    size: int


class Sweep:
    """One segment on its way. Raises OSError where the disk does not give the bytes at all; FileNotFoundError when the
    segment was unlinked before it was opened."""

    def __init__(
        self, files: Files, directory: Path, identity: Identity, segment: SegmentId, extents: Sequence[Extent]
    ) -> None:
        self.segment = segment
        self._seed = segment_seed(identity, segment)
        self._extents = sorted(extents, key=lambda extent: extent.offset)
        self._next = 0
        self._memory = mmap.mmap(-1, BLOCK_SIZE, flags=mmap.MAP_PRIVATE)
        self._file: File = files.open(directory / segment_name(segment), direct=True)

    @property
    def ended(self) -> bool:
        return self._next >= len(self._extents)

    def step(self) -> Swept:
        """Verify the records that the next block holds: one at least, however large."""
        if self.ended:
            return Swept([], 0)
        first = self._extents[self._next]
        start = first.offset // DIRECT_ALIGNMENT * DIRECT_ALIGNMENT
        size = max(BLOCK_SIZE, align(first.offset + first.size - start, DIRECT_ALIGNMENT))
        if size > len(self._memory):
            self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
        batch = []
        for extent in self._extents[self._next :]:
            if extent.offset + extent.size > start + size:
                break
            batch.append(extent)
        end = align(batch[-1].offset + batch[-1].size, DIRECT_ALIGNMENT) - start
        block = memoryview(self._memory)[: self._read(start, end)]
        self._next += len(batch)
        return Swept([(extent, self._good(block, extent, extent.offset - start)) for extent in batch], len(block))

    def _read(self, start: int, size: int) -> int:
        """Bytes that the file has there: fewer only at its end."""
        view, done = memoryview(self._memory), 0
        while done < size:
            more = self._file.preadv([view[done:size]], start + done)
            done += more
            if not more or more % DIRECT_ALIGNMENT:
                break
        return done

    def _good(self, block: memoryview, extent: Extent, at: int) -> bool:
        header = extent.header
        if unpack_record_header(block[at : at + header.data_offset], self._seed, extent.offset) != header:
            return False
        data = block[at + header.data_offset : at + header.data_offset + header.shard_size]
        if len(data) != header.shard_size:
            return False
        seed = cell_seed(header.write_id, header.index)
        return first_bad_cell(data, 0, header.cell_size, header.cells, seed) is None

    def close(self) -> None:
        self._file.close()
