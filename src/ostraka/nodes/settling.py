"""Which of this process's segments hold writes that nobody has decided about yet.

A write is settled when its stripe was committed, or given up. Until then no state names its shards, and compaction
would take them for dead: so a segment of ours with an unsettled write is left alone (ENGINE 19).
"""

import threading
from collections.abc import Iterable, Sequence

from ostraka.segments.format import SegmentId
from ostraka.segments.writer import Extent


class Settling:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writes: dict[bytes, list[SegmentId]] = {}
        self._owing: dict[SegmentId, int] = {}
        self._sealed: set[SegmentId] = set()
        self._mine: set[SegmentId] = set()  # all that were sealed here
        self._settled: list[SegmentId] = []  # sealed and settled, not yet told to the index

    def wrote(self, extents: Sequence[Extent]) -> None:
        with self._lock:
            for extent in extents:
                self._writes.setdefault(extent.header.write_id, []).append(extent.segment)
                self._owing[extent.segment] = self._owing.get(extent.segment, 0) + 1

    def settle(self, write_ids: Iterable[bytes]) -> None:
        with self._lock:
            for write_id in write_ids:
                for segment in self._writes.pop(write_id, ()):
                    left = self._owing[segment] - 1
                    if left:
                        self._owing[segment] = left
                        continue
                    del self._owing[segment]
                    if segment in self._sealed:
                        self._sealed.discard(segment)
                        self._settled.append(segment)

    def sealed(self, segment: SegmentId) -> bool:
        """No more writes go there. True if all of them are settled already."""
        with self._lock:
            self._mine.add(segment)
            if segment not in self._owing:
                return True
            self._sealed.add(segment)
            return False

    def take_settled(self) -> list[SegmentId]:
        """Segments that became settled after they were sealed, each once."""
        if not self._settled:
            return []
        with self._lock:
            taken, self._settled = self._settled, []
            return taken

    def done(self, segment: SegmentId) -> bool:
        """Whether the segment was sealed here and all of its writes are settled."""
        with self._lock:
            return segment in self._mine and segment not in self._owing
