"""Healing: after a disk was lost, replaced or came back, every stripe is made whole again.

Two sources of work. The journal of damage (damage.py) names single stripes. And the membership names disks: one that
is *gone* holds nothing any more, one that is *healing* (new, or back after an absence) holds what nobody has verified.
A pass walks all rows in key order, a page at a time, and mends each stripe that names such a disk; its place is kept in
the state, so that a restart goes on where it was. Where several disks are lost it walks several times, for those
stripes first that have the most shards on them: each is mended in one of the walks, by what its row says. When a pass
ends with nothing left, the flag of the healing disks is cleared by an epoch change, and gone disks are noted as
settled, so that nobody walks for them again.

A disk that is merely down is waited for: its shards are rebuilt elsewhere only when an operator gives it up (`disk
replace`, `disk forget`). New stripes never wait, they go to the disks that are up.

Everything here can be stopped at any point: what counts is what the rows say.
"""

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterable
from itertools import islice

import msgspec

from ostraka.chunks.rows import CHUNK_TOTAL, PACK_TOTAL
from ostraka.errors import Corrupt, Refused
from ostraka.jobs import state_copies
from ostraka.jobs.damage import owner_on
from ostraka.jobs.ground import Budget, Ground, Job, Progress, in_thread, together
from ostraka.jobs.records import BY_WRITE_ID, HEAL_KEY, HURT, HealRecord, HurtRow, decode, encode
from ostraka.jobs.stripes import Mended, Named, key_of, mend, pages, read_named
from ostraka.nodes.superblock import Epoch
from ostraka.pools.types import Owner
from ostraka.state import totals
from ostraka.state.tables import rows_under
from ostraka.state.types import Delete, Equals, Mutation, Put, Rejected, State, prefix_end

log = logging.getLogger("ostraka.jobs")

PAGE = 64
QUEUE_COUNTED_MAX = 10_000
AT_ONCE = 4  # stripes that are mended at the same time
_RETRY_SECONDS = 60.0  # when disks were away, or stripes could not be made whole

_turns: "weakref.WeakKeyDictionary[Ground, asyncio.Lock]" = weakref.WeakKeyDictionary()


def turn(ground: Ground) -> asyncio.Lock:
    """Who heals this store in this process: the job, or a command; never both, lest they do the same work twice."""
    return _turns.setdefault(ground, asyncio.Lock())


OnMended = Callable[[Named, Mended], None]


class Heal(Job):
    name = "heal"
    purpose = "makes stripes whole that lost a shard"
    paused_means = "what is lost or damaged is not made whole, so that fewer disks may be lost than should be"

    def __init__(self, ground: Ground, on_mended: OnMended | None = None) -> None:
        super().__init__(ground)
        self._tell_mended = on_mended or _tell
        self._did = self._bytes = 0  # of this piece
        self._hurt_cursor = HURT
        self._late: dict[int, float | None] = {}  # gone disks to be walked for once more, and when; None: was done
        self.record = HealRecord()

    async def run_once(self, budget: Budget) -> Progress:
        async with turn(self._ground):
            self._did = self._bytes = 0
            progress = await self.step(budget)
            return msgspec.structs.replace(progress, did=self._did, bytes=self._bytes)

    @classmethod
    def recorded(cls, state: State) -> tuple[int, str]:
        value = state.get(HEAL_KEY)
        if value is None:
            return 0, ""
        record = decode(HEAL_KEY, value)
        assert isinstance(record, HealRecord)
        return record.examined, "a pass was begun" if record.healing or record.gone else ""

    def _on_mended(self, named: Named, result: Mended) -> None:
        if result.rebuilt:
            self._did += 1
            self._bytes += named.stripe.length
        self._tell_mended(named, result)

    async def step(self, budget: Budget) -> Progress:
        """As `run_once`, by a caller that has the `turn`."""
        again = await self._journal(budget)
        ground = self._ground
        if await state_copies.restore(ground) is not None:
            again = _RETRY_SECONDS
        self.record = self._load()
        late = await self._once_more()
        if late is not None:
            again = late if again is None else min(again, late)
        epoch = self._epoch()
        healing, gone = _wanted(epoch, self.record)
        if not healing and not gone:
            return Progress(self.record.examined, more=not budget.left, again_in=again)
        if (healing, gone) != (self.record.healing, self.record.gone):
            await self._save(
                msgspec.structs.replace(
                    self.record, healing=healing, gone=gone, cursor=b"", examined=0, repaired=0, left=0, danger=0
                )
            )
        if not self.record.danger:
            await self._save(self._first_walk())
        if not await self._walk(budget):
            return self._progress(more=True)
        if self.record.danger > 1:
            await self._save(msgspec.structs.replace(self.record, cursor=b"", danger=self.record.danger - 1, walked=0))
            return self._progress(more=True)
        if self.record.left or not await self._finish():
            done = self._progress(again_in=_RETRY_SECONDS, note="stripes are left that are not whole")
            await self._save(msgspec.structs.replace(self.record, cursor=b"", examined=0, left=0, danger=0))
            return done
        return self._progress(more=True)

    def _progress(self, *, more: bool = False, again_in: float | None = None, note: str = "") -> Progress:
        """Stripes that were passed, of all walks of the pass."""
        record = self.record
        if not record.danger:
            return Progress(record.examined, None, more, again_in, note)
        done = (record.most - record.danger) * record.total + record.walked
        total = max(record.most * record.total, done) if record.total else None
        return Progress(done, total, more, again_in, note)

    @property
    def passed(self) -> tuple[int, int | None]:
        """Stripes that this pass has passed, of so many (None: nobody counted them)."""
        progress = self._progress()
        return progress.done, progress.total

    def _first_walk(self) -> HealRecord:
        """The pass at its beginning; one of a version that made one walk goes on with that."""
        record = self.record
        # disks that were made for those that are gone have later numbers than they, and no stripe names them yet
        back = [number for number, _ in record.healing if number < max(record.gone, default=number + 1)]
        lost = len(record.gone) + len(back)
        most = 1 if record.cursor else max(1, min(lost, self._ground.membership.m))
        return msgspec.structs.replace(record, danger=most, most=most, walked=0, total=stripes_kept(self._ground.state))

    def _epoch(self) -> Epoch:
        self._ground.membership.disk(-1)  # takes over what another process changed
        return self._ground.membership.epoch

    # -- a pass over all stripes

    async def _walk(self, budget: Budget) -> bool:
        """Go on with the pass; True when it is at its end."""
        ground, record = self._ground, self.record
        wanted = frozenset(number for number, _ in record.healing)
        lost = wanted.union(record.gone)  # as the pass began: who else goes meanwhile begins another
        for page in pages(ground.state, record.cursor, PAGE):
            batch: list[Named] = []
            unreadable = passed = 0
            for number, (key, value) in enumerate(page, 1):
                budget.rows -= 1
                try:
                    named = read_named(key, value)
                    if self._danger(named.stripe.disks, lost) == record.danger:
                        batch.append(named)
                except Corrupt as error:
                    log.error("healing passes over a row: %s", error.message)
                    unreadable += 1
                if len(batch) < AT_ONCE and number < len(page):
                    continue
                results = await together([mend(ground, named) for named in batch])
                for done, result in zip(batch, results, strict=True):
                    self._on_mended(done, result)
                self.record = record = msgspec.structs.replace(
                    record,
                    cursor=key + b"\0",
                    examined=record.examined + len(batch),
                    walked=record.walked + number - passed,
                    repaired=record.repaired + sum(r.rebuilt for r in results),
                    left=record.left + unreadable + sum(self._concerned(r.bad, wanted) for r in results),
                )
                batch, unreadable, passed = [], 0, number
                if not budget.left:
                    await self._save(record)
                    return False
        return True

    def _danger(self, disks: Iterable[int], lost: frozenset[int]) -> int:
        """In which walk a stripe on these disks is mended; 0: in none."""
        found = list(disks)
        count = min(sum(disk in lost for disk in found), self.record.most)
        return count or int(self._concerned(found, frozenset()))

    def _concerned(self, disks: Iterable[int], wanted: frozenset[int]) -> bool:
        return any(disk in wanted or self._ground.membership.gone(disk) for disk in disks)

    async def _finish(self) -> bool:
        """The pass left nothing: record that. False when the membership changed meanwhile."""
        membership, record = self._ground.membership, self.record
        await self._save(HealRecord(settled=tuple(sorted({*record.settled, *record.gone})), repaired=record.repaired))
        soon = self._ground.host.clock.monotonic() + self._ground.limits.collect_grace_seconds
        for number in record.gone:
            self._late.setdefault(number, soon)
        if not record.healing:
            return True

        def clear() -> bool:
            with membership.exclusive():
                members = [
                    msgspec.structs.replace(d, healing=False) if (d.number, d.since) in record.healing else d
                    for d in membership.epoch.members
                ]
                if members == list(membership.epoch.members):
                    return False
                membership.change(members)
                return True

        cleared = await in_thread(clear)
        if cleared:
            log.info("disks %s are whole again", ", ".join(str(number) for number, _ in record.healing))
        return True

    async def _once_more(self) -> float | None:
        """A write that was in flight when its disk was given up may have committed behind the pass: walk once more,
        when such writes have ended. Seconds until then, or None."""
        now = self._ground.host.clock.monotonic()
        due = {number for number, at in self._late.items() if at is not None and at <= now}
        if due:
            self._late.update(dict.fromkeys(due))
            settled = tuple(number for number in self.record.settled if number not in due)
            await self._save(msgspec.structs.replace(self.record, settled=settled))
        waiting = [at for at in self._late.values() if at is not None]
        return min(waiting) - now if waiting else None

    # -- single stripes

    async def _journal(self, budget: Budget) -> float | None:
        """Mend what the journal of damage names; seconds after which to look at what is left of it, or None."""
        ground, left = self._ground, False
        end = prefix_end(HURT)
        self._show_queue()
        while budget.left:
            page = ground.state.scan(self._hurt_cursor, end, PAGE)
            for key, value in page:
                try:
                    done = await self._hurt(key, value)
                except Corrupt as error:  # its own row or that of what was hurt: the others must not wait for it
                    log.error("healing leaves %s to fsck: %s", key.hex(), error.message)
                    done = False
                if not done:
                    left = True
                budget.rows -= 1
                self._hurt_cursor = key + b"\0"
                if not budget.left:
                    return 0.0
            if len(page) < PAGE:
                self._hurt_cursor = HURT
                break
        return _RETRY_SECONDS if left else None

    def _show_queue(self) -> None:
        count, oldest = queue(self._ground.state)
        board = self._ground.board
        board.set(board.cell("ostraka_heal_queue"), count)
        board.set(board.cell("ostraka_heal_queue_oldest_timestamp_seconds"), oldest)

    async def _hurt(self, key: bytes, value: bytes) -> bool:
        """One row of the journal; False when it has to stay there."""
        ground = self._ground
        row = decode(key, value)
        assert isinstance(row, HurtRow)
        kind, name = key[1], key[2:]
        if kind == BY_WRITE_ID:
            found = await self._owner(name, row)
            if found is None:
                await self._settle(key, value)  # nobody can say whose it was: fsck verifies all stripes by their rows
                return True
            owner, name = found
        else:
            owner = Owner(kind)
        current = ground.state.get(key_of(owner, name))
        if current is not None:
            named = read_named(key_of(owner, name), current)
            result = await mend(ground, named)
            self._on_mended(named, result)
            if result.outcome == "away":
                return False
        await self._settle(key, value)
        return True

    async def _owner(self, write_id: bytes, row: HurtRow) -> tuple[Owner, bytes] | None:
        stripe = row.stripe
        for index, number in enumerate(stripe.disks if stripe is not None else ()):
            disk = self._ground.disks.get(number)
            if disk is not None and self._ground.membership.disk(number) is disk:
                found = await in_thread(owner_on, disk, write_id, index)
                if found is not None:
                    return found
        return None

    async def _settle(self, key: bytes, value: bytes) -> None:
        try:
            await self._ground.state.commit(Mutation([Equals(key, value)], [Delete(key)]))
        except Rejected:
            pass

    # -- where we are

    def _load(self) -> HealRecord:
        value = self._ground.state.get(HEAL_KEY)
        if value is None:
            return HealRecord()
        try:
            record = decode(HEAL_KEY, value)
            assert isinstance(record, HealRecord)
            return record
        except Corrupt as error:
            log.warning("%s; all stripes are walked again", error.message)
            return HealRecord()

    async def _save(self, record: HealRecord) -> None:
        await self._ground.state.commit(Mutation((), [Put(HEAL_KEY, encode(record))]))
        self.record = record


def _wanted(epoch: Epoch, record: HealRecord) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """(healing disks that are up with the epoch they came in, gone disks that stripes may still name)."""
    healing = tuple((d.number, d.since) for d in epoch.members if d.healing and d.up)
    members = {d.number for d in epoch.members}
    gone = tuple(n for n in range(epoch.next_number) if n not in members and n not in record.settled)
    return healing, gone


def stripes_kept(state: State) -> int:
    """How many stripes the state names; 0 while nobody counted them."""
    kept = (totals.read(state, name, width) for name, width in ((CHUNK_TOTAL, 4), (PACK_TOTAL, 5)))
    return sum(found[0] for found in kept if found is not None)


def queue(state: State) -> tuple[int, float]:
    """How many rows the journal of damage has, `QUEUE_COUNTED_MAX` at most, and when the oldest was written."""
    count, moments = 0, []
    for key, value in islice(rows_under(state, HURT), QUEUE_COUNTED_MAX):
        count += 1
        try:
            row = decode(key, value)
        except (Corrupt, Refused):
            continue
        if isinstance(row, HurtRow) and row.since:
            moments.append(row.since)
    return count, min(moments, default=0.0)


def pending(ground: Ground) -> bool:
    """Whether the membership asks for a pass."""
    value = ground.state.get(HEAL_KEY)
    record = HealRecord()
    if value is not None:
        found = decode(HEAL_KEY, value)
        assert isinstance(found, HealRecord)
        record = found
    return _wanted(ground.membership.epoch, record) != ((), ())


def _tell(named: Named, result: Mended) -> None:
    if result.outcome == "lost":
        log.error("%s is damaged beyond repair: %s", named.name, result.note)
    elif result.rebuilt:
        log.info("%s was repaired", named.name)
