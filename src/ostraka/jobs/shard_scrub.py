"""The scrub of shards: damage at rest is found before a second one meets it.

Two walks, and each finds what the other cannot see.

- *Disks*: every segment of every disk is read from front to back (segments/sweep.py), each disk at its own pace, and
  every record that the disk's index names is verified. What the index says to be in a segment and the segment does not
  show is looked for as well, so that a torn header or a cut file hides nothing.
- *Rows*: every stripe that a row names is held against the indexes of its disks: a shard that a disk has not, or says
  to lie in a file that is gone, is missing.

What looks bad is asked for once more in the way that readers do, since segments move under us; what is bad then is
journaled (damage.py), and healed. Where a walk is, is kept in the state, a segment at a time.
"""

import logging
from collections.abc import Iterable
from typing import NamedTuple

from ostraka.errors import Absent, Corrupt, OstrakaError
from ostraka.host import Clock
from ostraka.jobs.damage import owner_on
from ostraka.jobs.ground import Ground
from ostraka.jobs.records import DiskScrub
from ostraka.jobs.stripes import Named, pages, read_named
from ostraka.nodes import recovery
from ostraka.nodes.local import LocalDisk
from ostraka.segments.format import SegmentId
from ostraka.segments.sweep import Sweep
from ostraka.segments.writer import Extent

log = logging.getLogger("ostraka.jobs")

Shard = tuple[int, bytes, int]  # (disk, write id, index)
OwnerName = tuple[int, bytes]  # (owner, owner id)


class Pace:
    """How much may be read of one disk, by the clock: after n bytes it rests for n / rate seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = clock.monotonic()

    @property
    def rests(self) -> float:
        """Seconds until the next byte."""
        return max(0.0, self._next - self._clock.monotonic())

    def took(self, size: int, rate: float) -> None:
        self._next = max(self._next, self._clock.monotonic() - 1.0) + size / rate


class Found(NamedTuple):
    """What a piece of a walk came to. ``hurt``: owners of what is bad; ``nameless``: bad shards whose owner nobody
    could tell. ``ended``: the walk is at its end."""

    hurt: set[OwnerName]
    nameless: set[Shard]
    damaged: int = 0
    missing: int = 0
    shards: int = 0
    size: int = 0
    ended: bool = False


class DiskWalk:
    """One pass over one disk. Blocking: for a thread, one call at a time."""

    def __init__(self, ground: Ground, disk: LocalDisk, record: DiskScrub) -> None:
        self.disk = disk
        self._ground = ground
        self._segment = record.segment
        self._sweep: Sweep | None = None
        self._seen: set[tuple[bytes, int]] = set()  # of the segment that is read: shards that the index has there
        self._seen_size = 0
        self.done = record.bytes
        self.total = record.bytes + self._left()

    @property
    def segment(self) -> SegmentId:
        """The last one that was read to its end."""
        return self._segment

    def _left(self) -> int:
        return sum(max(info.total, info.live) for info in self.disk.index.segments() if info.segment > self._segment)

    def step(self, clock: Clock, seconds: float, size_max: int) -> Found:
        """Read for so long, or so much, a block at least. Raises OSError when the disk fails."""
        until = clock.monotonic() + seconds
        hurt: set[OwnerName] = set()
        nameless: set[Shard] = set()
        damaged = missing = shards = size = 0
        ended = False
        while not ended and size < size_max and clock.monotonic() < until:
            if self._sweep is None and not self._open_next():
                ended = True
                break
            assert self._sweep is not None
            swept = self._sweep.step()
            size += swept.size
            shards += len(swept.records)
            suspects = [extent for extent, good in swept.records if self._named(extent) and not good]
            if self._sweep.ended:
                suspects += self._close()
            for extent in suspects:
                state = self._asked_again(extent)
                damaged += state == "damaged"
                missing += state == "missing"
                if state:
                    self._tell(extent, hurt, nameless)
        self.done += size
        return Found(hurt, nameless, damaged, missing, shards, size, ended)

    def _open_next(self) -> bool:
        while True:
            after = [
                segment for segment in recovery.segment_ids(self.disk.host, self.disk.path) if segment > self._segment
            ]
            if not after:
                return False
            segment = min(after)
            self._sweep = self.disk.sweep(segment)
            self._seen, self._seen_size = set(), 0
            if self._sweep is not None:
                return True
            self._segment = segment  # unlinked meanwhile

    def _named(self, extent: Extent) -> bool:
        """Whether the index says that the shard lies here: else it is dead, or moved, or not written yet."""
        write_id, index = extent.header.write_id, extent.header.index
        named = self.disk.index.get(write_id, index)
        if named is None or (named.segment, named.offset) != (extent.segment, extent.offset):
            return False
        self._seen.add((write_id, index))
        self._seen_size += extent.size
        return True

    def _close(self) -> list[Extent]:
        """The segment is read. What the index says to lie there, and it did not show."""
        assert self._sweep is not None
        segment = self._segment = self._sweep.segment
        self._sweep.close()
        self._sweep = None
        info = self.disk.index.segment(segment)
        if info.live <= self._seen_size or not (
            info.sealed or info.incarnation not in self._ground.live_incarnations()
        ):
            return []  # all of it was seen, or more is written to it
        return [e for e in self.disk.index.named_in(segment) if (e.header.write_id, e.header.index) not in self._seen]

    def _asked_again(self, extent: Extent) -> str:
        return state_of(self.disk, extent.header.write_id, extent.header.index)

    def _tell(self, extent: Extent, hurt: set[OwnerName], nameless: set[Shard]) -> None:
        header = extent.header
        if header.owner_id:
            hurt.add((header.owner, header.owner_id))
            return
        for disk in askable(self._ground).values():
            for index in range(header.k + header.m):
                owner = owner_on(disk, header.write_id, index)
                if owner is not None:
                    hurt.add((int(owner[0]), owner[1]))
                    return
        nameless.add((self.disk.number, header.write_id, header.index))

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.close()
            self._sweep = None


def state_of(disk: LocalDisk, write_id: bytes, index: int) -> str:
    """ "damaged", "missing", or "": it is well. Raises OSError when the disk cannot say."""
    try:
        disk.verify(write_id, index)
    except Corrupt:
        return "damaged"
    except Absent:
        return "missing"
    return ""


# -- rows


def hold_rows(ground: Ground, cursor: bytes, rows_max: int, nameless: Iterable[Shard]) -> tuple[Found, bytes]:
    """Hold up to so many rows against the disks, from the cursor on; the cursor for the next piece. Blocking.

    Disks that are away or healing are passed over: healing verifies what they hold.
    """
    disks = askable(ground)
    files = {number: set(recovery.segment_ids(disk.host, disk.path)) for number, disk in disks.items()}
    known = set(nameless)
    hurt: set[OwnerName] = set()
    damaged = missing = shards = 0
    page = next(pages(ground.state, cursor, rows_max), [])
    for key, value in page:
        cursor = key + b"\0"
        try:
            named = read_named(key, value)
        except OstrakaError as error:
            log.error("the scrub passes over a row: %s", error.message)
            continue
        for index, number in enumerate(() if named.stripe.pool else named.stripe.disks):
            disk = disks.get(number)
            if disk is None:
                continue
            shards += 1
            extent = disk.index.get(named.stripe.write_id, index)
            here = extent is not None and extent.segment in files[number]
            if here and (number, named.stripe.write_id, index) not in known:
                continue
            state = _state_in_row(ground, disk, named, index)
            damaged += state == "damaged"
            missing += state == "missing"
            if state:
                hurt.add((int(named.owner), named.owner_id))
    return Found(hurt, set(), damaged, missing, shards, 0, ended=not page), cursor


def _state_in_row(ground: Ground, disk: LocalDisk, named: Named, index: int) -> str:
    """How a shard is that the row names still."""
    state = state_of(disk, named.stripe.write_id, index)
    if not state:
        return ""
    value = ground.state.get(named.key)
    return state if value is not None and read_named(named.key, value).stripe == named.stripe else ""


def askable(ground: Ground) -> dict[int, LocalDisk]:
    """Disks whose shards count."""
    membership = ground.membership
    healing = {member.number for member in membership.epoch.members if member.healing}
    return {
        number: disk
        for number, disk in ground.disks.items()
        if number not in healing and membership.disk(number) is disk
    }
