"""What the segments of a disk hold, asked past its index: so that a miss in the index becomes "absent" only when sure.

A census reads the headers of every segment and keeps, for each record, eight bytes of its key and where it lies.
It is made when a lookup misses and the last census is too old (lookup.py).
"""

from array import array
from bisect import bisect_left

from ostraka.segments.format import SegmentId
from ostraka.segments.writer import Extent

_OFFSET_BITS = 40  # a segment is far below 1 TiB


def _print(write_id: bytes, index: int) -> int:
    """Write ids are random: eight bytes of one tell shards apart well enough to know where to look."""
    return int.from_bytes(write_id[:8], "big") ^ (index << 56)


class Census:
    """Fingerprints in order, and the place of each."""

    def __init__(self) -> None:
        self._segments: list[SegmentId] = []
        self._records: list[tuple[int, int]] | None = []
        self._prints: array[int] = array("Q")
        self._places: array[int] = array("Q")
        self.unreadable = 0

    def add(self, segment: SegmentId, extents: list[Extent]) -> None:
        assert self._records is not None, "a census that is closed takes no more"
        ordinal = len(self._segments) << _OFFSET_BITS
        self._segments.append(segment)
        self._records.extend((_print(e.header.write_id, e.header.index), ordinal | e.offset) for e in extents)

    def close(self) -> None:
        assert self._records is not None
        self._records.sort()
        self._prints.extend(p for p, _ in self._records)
        self._places.extend(p for _, p in self._records)
        self._records = None

    def places(self, write_id: bytes, index: int) -> list[tuple[SegmentId, int]]:
        """(segment, offset) of every record that may be this shard."""
        wanted = _print(write_id, index)
        at = bisect_left(self._prints, wanted)
        found = []
        while at < len(self._prints) and self._prints[at] == wanted:
            place = self._places[at]
            found.append((self._segments[place >> _OFFSET_BITS], place & ((1 << _OFFSET_BITS) - 1)))
            at += 1
        return found
