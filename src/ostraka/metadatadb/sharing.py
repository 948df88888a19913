"""How replicas share a namespace through its objects. Compare-and-set of the head is the correctness; nothing here
depends on clocks, on a lock, or on anybody being alive.

There is one *head*. It holds the newest entries in their settled order, and names a *snapshot* of all that came before
them. Beside it lie entries of the *journal*, each an object of its own under a name that is never used twice.

*Durable* is an entry once its object is written, or once it is in the head. *Settled* it is by the second, and then its
place in the order, what became of its transactions, and what a comparison in it found, change no more. Entries of the
journal are shown in the order of their ids until somebody settles them in that order: any replica, by compare-and-set.

No entry is lost. A head takes an entry only after the one before it of the same writer, so a listing that missed one
settles none behind it; who loses the race for the head has changed nothing. No entry takes effect twice: the head knows
the last stamp of each writer, and entries up to it count as settled, whoever writes or lists them again. So an entry
whose object was written twice, because the first answer was lost, is one entry. Where nobody knows whether a head was
written, the one that is there then tells: once it is another than before, our entry is settled or that head never
comes, for the ETag that it asked for has passed, and no ETag is met twice: each head has a number and a nonce.

Settled entries and old snapshots are only garbage. They are removed some syncs later, by whoever settled them or, if
that one crashed, by any other; where nobody may delete they stay, and cost listing. A snapshot is garbage when it was
made for a head whose number has passed and is not the one that the head names: nobody can name it any more.

A writer that was told that an entry's fate is unknown goes on under a new name, so that no later entry of it waits for
one that may never appear.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from ostraka.errors import Conflict, Corrupt, OstrakaError, PreconditionFailed, Refused, Unavailable
from ostraka.host import Host
from ostraka.limits import Limits
from ostraka.metadatadb.applying import Outcome, apply
from ostraka.metadatadb.copy import Copy
from ostraka.metadatadb.format import NEVER, Entry, Head, HeadLine, SnapshotLine, SnapshotRef, line_of, write_snapshot
from ostraka.metadatadb.garbage import Garbage
from ostraka.metadatadb.lock import Lock
from ostraka.metadatadb.metrics import Counters
from ostraka.metadatadb.objects import Listing, Objects, snapshot_name
from ostraka.metadatadb.operations import Clear, Transaction
from ostraka.metadatadb.stamps import Stamps, Writers
from ostraka.metadatadb.state import State

T = TypeVar("T")

BACKOFF_SECONDS, BACKOFF_SECONDS_MAX = 0.05, 2.0
LOOKS_MAX = 8  # times that a sync begins anew because the objects change under it
LOCK_AFTER_CONFLICTS = 2
SETTLE_AFTER_SYNCS = 20  # entries do not stay in the journal for longer than this, however few they are


async def all_of(work: Iterable[Awaitable[T]]) -> list[T]:
    """Wait for all of them; the first failure is raised once none is on its way any more."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


def _clears(entries: list[Entry]) -> bool:
    return any(isinstance(op, Clear) for e in entries for transaction in e.transactions for op in transaction.ops)


class Patience:
    """How long something is tried, and the pauses between: they grow, and differ between replicas (law 7)."""

    def __init__(self, host: Host, chance: random.Random, seconds: float) -> None:
        self._clock, self._chance = host.clock, chance
        self._end = host.clock.monotonic() + seconds
        self._pause = BACKOFF_SECONDS

    @property
    def left(self) -> float:
        return max(0.0, self._end - self._clock.monotonic())

    async def pause(self, error: OstrakaError) -> None:
        """Wait before the next attempt; raises the error if there is no time for one."""
        if not self.left:
            raise error
        await asyncio.sleep(min(self.left, self._chance.uniform(0, self._pause)))
        self._pause = min(2 * self._pause, BACKOFF_SECONDS_MAX)


@dataclass(slots=True)
class Plan:
    """What the next head is to add, and what comes of it."""

    entries: list[Entry]
    state: State
    outcomes: list[Outcome]  # of the transactions of the last entry
    base: str | None  # the ETag of the head that it is made for
    head: Head | None = None


class Sharing:
    """One namespace of one replica, in step with its objects. Of one event loop."""

    def __init__(
        self,
        objects: Objects,
        host: Host,
        limits: Limits,
        counters: Counters,
        chance: random.Random,
        lock_seconds: float,
    ) -> None:
        self.copy = Copy()
        self.objects = objects
        self.synced_at = float("-inf")  # monotonic: when the last sync that succeeded began
        self.begun = 0  # syncs
        self.synced = 0  # the number of the last one that succeeded
        self._host = host
        self._limits = limits
        self._counters = counters
        self._chance = chance
        self._stamps = Stamps(host.clock)
        self._turn = asyncio.Lock()
        self._listing = Listing()
        self._loose_since: dict[str, int] = {}  # ids, and at which sync they were first seen to be loose
        self._garbage = Garbage(objects)
        self.writer = ""
        self.rename()
        self._lock = Lock(objects, host, chance, self.writer, lock_seconds)

    # -- writers and entries

    def rename(self) -> None:
        """Go on as another writer: nobody knows what becomes of the last entry of this one."""
        self.writer, self._after = self._host.random(16).hex(), NEVER

    def entry(self, transactions: Iterable[Transaction]) -> Entry:
        """The next entry of this writer. If it may or may not have become durable, ``rename`` must be called."""
        return Entry(self._stamps.next(), self.writer, self._after, tuple(transactions))

    def wrote(self, entry: Entry) -> None:
        """That entry is durable: the next one of its writer comes after it."""
        if entry.writer == self.writer:
            self._after = max(self._after, entry.stamp)

    def patience(self, seconds: float) -> Patience:
        return Patience(self._host, self._chance, seconds)

    def jitter(self, seconds: float) -> float:
        """At most so long, and not always: replicas that began together drift apart."""
        return seconds * self._chance.uniform(0.8, 1.0)

    async def journal(self, entry: Entry, seconds: float) -> list[Outcome]:
        """Make an entry durable in the journal, and show it. Unavailable: it may be durable, or become so."""
        patience = self.patience(seconds)
        while True:
            try:
                await self.objects.write_entry(entry)
                break
            except Unavailable as e:
                await patience.pause(e)
        self.wrote(entry)
        return self.copy.add([entry]).get(entry.id, [])

    # -- sync

    async def sync(self) -> None:
        """See everything that was durable when this began. Raises what the byte store does; Corrupt, Refused."""
        async with self._turn:
            await self._sync()

    async def _sync(self) -> None:
        self.begun += 1
        number, began = self.begun, self._host.clock.monotonic()
        try:
            for _ in range(LOOKS_MAX):
                self._listing = await self.objects.list()
                if await self._follow_head() and await self._fetch():
                    break
            else:
                raise Unavailable(f"{self.objects.head_path}: it changes faster than it can be read", reason="service")
        except OstrakaError:
            self._counters.count("sync_failures")
            raise
        self.synced_at, self.synced = began, number
        self._loose_since = {e.id: self._loose_since.get(e.id, number) for e in self.copy.loose}
        self._garbage.look(self._listing, self.copy)
        self._counters.observe("sync", self._host.clock.monotonic() - began)

    async def _follow_head(self) -> bool:
        """Take over the head that was listed, or a newer one; False if it went while we looked."""
        copy = self.copy
        if self._listing.head == copy.etag:
            return True
        found = await self.objects.read_head()
        if found is None:
            if self._listing.head is None:
                raise Corrupt(f"{self.objects.head_path}: it was there, and is gone", reason="object")
            return False
        head, etag = found
        about = head.about
        if about.commit < copy.commit or about.sequence < copy.sequence:
            raise Refused(
                f"{self.objects.head_path}: it went back from commit {copy.commit} to {about.commit}, as if restored "
                "from a backup: restart this replica to follow it"
            )
        if about.first - 1 <= copy.sequence:
            entries = head.entries(self.objects.head_path, copy.sequence)
            copy.settle(entries, head, etag)
        else:
            assert about.snapshot is not None  # read_head saw to it
            loaded = await self.objects.read_snapshot(about.snapshot)
            if loaded is None:
                return await self._gone(etag, about.snapshot)
            line, state = loaded
            entries = head.entries(self.objects.head_path, line.sequence)
            copy.replace(state, Writers(line.writers, about.forgotten), entries, head, etag)
        for entry in entries:
            self._stamps.see(entry.stamp)
        for stamp in [about.forgotten, *copy.writers.last.values()]:
            self._stamps.see(stamp)
        return True

    async def _gone(self, etag: str, snapshot: SnapshotRef) -> bool:
        """A snapshot that a head names is not there: another head has come, or it is lost."""
        found = await self.objects.read_head()
        if found is not None and found[1] == etag:
            raise Corrupt(f"{self.objects.path(snapshot.name)}: the head names it, and it is gone", reason="object")
        return False

    async def _fetch(self) -> bool:
        """Get to know the entries that were listed; False if one went while we looked: it is settled now."""
        slots = asyncio.Semaphore(self._limits.metadatadb_fetches_max)

        async def fetch(id: str) -> Entry | None:
            async with slots:
                return await self.objects.read_entry(id)

        missing = self.copy.missing(self._listing.entries)
        found = await asyncio.gather(*(fetch(id) for id in missing), return_exceptions=True)
        entries = [entry for entry in found if isinstance(entry, Entry)]
        for entry in entries:
            self._stamps.see(entry.stamp)
        if entries:  # they stay known if others failed: the next attempt has fewer to fetch
            self.copy.add(entries)
        for failure in found:
            if isinstance(failure, BaseException):
                raise failure
        return None not in found

    # -- the head

    async def commit(self, entry: Entry, seconds: float) -> list[Outcome]:
        """Settle all that is loose, and then this entry; what became of its transactions, for good.

        If it asks, all that was durable when this began is loose or settled first; and if it then has no effect, it is
        not settled: nothing is to be remembered. Conflict (reason "contention") if others were faster all the time: it
        did not happen, and never will. Unavailable: it may have happened, or happen yet.
        """
        patience = self.patience(seconds)
        before = self.begun
        asks = any(transaction.asks for transaction in entry.transactions)
        async with self._turn:
            while asks and self.synced <= before:
                try:
                    await self._sync()
                except Unavailable as e:
                    await patience.pause(e)
            try:
                return await self._commit(entry, patience, asks=asks)
            except asyncio.CancelledError:
                self._lock.held = None  # it expires by itself; who is cancelled does not wait
                raise
            finally:
                await self._lock.release()

    async def _commit(self, entry: Entry, patience: Patience, *, asks: bool) -> list[Outcome]:
        plan: Plan | None = None
        doubt: Unavailable | None = None
        conflicts = 0
        while True:
            if plan is None or plan.base != self.copy.etag:
                doubt = None  # what we wrote for another base is not there, and never will be
                plan = self._plan(self.copy.loose, entry)
                if asks and Outcome.DONE not in plan.outcomes:
                    return plan.outcomes
            # else the very same head again: if one of them was written, we know what is in it
            failure: OstrakaError
            try:
                await self._prepare(plan)
                try:
                    await self._put(plan)
                    break
                except Unavailable as e:
                    doubt = failure = e
            except Unavailable as e:
                failure = e
            except PreconditionFailed as e:
                failure = Conflict(f"{self.objects.head_path}: others changed it all the time", reason="contention")
                failure.__cause__ = e
                conflicts += 1
                await self._conflict(conflicts, patience)
            await self._sync_again(patience, doubt or failure)
            if self.copy.writers.settled(entry.stamp, entry.writer):
                break
        self.wrote(entry)
        return plan.outcomes

    async def _sync_again(self, patience: Patience, failure: OstrakaError) -> None:
        """Sync until it succeeds. The failure of which it is a consequence is raised if that takes too long."""
        while True:
            await patience.pause(failure)
            try:
                await self._sync()
                return
            except Unavailable:
                pass

    async def _conflict(self, conflicts: int, patience: Patience) -> None:
        self._counters.count("conflicts")
        if self._lock.held is None and conflicts >= LOCK_AFTER_CONFLICTS:
            began = self._host.clock.monotonic()
            self._counters.count("lock_waits")
            await self._lock.acquire(patience.left / 2)
            self._counters.count("lock_wait_seconds", self._host.clock.monotonic() - began)

    def _plan(self, loose: list[Entry], entry: Entry | None) -> Plan:
        entries = [*loose, *([entry] if entry else [])]
        state = self.copy.settled.fork()
        outcomes: list[Outcome] = []
        for each in entries:
            outcomes = [apply(state, transaction) for transaction in each.transactions]
        return Plan(entries, state, outcomes, self.copy.etag)

    async def _prepare(self, plan: Plan) -> None:
        """Make the head that is planned; on a snapshot of its own if the entries have become many."""
        if plan.head is not None:
            return
        old = self.copy.head
        about = old.about if old else HeadLine(0, self._nonce(), 1, 0, NEVER)
        lines = [*(old.lines if old else ()), *map(line_of, plan.entries)]
        sequence = about.sequence + len(plan.entries)
        about = HeadLine(about.commit + 1, self._nonce(), about.first, sequence, about.forgotten, about.snapshot)
        if self._heavy(about, lines) or _clears(plan.entries):
            about = await self._with_snapshot(about, plan)
            cut = sum(map(len, lines)) - self._limits.metadatadb_tail_bytes_max // 2
            while lines and (cut > 0 or len(lines) > self._limits.metadatadb_tail_entries_max // 2):
                cut -= len(lines.pop(0))
        plan.head = Head(msgspec.structs.replace(about, first=sequence - len(lines) + 1), tuple(lines))

    def _heavy(self, about: HeadLine, lines: list[bytes]) -> bool:
        size = about.snapshot.size if about.snapshot else 0
        bound = max(self._limits.metadatadb_tail_bytes_max, size // 8)
        return len(lines) > self._limits.metadatadb_tail_entries_max or sum(map(len, lines)) > bound

    async def _with_snapshot(self, about: HeadLine, plan: Plan) -> HeadLine:
        plan.state.purge()
        writers = Writers(self.copy.writers.last, about.forgotten)
        for entry in plan.entries:
            writers.settle(entry)
        writers.trim(self._limits.metadatadb_writers_max)
        line = SnapshotLine(about.sequence, plan.state.time, writers.last, len(plan.state.names))
        data = await asyncio.to_thread(write_snapshot, plan.state, line)
        name = snapshot_name(about.commit, self._nonce(), void=not plan.state.names)
        await self.objects.write_snapshot(name, data)
        if about.snapshot:
            self._garbage.made([about.snapshot.name])
        self._counters.count("snapshots")
        snapshot = SnapshotRef(name, about.sequence, len(data))
        return msgspec.structs.replace(about, snapshot=snapshot, forgotten=writers.forgotten)

    async def _put(self, plan: Plan) -> None:
        assert plan.head is not None
        etag = await self.objects.write_head(plan.head, plan.base)
        self._garbage.made(f"entry-{entry.id}" for entry in plan.entries)
        self.copy.settle(plan.entries, plan.head, etag, plan.state)

    def _nonce(self) -> str:
        return self._host.random(16).hex()

    # -- compaction

    async def compact(self, *, all: bool = False) -> None:
        """Settle the entries that every replica had the time to see, if they are many or old; the loser of a race does
        nothing. ``all``: whatever their age, if they are many."""
        async with self._turn:
            loose = self.copy.loose if all else self._seen_before()
            old = any(self.synced - self._loose_since.get(e.id, self.synced) >= SETTLE_AFTER_SYNCS for e in loose)
            if len(self.copy.loose) < self._limits.metadatadb_entries_loose_max and not old:
                return
            plan = self._plan(loose, None)
            try:
                await self._prepare(plan)
                await self._put(plan)
            except PreconditionFailed:
                self._counters.count("conflicts")
            else:
                self._counters.count("compactions")

    def _seen_before(self) -> list[Entry]:
        """The first entries, up to one that was not there at the sync before."""
        return list(
            itertools.takewhile(lambda e: self._loose_since.get(e.id, self.synced) < self.synced, self.copy.loose)
        )

    async def sweep(self, *, all: bool = False) -> None:
        """Remove what has been garbage for some syncs. ``all``: for however short a time."""
        await self._garbage.sweep(all=all)
