"""The scrub: all that is stored is read and verified within a period, before a second damage meets the first.

Three parts, each with a period that is counted over restarts: the state (state_scrub.py), every disk by itself, and the
rows against the disks (shard_scrub.py). Disks are read at the same time, each at a pace that keeps the period, between
two bounds; when an operator asks for it, all begins anew at once and goes at the upper bound.
"""

import asyncio
import logging
from typing import Any

import msgspec

from ostraka.errors import Corrupt, OstrakaError, Refused
from ostraka.jobs.damage import DamageJournal
from ostraka.jobs.ground import Budget, Ground, Job, Progress, in_thread
from ostraka.jobs.records import SCRUB_KEY, DiskScrub, RowScrub, ScrubRecord, decode, encode
from ostraka.jobs.shard_scrub import DiskWalk, Found, Pace, Shard, askable, hold_rows
from ostraka.jobs.state_scrub import StateFinding, scrub_state
from ostraka.nodes.local import LocalDisk
from ostraka.state.types import Mutation, Put, State

log = logging.getLogger("ostraka.jobs")

_SAVE_SECONDS = 10.0  # how much of a walk is done again, at most, after a kill: and a segment
_RETRY_SECONDS = 60.0  # after a disk could not be read
_ROWS = 500  # held against the disks in one piece
_IN_TIME = 0.8  # of the period, that a pass may take: the rest is for who was late
_NAMELESS_MAX = 10_000
_RESTS_SECONDS_MAX = 0.05  # a disk that rests no longer is waited for


class Scrub(Job):
    name = "scrub"
    purpose = "verifies every byte of the state and of every shard"
    paused_means = "damage at rest is not looked for"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._record = self._load()
        self._journal = DamageJournal(ground.state, ground.host.clock)
        self._started = ground.host.clock.time()  # recovery has looked at all of the state
        self._state_now = False
        self._walks: dict[int, DiskWalk] = {}
        self._paces: dict[int, Pace] = {}
        self._not_before: dict[int, float] = {}  # disks that could not be read, until when
        self._nameless: set[Shard] = set()
        self._saved_at = 0.0
        self._saved = self._record
        self._walking = asyncio.Lock()  # an operator's word comes between two pieces
        self.findings: list[StateFinding] = []  # of the last scrub of the state
        self.damaged = self.missing = 0  # shards that were found so, since the start

    # -- what an operator says

    async def begin(self) -> None:
        """All of it anew; one that was asked for before, and was cut short, goes on."""
        async with self._walking:
            if self._record.asked:
                return
            await self._meet()
            now = self._ground.host.clock.time()
            self._state_now = True
            self._drop_walks()
            rows = msgspec.structs.replace(self._record.rows, began=now, cursor=b"", rows=0, bad=0)
            await self._save(msgspec.structs.replace(self._record, asked=now, rows=rows, disks=self._begun(now)))

    async def cancel(self) -> str:
        async with self._walking:
            if not self._record.asked:
                raise Refused(
                    "nobody began a scrub: that by period is always there, `ostraka job pause scrub` holds it",
                    reason="always",
                )
            self._drop_walks()
            self._state_now = False
            disks = tuple(msgspec.structs.replace(disk, began=0.0, segment=b"") for disk in self._record.disks)
            rows = msgspec.structs.replace(self._record.rows, began=0.0, cursor=b"")
            await self._save(msgspec.structs.replace(self._record, asked=0.0, disks=disks, rows=rows))
        return "the scrub that was begun is ended; what it found is journaled"

    def _begun(self, now: float) -> tuple[DiskScrub, ...]:
        known = {disk.disk: disk for disk in self._record.disks}
        for number in askable(self._ground):
            known[number] = msgspec.structs.replace(known.get(number, DiskScrub(number, now)), **_fresh(now))
        return tuple(known[number] for number in sorted(known))

    # -- pieces

    async def run_once(self, budget: Budget) -> Progress:
        async with self._walking:
            await self._meet()
            state_due = await self._scrub_state()
            await self._begin_due()
            found = await self._step(budget)
            if self._rows_under_way and not found.size and budget.left:
                found = await self._step_rows(found)
            await self._end(found)
            return self._progress(found, state_due)

    def _progress(self, found: Found, state_due: float) -> Progress:
        """Where the walks are. ``more``: one of them may go on at once."""
        now = self._ground.host.clock.monotonic()
        rests = [max(self._paces[number].rests, self._not_before.get(number, now) - now) for number in self._walks] + [
            0.0
        ] * self._rows_under_way
        dues = [state_due, *(rests if rests else self._dues())]
        return Progress(
            sum(walk.done for walk in self._walks.values()),
            sum(walk.total for walk in self._walks.values()) if self._walks else None,
            more=bool(rests) and min(rests) <= _RESTS_SECONDS_MAX,
            again_in=max(0.0, min(dues)),
            note=self._note(),
            under_way=bool(rests),
            did=found.shards,
            bytes=found.size,
        )

    def _note(self) -> str:
        if not self.damaged and not self.missing:
            return ""
        return f"{self.damaged} shards were damaged and {self.missing} missing: they are journaled to be healed"

    async def _step(self, budget: Budget) -> Found:
        """A piece of each disk that does not rest, all at the same time."""
        clock, limits = self._ground.host.clock, self._ground.limits
        turns = [
            walk
            for number, walk in self._walks.items()
            if self._paces[number].rests <= 0 and self._not_before.get(number, 0.0) <= clock.monotonic()
        ]
        if not turns:
            return Found(set(), set())
        seconds = limits.jobs_piece_seconds
        steps = [in_thread(walk.step, clock, seconds, int(self._rate(walk))) for walk in turns]
        results = await asyncio.gather(*steps, return_exceptions=True)
        whole = Found(set(), set())
        for walk, result in zip(turns, results, strict=True):
            number = walk.disk.number
            if isinstance(result, OSError | OstrakaError):
                log.warning("disk %d cannot be scrubbed now: %s", number, result)
                self._not_before[number] = clock.monotonic() + _RETRY_SECONDS
            elif isinstance(result, BaseException):
                raise result
            else:
                self._paces[number].took(result.size, self._rate(walk))
                self._walked(walk, result)
                whole = _added(whole, result)
        return whole

    def _rate(self, walk: DiskWalk) -> float:
        """Bytes a second of that disk."""
        limits = self._ground.limits
        if self._record.asked:
            return limits.scrub_bytes_per_second_max
        if limits.scrub_bytes_per_second:
            return limits.scrub_bytes_per_second
        needed = walk.total / (limits.scrub_seconds * _IN_TIME) if limits.scrub_seconds else 0.0
        return min(max(needed, limits.scrub_bytes_per_second_min), limits.scrub_bytes_per_second_max)

    def _walked(self, walk: DiskWalk, found: Found) -> None:
        """Note how far a disk is."""

        def further(disk: DiskScrub) -> DiskScrub:
            disk = msgspec.structs.replace(
                disk,
                segment=walk.segment,
                bytes=walk.done,
                shards=disk.shards + found.shards,
                bad=disk.bad + found.damaged + found.missing,
            )
            return msgspec.structs.replace(disk, since=disk.began, began=0.0, segment=b"") if found.ended else disk

        number = walk.disk.number
        disks = tuple(further(disk) if disk.disk == number else disk for disk in self._record.disks)
        self._record = msgspec.structs.replace(self._record, disks=disks)
        if found.ended:
            self._walks.pop(number).close()

    @property
    def _rows_under_way(self) -> bool:
        """Rows are held against the disks last: then what the disks found without a name gets one."""
        return self._record.rows.began > 0 and not self._walks

    async def _step_rows(self, before: Found) -> Found:
        record = self._record.rows
        found, cursor = await in_thread(hold_rows, self._ground, record.cursor, _ROWS, self._nameless)
        record = msgspec.structs.replace(
            record,
            cursor=cursor,
            rows=record.rows + (0 if found.ended else 1),
            bad=record.bad + found.damaged + found.missing,
        )
        if found.ended:
            self._nameless.clear()
            record = msgspec.structs.replace(record, since=record.began, began=0.0, cursor=b"")
        self._record = msgspec.structs.replace(self._record, rows=record)
        return _added(before, found)

    async def _end(self, found: Found) -> None:
        """What comes of a piece: the journal first, then where we are."""
        self.damaged += found.damaged
        self.missing += found.missing
        board = self._ground.board
        board.add(board.cell("ostraka_scrub_damage_total", "damaged"), found.damaged)
        board.add(board.cell("ostraka_scrub_damage_total", "missing"), found.missing)
        oldest = min((disk.since or disk.known for disk in self._record.disks), default=0.0)
        board.set(board.cell("ostraka_scrub_verified_timestamp_seconds"), oldest)
        self._nameless.update(list(found.nameless)[: max(0, _NAMELESS_MAX - len(self._nameless))])
        if found.hurt:
            log.warning("the scrub found %d damaged and %d missing shards", found.damaged, found.missing)
            await self._journal.owners(found.hurt)
        if self._record.asked and not self._walks and not self._rows_under_way:
            self._record = msgspec.structs.replace(self._record, asked=0.0)
        now = self._ground.host.clock.monotonic()
        ended = self._under_way(self._record) != self._under_way(self._saved)
        if self._record != self._saved and (ended or now >= self._saved_at + _SAVE_SECONDS):
            await self._save(self._record)

    @staticmethod
    def _under_way(record: ScrubRecord) -> list[float]:
        """What a kill must not undo: which passes there are."""
        return [record.asked, record.rows.began, *(disk.began for disk in record.disks)]

    # -- what is due

    async def _meet(self) -> None:
        """Disks that are new get a line, those that are gone lose theirs."""
        membership, now = self._ground.membership, self._ground.host.clock.time()
        known = {disk.disk: disk for disk in self._record.disks if not membership.gone(disk.disk)}
        for number in askable(self._ground):
            known.setdefault(number, DiskScrub(number, now))
        rows = self._record.rows if self._record.rows.known else RowScrub(now)
        met = msgspec.structs.replace(self._record, disks=tuple(known[number] for number in sorted(known)), rows=rows)
        if met != self._record:
            await self._save(met)

    async def _begin_due(self) -> None:
        now = self._ground.host.clock.time()
        disks = tuple(
            msgspec.structs.replace(disk, **_fresh(now)) if not disk.began and self._due(disk) <= 0 else disk
            for disk in self._record.disks
        )
        rows = self._record.rows
        if not rows.began and self._due(rows) <= 0:
            rows = msgspec.structs.replace(rows, began=now, cursor=b"", rows=0, bad=0)
        if (disks, rows) != (self._record.disks, self._record.rows):
            await self._save(msgspec.structs.replace(self._record, disks=disks, rows=rows))
        await self._walk_on()

    async def _walk_on(self) -> None:
        """A walk for each pass that is under way on a disk that can be asked; none on others."""
        disks = askable(self._ground)
        for number, walk in list(self._walks.items()):
            if disks.get(number) is not walk.disk:
                self._walks.pop(number).close()
        for record in self._record.disks:
            disk = disks.get(record.disk)
            if not record.began or record.disk in self._walks or disk is None:
                continue
            self._paces.setdefault(record.disk, Pace(self._ground.host.clock))
            self._walks[record.disk] = await in_thread(self._walk, disk, record)

    def _walk(self, disk: LocalDisk, record: DiskScrub) -> DiskWalk:
        return DiskWalk(self._ground, disk, record)

    def _dues(self) -> list[float]:
        records: list[DiskScrub | RowScrub] = [*self._record.disks, self._record.rows]
        return [self._due(record) for record in records if not record.began]

    def _due(self, record: DiskScrub | RowScrub) -> float:
        """Seconds until its next pass; a wall clock that went back does not put it off by more than a period."""
        limits, now = self._ground.limits, self._ground.host.clock.time()
        if not limits.scrub_seconds:
            return limits.state_scrub_seconds
        if not 0 < record.since <= now:
            first = min(limits.scrub_first_seconds, limits.scrub_seconds)
            return min(record.known, now) + first - now
        return record.since + limits.scrub_seconds - now

    # -- the state

    async def _scrub_state(self) -> float:
        """Scrub the state if it is due; seconds until it is the next time."""
        ground = self._ground
        due = self._state_due()
        if due > 0 and not ground.state.index_suspect and not self._state_now:
            return due
        self.findings, _ = await scrub_state(ground, repair=True)
        self._state_now = False
        for finding in self.findings:
            level = logging.WARNING if finding.repaired else logging.ERROR
            log.log(level, "the state was damaged (%s): %s", "repaired" if finding.repaired else "left", finding.what)
        await self._save(msgspec.structs.replace(self._record, finished=ground.host.clock.time()))
        return self._state_due()

    def _state_due(self) -> float:
        """As `_due`."""
        period = self._ground.limits.state_scrub_seconds
        now = self._ground.host.clock.time()
        last = max((t for t in (self._record.finished, self._started) if t <= now), default=now - period)
        return max(0.0, last + period - now)

    # -- where we are

    def close(self) -> None:
        self._drop_walks()

    def _drop_walks(self) -> None:
        while self._walks:
            self._walks.popitem()[1].close()

    async def _save(self, record: ScrubRecord) -> None:
        await self._ground.state.commit(Mutation((), [Put(SCRUB_KEY, encode(record))]))
        self._record = self._saved = record
        self._saved_at = self._ground.host.clock.monotonic()

    def _load(self) -> ScrubRecord:
        try:
            return _decoded(self._ground.state)
        except Corrupt as error:
            log.warning("%s; all is scrubbed anew", error.message)
            return ScrubRecord()

    @classmethod
    def recorded(cls, state: State) -> tuple[int, str]:
        record = _decoded(state)
        under_way = record.asked or record.rows.began or any(disk.began for disk in record.disks)
        done = sum(disk.bytes for disk in record.disks if disk.began)
        return done, "a pass was begun" if under_way else "finished before" if record.finished else ""

    def details(self) -> dict[str, Any]:
        limits, record = self._ground.limits, self._record
        return {
            **super().details(),
            "period_seconds": limits.scrub_seconds,
            "bytes_per_second": limits.scrub_bytes_per_second or "what keeps the period",
            "bytes_per_second_max": limits.scrub_bytes_per_second_max,
            "state_verified": record.finished,
            "rows_verified_since": record.rows.since,
            "verified_since": {str(disk.disk): disk.since for disk in record.disks},
            "bad_in_this_pass": sum(disk.bad for disk in record.disks) + record.rows.bad,
            "asked": record.asked,
        }


def _fresh(now: float) -> dict[str, Any]:
    """A pass at its beginning."""
    return {"began": now, "segment": b"", "bytes": 0, "shards": 0, "bad": 0}


def _added(one: Found, other: Found) -> Found:
    return Found(
        one.hurt | other.hurt,
        one.nameless | other.nameless,
        one.damaged + other.damaged,
        one.missing + other.missing,
        one.shards + other.shards,
        one.size + other.size,
    )


def _decoded(state: State) -> ScrubRecord:
    value = state.get(SCRUB_KEY)
    if value is None:
        return ScrubRecord()
    record = decode(SCRUB_KEY, value)
    assert isinstance(record, ScrubRecord)
    return record
