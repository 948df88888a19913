"""Where a body is cut into chunks: every so many bytes, or where its content says (docs/format/cutting.md).

Content-defined cuts move with the bytes around them: after an insertion only the chunks that it touched are new. They
are FastCDC's, as pyfastcdc makes them; a cut depends on the bytes since the cut before it and on nothing else, so how
a body arrived makes no difference, and a prefix tells the same cuts as the whole. The table behind it and the
proportions here are part of the format: with others nothing would deduplicate against what is stored already.
"""

from typing import Final, Protocol

from pyfastcdc import FastCDC

from ostraka.chunks.types import Cut
from ostraka.limits import Limits

MINIMUM: Final = 4  # a chunk has at least the fourth part of the average
MAXIMUM: Final = 2  # and at most twice as much
NORMALIZATION: Final = 2  # of FastCDC: how much rarer cuts are before the average, and more frequent behind it
AVERAGE_MIN: Final = 512  # of FastCDC, whose minimum is 64 bytes and whose maximum at least 1024


class Cutter(Protocol):
    """Cuts one body, a chunk at a time. Given a chunk's first bytes it says where it ends."""

    stops: tuple[int, ...]  # bytes to gather before it is worth to look; at the last one a chunk ends for certain
    minimum: int  # bytes that it does not look at: time is spent on what follows

    def cut(self, data: memoryview, last: bool) -> int:
        """Bytes of the chunk that begins ``data``; 0: what follows decides. ``last``: nothing follows."""
        ...


class FixedCutter:
    """Every ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self.stops: tuple[int, ...] = (size,)
        self.minimum = size

    def cut(self, data: memoryview, last: bool) -> int:
        size = len(data)
        return min(size, self.minimum) if last or size >= self.minimum else 0


class ContentCutter:
    """Where the content says. Most chunks end before half as much again as the average: more is not gathered first."""

    def __init__(self, average: int) -> None:
        self.minimum, self._maximum = average // MINIMUM, average * MAXIMUM
        self.stops: tuple[int, ...] = (average * 3 // 2, self._maximum)
        self._cdc = FastCDC(average, min_size=self.minimum, max_size=self._maximum, normalized_chunking=NORMALIZATION)

    def cut(self, data: memoryview, last: bool) -> int:
        size = len(data)
        if not size:
            return 0
        end = next(iter(self._cdc.cut_buf(data))).length
        return end if end < size or last or size >= self._maximum else 0


def cutter(cut: Cut, limits: Limits) -> Cutter:
    """For one body: it is not to be used by two at once."""
    if not cut.by_content:
        return FixedCutter(min(cut.size, limits.chunk_size))
    average = min(cut.size, limits.chunk_size // MAXIMUM)
    if average < AVERAGE_MIN:  # bounds as only tests have them
        return FixedCutter(limits.chunk_size)
    return ContentCutter(average)
