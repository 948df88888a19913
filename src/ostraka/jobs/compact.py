"""Compaction: segments that are mostly dead are rewritten, so that their room comes back.

The bound. A closed segment (`liveness.closed`) is kept only while at least ``limits.compact_live_ratio`` of what it
holds beside header and footer is alive (it would have those again: with the smallest shards they are half of a file).
So what a disk holds in closed segments is at most live / 0.6, and footers; less on a disk that is nearly full, of which
more is rewritten. Beside that it holds what may not be judged
yet: the segments that processes append to (at most ``segment_size_max`` each, four a process and disk), and what died
within the grace or is held by a reader. Together: at most 3 x live, and a constant that grows with neither time nor
traffic.
Segments are taken worst first, one at a time.

The index counts as alive whatever it names, and that is too much after a crash, a failed request or a rebuild. So every
segment, once closed, is held against the state one time (`_reconcile`), and shards that no row names are released.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec

from ostraka.errors import Corrupt, Full, OstrakaError
from ostraka.jobs.damage import DamageJournal
from ostraka.jobs.ground import Budget, Ground, Job, Progress, in_thread
from ostraka.jobs.liveness import closed, liveness, undecided
from ostraka.nodes import recovery
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.shard_index import SegmentInfo
from ostraka.segments.format import (
    BUFFERED_ALIGNMENT,
    CELL_SUM_SIZE,
    DIRECT_ALIGNMENT,
    SEGMENT_HEADER_SIZE,
    SegmentId,
    align,
    footer_size,
)
from ostraka.segments.writer import Extent
from ostraka.state.types import State

log = logging.getLogger("ostraka.jobs")

OnDamage = Callable[[int, bytes], Awaitable[None]]  # (owner, owner id) of a stripe with a shard that does not verify

_RETRY_SECONDS = 60.0  # after a full disk, or one that cannot be read


class _Candidate(NamedTuple):
    live: float  # share of the segment
    disk: int
    segment: SegmentId


class _Judged(NamedTuple):
    """A closed segment that was held against the state."""

    live: int  # bytes that the index counts as alive since
    overhead: int  # of its header and footer


class Compact(Job):
    name = "compact"
    purpose = "rewrites segments that are mostly dead"
    paused_means = "what is dead keeps its room on the disks"

    def __init__(self, ground: Ground, on_damage: OnDamage | None = None) -> None:
        super().__init__(ground)
        self._on_damage = on_damage or DamageJournal(ground.state, ground.host.clock).owner
        self._reconciled: dict[int, dict[SegmentId, _Judged]] = {}
        self._not_before: dict[SegmentId, float] = {}  # segments that could not be rewritten, until when
        self.bytes_freed = 0
        self.segments_done = 0

    async def run_once(self, budget: Budget) -> Progress:
        segments, freed = self.segments_done, self.bytes_freed
        progress = await self._step(budget)
        did = self.segments_done - segments
        return msgspec.structs.replace(progress, did=did, bytes=self.bytes_freed - freed)

    async def _step(self, budget: Budget) -> Progress:
        while budget.left:
            try:
                found = await self._candidates(budget)
                if found is None:
                    break
                if not found:
                    return Progress(self.segments_done, again_in=_RETRY_SECONDS if self._not_before else None)
                await self._compact(min(found))
            except (Full, OSError) as error:  # a disk on its way out: the next write finds out, and the epoch changes
                return Progress(self.segments_done, again_in=_RETRY_SECONDS, note=str(error))
            budget.rows -= 1
        return Progress(self.segments_done, more=True)

    async def _candidates(self, budget: Budget) -> list[_Candidate] | None:
        """Closed segments below the ratio; None when the budget ended before all were looked at."""
        ground = self._ground
        now = ground.host.clock.monotonic()
        self._not_before = {segment: until for segment, until in self._not_before.items() if until > now}
        found: list[_Candidate] = []
        for number, disk in list(ground.disks.items()):
            member = ground.membership.epoch.member(number)
            if member is None or member.healing or ground.membership.disk(number) is not disk:
                continue  # of a disk that came back nothing is erased before all is whole again
            judged = await self._closed(disk)
            released = await self._reconcile(disk, judged, budget)
            if released is None:
                return None
            if released:
                judged = await self._closed(disk)
            ratio = self._ratio(disk)
            for info in judged:
                share = _live_share(info, self._reconciled[number].get(info.segment))
                if share < ratio and info.segment not in self._not_before:
                    found.append(_Candidate(share, number, info.segment))
        return found

    def _ratio(self, disk: LocalDisk) -> float:
        """What is alive less than this is rewritten: the fuller the disk, the more."""
        limits = self._ground.limits
        more = limits.compact_live_ratio_full - limits.compact_live_ratio
        return limits.compact_live_ratio + disk.space.pressure() * more

    async def _closed(self, disk: LocalDisk) -> list[SegmentInfo]:
        infos = await in_thread(disk.segments)
        decided = undecided(self._ground)
        return [info for info in infos if closed(disk, info, decided)]

    # -- what the index counts as alive, and no row names

    async def _reconcile(self, disk: LocalDisk, judged: list[SegmentInfo], budget: Budget) -> int | None:
        """Hold segments that were not yet seen closed against the state, and those of which more is alive than was:
        a late reader had the index find again what was dead. How many shards were released, or None when the budget
        ended first."""
        released = 0
        before = self._reconciled.get(disk.number, {})
        seen = {
            info.segment: known._replace(live=min(known.live, info.live))
            for info in judged
            if (known := before.get(info.segment)) is not None
        }
        self._reconciled[disk.number] = seen
        for info in judged:
            if info.segment in seen and info.live <= before[info.segment].live:
                continue
            if not budget.left:
                return None
            count, size, overhead = await in_thread(_release_dead, disk, self._ground.state, info.segment)
            released += count
            seen[info.segment] = _Judged(max(0, info.live - size), overhead)
            budget.rows -= 1
        return released

    # -- rewriting

    async def _compact(self, candidate: _Candidate) -> None:
        """Rewrite one segment, or note that it has to wait."""
        ground, segment = self._ground, candidate.segment
        disk = ground.disks[candidate.disk]
        is_live = liveness(ground.state, disk.number)
        asked = (0, b"")

        def remembering(owner: int, owner_id: bytes, write_id: bytes, index: int) -> bool:
            nonlocal asked
            asked = owner, owner_id
            return is_live(owner, owner_id, write_id, index)

        decided = undecided(ground)
        try:
            freed = await in_thread(disk.compact, segment, remembering, decided)
        except Corrupt as error:
            log.warning("the compaction of a segment waits for a repair: %s", error.message)
            await self._on_damage(*asked)
        else:
            if await in_thread(_is_gone, disk, segment):
                self.bytes_freed += freed
                self.segments_done += 1
                return
        self._not_before[segment] = ground.host.clock.monotonic() + _RETRY_SECONDS


def _live_share(info: SegmentInfo, judged: _Judged | None) -> float:
    """How much of what could be dead is alive: a segment of which nothing is dead has 1, however small its shards."""
    size = info.total - (judged.overhead if judged is not None else 0)
    return info.live / size if size > 0 else 0.0


def _release_dead(disk: LocalDisk, state: State, segment: SegmentId) -> tuple[int, int, int]:
    """Forget the shards of a closed segment that no row names; returns how many, their bytes, and those of the
    segment's header and footer."""
    read = recovery.read_headers(disk.host, disk.path, disk.identity, segment)
    if read is None:
        return 0, 0, 0
    size = 0
    overhead = _overhead(read[0], sealed=read[1])
    is_live = liveness(state, disk.number)
    dead: list[tuple[bytes, int]] = []
    for extent in read[0]:
        header = extent.header
        try:
            if is_live(header.owner, header.owner_id, header.write_id, header.index):
                continue
        except OstrakaError as error:
            log.warning("a shard of %s is kept: %s", header.owner_id.hex(), error)
            continue
        if disk.index.get(header.write_id, header.index) is not None:
            dead.append((header.write_id, header.index))
            size += extent.size
    if dead:
        disk.release(dead)
    return len(dead), size, overhead


def _overhead(extents: Sequence[Extent], *, sealed: bool) -> int:
    """Bytes of a segment's header, and of its footer if it has one."""
    direct = any(extent.header.data_offset % DIRECT_ALIGNMENT == 0 for extent in extents)
    alignment = DIRECT_ALIGNMENT if direct else BUFFERED_ALIGNMENT
    footer = footer_size((len(extent.header.cells) // CELL_SUM_SIZE for extent in extents), alignment) if sealed else 0
    return align(SEGMENT_HEADER_SIZE, alignment) + footer


def _is_gone(disk: LocalDisk, segment: SegmentId) -> bool:
    return segment not in recovery.segment_ids(disk.host, disk.path)
