"""Rebalancing: shards go to where the ring would put them today, and disks that are to leave are emptied (ENGINE 4).

A pass over all stripes is begun by a change of the layout (`records.Layout`): a disk joined, came back, is drained or
no longer is, or the geometry is another. It moves the fewest shards that make each stripe lie where it would be
written now (`nodes.ring.moves`, `stripes.relocate`), completes stripes that were written narrower while disks were
missing, and, if an operator asked for that, rewrites those of another geometry. Its place is kept in the state.
Healing comes first: as long as it has disks to look after, nothing is moved.

Shards of a disk that is merely down are waited for, and while one is, only disks that are drained are emptied.

Writes that chose their disks before the change may commit behind the pass. So a pass counts only if none was in
flight when it began (`shared.InFlight`, and no process that died is still to be fenced); else it is made once more.
Then no row names a drained disk, and none ever will: an epoch takes it out, and its directory may go.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from ostraka.errors import Corrupt, Full, OstrakaError, Refused, Unavailable
from ostraka.jobs import heal
from ostraka.jobs.ground import Budget, Ground, Job, Progress, in_thread, together
from ostraka.jobs.records import REBALANCE_KEY, Layout, RebalanceRecord, decode, encode
from ostraka.jobs.stripes import MOVES_MAX, Named, pages, read_named, relocate, rewrite
from ostraka.nodes import ring
from ostraka.nodes.superblock import Epoch
from ostraka.objects.rows import INCARNATION
from ostraka.state.tables import rows_under
from ostraka.state.types import Mutation, Put, State

log = logging.getLogger("ostraka.jobs")

PAGE = 64
AT_ONCE = 4  # stripes that are changed at the same time
_RETRY_SECONDS = 60.0  # after a pass that had to leave something
_SETTLE_SECONDS = 1.0  # how often it is looked whether the writes that were in flight have ended


class _Change(NamedTuple):
    """What is to become of a stripe. ``targets``: shards that move; None: it is written anew. ``needed``: the pass is
    not done without it; else it is only better so."""

    named: Named
    targets: dict[int, int] | None
    needed: bool


class _Outcome(NamedTuple):
    """What became of it. "left": it has to be tried again; "held": it may stay as it is."""

    how: Literal["placed", "moved", "left", "held"]
    size: int = 0  # bytes that were written


class _View(NamedTuple):
    """The store as one piece of work takes it to be."""

    geometry: tuple[int, int]  # of a stripe that is written now
    full: bool  # which is the store's own
    level: bool  # every disk that stays is up
    leaving: frozenset[int]


def layout_of(epoch: Epoch) -> Layout:
    """What an epoch says of where shards belong."""
    return Layout(
        epoch.k,
        epoch.m,
        tuple((d.number, d.since) for d in epoch.members if not d.draining),
        tuple((d.number, d.draining) for d in epoch.members if d.draining),
    )


def load(ground: Ground) -> RebalanceRecord:
    """What is on record. A record that cannot be read costs a pass: everything is looked at again."""
    value = ground.state.get(REBALANCE_KEY)
    if value is None:
        return RebalanceRecord()
    try:
        record = decode(REBALANCE_KEY, value)
        assert isinstance(record, RebalanceRecord)
        return record
    except Corrupt as error:
        log.warning("%s; all stripes are looked at again", error.message)
        return RebalanceRecord()


async def save(ground: Ground, record: RebalanceRecord) -> None:
    await ground.state.commit(Mutation((), [Put(REBALANCE_KEY, encode(record))]))


def pending(ground: Ground) -> bool:
    """Whether there is something to move, or a disk to be taken out."""
    record, layout = load(ground), layout_of(ground.membership.epoch)
    return record.layout != layout or not record.ended or bool(layout.leaving)


def waits_for_opening(ground: Ground) -> bool:
    """Whether all that is left to be done is done when the store is opened next: the disk that is to leave has the
    index of the state, and nobody can have the store opened anew."""
    record, layout = load(ground), layout_of(ground.membership.epoch)
    if record.layout != layout or not record.ended or ground.jobs is None or ground.reopen is not None:
        return False
    members = {d.number: d for d in ground.membership.epoch.members}
    return all(ground.holds_index(number) and not members[number].state for number, _ in layout.leaving)


class Rebalance(Job):
    name = "rebalance"
    purpose = "moves shards to where they belong as disks come and go"
    paused_means = "drained disks are not emptied, and added ones take no old data"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._not_before = 0.0
        self._asked_to_reopen = False
        self._did = self._bytes = 0  # of this piece
        self.record = RebalanceRecord()

    async def run_once(self, budget: Budget) -> Progress:
        async with heal.turn(self._ground):  # only one of us changes stripes
            progress = await self.step(budget)
            did, self._did = self._did, 0
            size, self._bytes = self._bytes, 0
            return msgspec.structs.replace(progress, did=did, bytes=size)

    async def cancel(self) -> str:
        """A conversion is an operator's; that shards lie where the ring wants them is not."""
        async with heal.turn(self._ground):
            record = load(self._ground)
            if not record.convert or record.ended:
                raise Refused(
                    "no conversion is under way: a drain ends by `ostraka disk drain --cancel DISK`, and "
                    "`ostraka job pause rebalance` holds all of it",
                    reason="always",
                )
            await self._save(msgspec.structs.replace(record, convert=False))
        return "the conversion is ended: what was not rewritten yet keeps its geometry"

    @classmethod
    def recorded(cls, state: State) -> tuple[int, str]:
        value = state.get(REBALANCE_KEY)
        if value is None:
            return 0, ""
        record = decode(REBALANCE_KEY, value)
        assert isinstance(record, RebalanceRecord)
        return record.examined, "" if record.ended or record.layout is None else "a pass was begun"

    def details(self) -> dict[str, Any]:
        record = load(self._ground)
        found = {"moved": record.moved, "moved_bytes": record.moved_bytes, "left": record.left, "held": record.held}
        return {**super().details(), **found, "converting": record.convert and not record.ended}

    async def step(self, budget: Budget) -> Progress:
        """As `run_once`, by a caller that has the turn."""
        ground = self._ground
        ground.membership.disk(-1)  # takes over what another process changed
        waiting, self.record = self.record, load(ground)
        epoch = ground.membership.epoch
        layout = layout_of(epoch)
        if self.record.layout == layout and self.record.ended and not layout.leaving:
            return self._progress()
        if heal.pending(ground):
            return self._progress(note="waits for healing", again_in=_RETRY_SECONDS)
        if self.record.layout != layout:
            self._not_before = 0.0
            await self._begin(layout, epoch.number)
        wait = self._not_before - ground.host.clock.monotonic()
        if wait > 0:
            self.record = waiting
            return self._progress(again_in=wait, note=self._waits_for())
        if not self.record.ended:
            if not await self._walk(budget):
                return self._progress(more=True)
            pause = await self._end()
            if pause is not None:
                self._not_before = ground.host.clock.monotonic() + pause
                return self._progress(more=not pause, again_in=pause or None, note=self._waits_for() if pause else "")
        return await self._take_out()

    def _progress(self, *, more: bool = False, again_in: float | None = None, note: str = "") -> Progress:
        record = self.record
        if not note and record.held:
            note = f"{record.held} stripes stay where they are: their new disks have no room, or are away"
        return Progress(record.examined, max(record.total, record.examined) or None, more, again_in, note)

    def _waits_for(self) -> str:
        if self.record.left:
            return f"{self.record.left} stripes could not be changed yet: see the log"
        return "waits for the end of writes that had begun before"

    # -- a pass

    async def _begin(self, layout: Layout, since: int) -> None:
        """A pass from the start; what is known of old geometries stays known."""
        record = self.record
        await self._save(
            RebalanceRecord(
                layout=layout,
                since=since,
                settled=self._settled(since),
                total=heal.stripes_kept(self._ground.state),
                old=record.old,
                convert=record.convert,
            )
        )

    def _settled(self, since: int) -> bool:
        """Whether no write is undecided that may have chosen its disks before that epoch."""
        ground = self._ground
        if ground.in_flight.oldest() < since:
            return False
        alive = ground.live_incarnations()
        return all(key[1:] in alive for key, _ in rows_under(ground.state, INCARNATION))

    async def _walk(self, budget: Budget) -> bool:
        """Go on with the pass; True when it is at its end."""
        ground, began = self._ground, self.record
        view = self._view()
        for page in pages(ground.state, began.cursor, PAGE):
            budget.rows -= len(page)
            examined = self.record.examined
            changes = [(n, change) for n, row in enumerate(page, 1) if (change := self._judge(row, view)) is not None]
            for start in range(0, len(changes), AT_ONCE):
                batch = changes[start : start + AT_ONCE]
                outcomes = await together([self._apply(change, view) for _, change in batch])
                self._note(batch[-1][1].named.key, examined + batch[-1][0], outcomes)
                if not budget.left:
                    await self._save(self.record)
                    return False
            self._note(page[-1][0], examined + len(page), ())
            if not budget.left:
                await self._save(self.record)
                return False
        return True

    def _note(self, key: bytes, examined: int, outcomes: Sequence[_Outcome]) -> None:
        record = self.record
        self._did += sum(o.how == "moved" for o in outcomes)
        self._bytes += sum(o.size for o in outcomes)
        self.record = msgspec.structs.replace(
            record,
            cursor=key + b"\0",
            examined=examined,
            moved=record.moved + sum(o.how == "moved" for o in outcomes),
            moved_bytes=record.moved_bytes + sum(o.size for o in outcomes),
            left=record.left + sum(o.how == "left" for o in outcomes),
            held=record.held + sum(o.how == "held" for o in outcomes),
        )

    def _view(self) -> _View:
        membership, pool = self._ground.membership, self._ground.pool
        epoch = membership.epoch
        geometry = pool.geometry()
        return _View(
            geometry,
            geometry == (epoch.k, epoch.m),
            all(d.up and d.number in self._ground.disks for d in epoch.members if not d.draining),
            frozenset(membership.draining()),
        )

    def _judge(self, row: tuple[bytes, bytes], view: _View) -> _Change | None:
        """What has to be done about a row; None: nothing."""
        try:
            named = read_named(*row)
        except Corrupt as error:
            log.error("rebalancing passes over a row: %s", error.message)
            return None
        stripe, record = named.stripe, self.record
        if stripe.pool:
            return None  # it is on no disk of ours
        if any(self._ground.membership.gone(number) for number in stripe.disks):
            return None  # that is for healing
        geometry = (stripe.k, stripe.m)
        if geometry != view.geometry:
            if record.convert:
                return _Change(named, None, needed=True)
            narrow = stripe.m == view.geometry[1] and stripe.k < view.geometry[0] and geometry not in record.old
            if narrow and view.level:
                return _Change(named, None, needed=False)
        targets = ring.moves(stripe.disks, self._ground.pool.order(stripe.write_id), view.leaving, level=view.level)
        leaving = [index for index, number in enumerate(stripe.disks) if number in view.leaving]
        if any(index not in targets for index in leaving):  # no disk is left for it: the stripe becomes another
            return _Change(named, None, needed=True)
        return _Change(named, targets, needed=bool(leaving)) if targets else None

    async def _apply(self, change: _Change, view: _View) -> _Outcome:
        wanted: _Change | None = change
        for _ in range(MOVES_MAX):
            if wanted is None:
                return _Outcome("placed")
            outcome = await self._try(wanted, view)
            if outcome is not None:
                return outcome
            value = self._ground.state.get(change.named.key)
            wanted = None if value is None else self._judge((change.named.key, value), view)
        return _Outcome("left")

    async def _try(self, change: _Change, view: _View) -> _Outcome | None:
        """One try; None when the row changed meanwhile."""
        named, failed = change.named, _Outcome("left" if change.needed else "held")
        try:
            if change.targets is not None:
                new = await relocate(self._ground, named, change.targets)
                if new is None:
                    return None
                count = sum(a != b for a, b in zip(named.stripe.disks, new.disks, strict=True))
                still = any(number in view.leaving for number in new.disks)
                return _Outcome("left" if still else "moved", count * new.shard_size)
            if self.record.convert and not view.full:
                return failed  # it would be narrower than what it shall become
            result = await rewrite(self._ground, named)
        except (Corrupt, Unavailable, Full, OSError) as error:
            log.warning("%s is not moved: %s", named.name, error)
            return failed
        if result is None:
            return None
        if result.outcome == "repaired":
            return _Outcome("moved", named.stripe.length)
        log.warning("%s is not rewritten: %s", named.name, result.note)
        return failed

    # -- its end

    async def _end(self) -> float | None:
        """The pass came to its end. None: so it is done; else seconds until it goes on, or begins again."""
        record = self.record
        if record.settled and not record.left:
            old = () if record.convert else record.old
            await self._save(msgspec.structs.replace(record, ended=True, old=old, convert=False))
            log.info("shards are where they belong: %d stripes were changed", record.moved)
            return None
        settled = self._settled(record.since)
        if not settled and not record.left:
            await self._save(record)
            return _SETTLE_SECONDS
        again = msgspec.structs.replace(record, cursor=b"", examined=0, left=0, held=0, settled=settled)
        await save(self._ground, again)
        if not record.left:
            self.record = again
            return 0.0
        return _RETRY_SECONDS  # what is told meanwhile is of the pass that ended

    async def _take_out(self) -> Progress:
        """Disks that no row names any more leave the store."""
        ground = self._ground
        assert self.record.layout is not None
        waits = ""
        for number, since in self.record.layout.leaving:
            member = ground.membership.epoch.member(number)
            if member is None or member.draining != since:
                continue
            if member.state:  # the heal job makes another copy, and takes this one out of use
                waits = f"disk {number} carries a copy of the state for which there is no other place yet"
            elif ground.holds_index(number) and ground.jobs is not None:
                waits = f"the state's index is on disk {number}: it moves when the store is opened anew"
                if ground.reopen is not None and not self._asked_to_reopen:
                    self._asked_to_reopen = True
                    log.info("the store is opened anew, so that disk %d can leave", number)
                    ground.reopen()
            else:
                await in_thread(self._leave, number, since)
        now = layout_of(ground.membership.epoch)
        if now != self.record.layout and now.staying == self.record.layout.staying:  # all else is as it was
            await self._save(msgspec.structs.replace(self.record, layout=now))
        return self._progress(again_in=_RETRY_SECONDS if waits else None, note=waits)

    def _leave(self, number: int, since: int) -> None:
        membership = self._ground.membership
        with membership.exclusive():
            membership.up()  # not while too few disks are here
            member = membership.epoch.member(number)
            if member is None or member.draining != since or member.state:
                return
            membership.change([d for d in membership.epoch.members if d.number != number])
        log.warning("disk %d (%s) holds nothing any more and has left the store", number, membership.paths.get(number))

    async def _save(self, record: RebalanceRecord) -> None:
        await save(self._ground, record)
        self.record = record


def old_geometries(ground: Ground) -> tuple[tuple[int, int], ...]:
    """Geometries, other than the store's, that stripes may still have by an operator's word."""
    try:
        record = load(ground)
    except OstrakaError:
        return ()
    epoch = ground.membership.epoch
    return tuple(sorted({*record.old} - {(epoch.k, epoch.m)}))
