"""What a pool counts, and how long its disks take.

Counts are plain numbers of this process, put on the board that all processes share a moment after a disk was called: an
idle process has no timer.
"""

import asyncio
from typing import Final

import msgspec

from ostraka.metrics import LATENCY_BUCKETS, Board, Metric

FLUSH_SECONDS: Final = 1.0
DISKS: Final = (*map(str, range(64)), "other")  # numbers are never given twice: a label's values have a bound

_HELP = {
    "reads": "reads of stripes",
    "degraded_reads": "reads that were computed from other shards than those that were wanted",
    "reconstructed_bytes": "bytes that were computed so",
    "hedged_reads": "reads that began to go around a disk that was slow",
    "hedges_won": "of these, answered around it",
    "hedges_denied": "reads that waited for a slow disk because hedging had used up its share",
    "silent_reads": "reads that went around a disk that answered nothing",
    "corrupt_shards": "shards that did not verify when they were read",
    "absent_shards": "shards that their disks did not have when they were read",
    "read_errors": "reads of shards that failed, or took too long",
    "write_errors": "writes of shards that failed, or took too long",
    "replaced_shards": "shards that went to another disk than was chosen first",
    "narrowed_stripes": "stripes that are narrower because disks were missing",
    "repaired_shards": "shards that were written anew because they were lost or damaged",
    "moved_shards": "shards that went to another disk because disks came or left",
}

METRICS = (
    *(Metric(f"ostraka_pool_{name}_total", "counter", text) for name, text in _HELP.items()),
    Metric(
        "ostraka_disk_seconds",
        "histogram",
        "calls of a disk, from when they were asked for to the answer",
        {"operation": ("read", "write"), "disk": DISKS},
        LATENCY_BUCKETS,
    ),
)


class Counters(msgspec.Struct):
    """What has happened since the start, for the metrics."""

    writes: int = 0
    bytes_written: int = 0
    reads: int = 0
    degraded_reads: int = 0
    reconstructed_bytes: int = 0
    corrupt_shards: int = 0
    absent_shards: int = 0
    read_errors: int = 0
    write_errors: int = 0
    replaced_shards: int = 0
    narrowed_stripes: int = 0
    repaired_shards: int = 0
    moved_shards: int = 0
    hedged_reads: int = 0
    hedges_won: int = 0
    hedges_denied: int = 0
    silent_reads: int = 0


class Meter:
    """Puts the counts of a process on the board."""

    def __init__(self, board: Board, counters: Counters) -> None:
        self._board = board
        self._counters = counters
        self._cells = {name: board.cell(f"ostraka_pool_{name}_total") for name in _HELP}
        self._told = Counters()
        self._timer: asyncio.TimerHandle | None = None

    def on_call(self, operation: str, disk: int, seconds: float) -> None:
        """A disk has answered."""
        self._board.observe("ostraka_disk_seconds", seconds, operation, DISKS[min(disk, len(DISKS) - 1)])
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Add what was counted since the last time."""
        self._timer = None
        for name, cell in self._cells.items():
            now, before = getattr(self._counters, name), getattr(self._told, name)
            if now != before:
                self._board.add(cell, now - before)
                setattr(self._told, name, now)
