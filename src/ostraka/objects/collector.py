"""Taking back what is dead: bodies of versions that went, uploads that ended, leavings of processes that died.

Dead rows are settled oldest first, and only those that no reader can still hold (pins). One step makes one mutation
of bounded size from one or more dead rows: references are given up in the same commit that removes, or shortens, the
rows that held them, so that a crash between two steps neither loses nor repeats anything. A manifest that others name
too loses one reference; the last reference takes it apart page by page, and what its pages named becomes dead in
turn.

Several collectors may run at once: each step stands on the dead rows as it read them.
"""

import logging
from collections.abc import Callable

from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Corrupt
from ostraka.objects import rows
from ostraka.objects.core import Core
from ostraka.objects.manifest import more_references
from ostraka.objects.rows import DeadRecord
from ostraka.state import Delete, Equals, Operation, Precondition, Present, Put, Rejected, key_sequence, prefix_end

log = logging.getLogger("ostraka.objects")

ATTEMPTS = 20
ROWS_AT_ONCE = 256  # rows of parts, pages' entries or pending manifests that one step reads at a time


class Collector:
    """The objects' part of collection. ``alive``: whether the process of an incarnation may still run."""

    def __init__(self, core: Core, alive: Callable[[bytes], bool]) -> None:
        self._core = core
        self._alive = alive
        self._told: set[bytes] = set()  # dead rows of which we said that they cannot be settled

    async def collect(self, limit: int) -> int:
        """Settle up to about ``limit`` rows; returns how many. 0: there is nothing that can be settled now."""
        await self._core.pay()
        settled = await self._bury_incarnations(limit)
        settled += await self._settle_dead(limit)
        settled += await self._drop_replays(limit)
        settled += await self._core.chunks.sweep(limit)
        return settled

    # -- dead rows

    def horizon(self) -> int:
        """What died by a commit up to this, nobody reads any more."""
        sequence = self._core.state.sequence  # first: who enters later records at least this
        return min(sequence, self._core.pins.oldest())

    async def _settle_dead(self, limit: int) -> int:
        core, settled = self._core, 0
        start, end = rows.DEAD, prefix_end(rows.DEAD)
        budget = core.limits.collect_batch_rows_max
        attempts = 0
        while settled < limit:
            horizon = self.horizon()
            found = core.state.scan(start, end, min(limit - settled, ROWS_AT_ONCE), True)
            found = [row for row in found if key_sequence(row[0]) <= horizon]
            if not found:
                break
            step = _Step(core, budget)
            try:
                for key, value in found:
                    if step.budget <= 0:
                        break
                    step.take(key, value)
                await step.commit()
            except Corrupt as error:
                if budget > 1:
                    budget = 1  # which of them is it? one by one
                    continue
                end, budget = found[0][0], core.limits.collect_batch_rows_max  # past it: the others must not wait
                if end not in self._told and len(self._told) < ROWS_AT_ONCE:
                    self._told.add(end)
                    log.error("a dead row is left to fsck, what it names cannot be given up: %s", error.message)
            except Rejected:  # a counter moved under us: smaller steps meet fewer others
                attempts += 1
                budget = max(1, budget // 2)
                if attempts > ATTEMPTS:
                    break
            else:
                settled += step.touched
        return settled

    # -- processes that died

    async def _bury_incarnations(self, limit: int) -> int:
        """Fence dead incarnations, then queue what they left pending."""
        core, buried = self._core, 0
        prefix = rows.INCARNATION
        for key, _ in core.state.scan(prefix, prefix_end(prefix), core.limits.scan_rows_max):
            if key != core.fence.key and not self._alive(key[1:]):
                try:
                    await core.commit([Present(key, "incarnation")], [Delete(key)])
                    buried += 1
                except Rejected:
                    pass
        start, end = rows.PENDING, prefix_end(rows.PENDING)
        while buried < limit:
            found = core.state.scan(start, end, 1)
            if not found:
                break
            owner = found[0][0][1 : 1 + rows.ID_SIZE]
            if core.state.get(rows.INCARNATION + owner) is not None:
                after = prefix_end(rows.PENDING + owner)
                if after is None or (end is not None and after >= end):
                    break
                start = after
                continue
            buried += await self._bury_pending(owner)
        return buried

    async def _bury_pending(self, owner: bytes) -> int:
        """One batch of the manifests that a dead incarnation left; it cannot add to them any more."""
        prefix = rows.PENDING + owner
        found = self._core.state.scan(prefix, prefix_end(prefix), ROWS_AT_ONCE)
        dead = DeadRecord(tuple(Entry(Kind.MANIFEST, key[-rows.ID_SIZE :], 0, 0) for key, _ in found))
        preconditions: list[Precondition] = [Present(key, "pending") for key, _ in found]
        operations: list[Operation] = [Delete(key) for key, _ in found]
        operations.append(Put(rows.DEAD, rows.encode(dead), stamp_key=True))
        try:
            await self._core.commit(preconditions, operations)
        except Rejected:
            return 1  # another collector was faster; look again
        return len(found)

    # -- answers kept for retries

    async def _drop_replays(self, limit: int) -> int:
        core = self._core
        epoch = int(core.host.clock.time() / core.limits.replay_seconds)
        end = rows.REPLAY + max(epoch - 1, 0).to_bytes(4, "big")
        found = core.state.scan(rows.REPLAY, end, min(limit, core.limits.collect_batch_rows_max))
        if found:
            await core.commit([], [Delete(key) for key, _ in found])
        return len(found)


class _Step:
    """One mutation in the making: dead rows that go or shrink, and all that they give up."""

    def __init__(self, core: Core, budget: int) -> None:
        self.budget = budget
        self.touched = 0
        self._core = core
        self._state = core.state
        self._preconditions: list[Precondition] = []
        self._operations: list[Operation] = []
        self._leaves: list[Entry] = []
        self._chained: list[Entry] = []  # manifests whose reference moves to a new dead row
        self._chained_uploads: list[bytes] = []
        self._manifests: set[bytes] = set()  # at most one reference of each per mutation

    def take(self, key: bytes, value: bytes) -> None:
        """Settle as much of a dead row as the budget allows."""
        record = rows.dead_of(value)
        self.touched += 1
        self._preconditions.append(Equals(key, value, "dead"))
        entries = tuple(entry for entry in record.entries if not self._entry(entry))
        uploads = tuple(upload for upload in record.uploads if not self._upload(upload))
        buckets = tuple(bucket for bucket in record.buckets if not self._bucket(bucket))
        if entries or uploads or buckets:
            self._operations.append(Put(key, rows.encode(DeadRecord(entries, uploads, buckets))))
        else:
            self._operations.append(Delete(key))

    async def commit(self) -> None:
        if self._chained or self._chained_uploads:
            dead = DeadRecord(tuple(self._chained), tuple(self._chained_uploads))
            self._operations.append(Put(rows.DEAD, rows.encode(dead), stamp_key=True))
        if self._leaves:
            try:
                preconditions, operations = await self._core.chunks.dismantle(self._leaves)
            except Corrupt:
                self._overtaken()
                raise
            self._preconditions += preconditions
            self._operations += operations
        await self._core.commit(self._preconditions, self._operations)

    def _overtaken(self) -> None:
        """Counts that do not fit are no damage if another collector settled our rows since we read them: Rejected."""
        for condition in self._preconditions:
            if isinstance(condition, Equals) and self._state.get(condition.key) != condition.value:
                raise Rejected(condition.tag, condition.key)

    def _entry(self, entry: Entry) -> bool:
        """Give up one reference; False when (some of) it has to wait for another step."""
        if self.budget <= 0:
            return False
        if entry.kind != Kind.MANIFEST:
            self._leaves.append(entry)
            self.budget -= 1
            return True
        if entry.id in self._manifests:
            return False
        self._manifests.add(entry.id)
        counter = rows.REFERENCES + entry.id
        count = self._state.get(counter)
        self._preconditions.append(Equals(counter, count, "references"))
        self.budget -= 1
        if count is not None:
            self._operations.append(more_references(entry.id, -1))
            return True
        return self._pages(entry.id) and self._rows_gone(rows.COMPLETED + entry.id)

    def _pages(self, manifest: bytes) -> bool:
        """Take a manifest apart, page by page; True when no page is left."""
        prefix = rows.PAGE + manifest
        start, end = prefix, prefix_end(prefix)
        while True:
            found = self._state.scan(start, end, 1)
            if not found:
                return True
            if self.budget <= 0:
                return False
            key, value = found[0]
            page = rows.page_of(value)
            self._preconditions.append(Present(key, "page"))
            self._operations.append(Delete(key))
            for entry in page:
                (self._chained if entry.kind == Kind.MANIFEST else self._leaves).append(entry)
            self.budget -= len(page) + 1
            start = key + b"\x00"

    def _rows_gone(self, prefix: bytes) -> bool:
        """Remove rows that hold nothing; True when none is left."""
        found = self._state.scan(prefix, prefix_end(prefix), ROWS_AT_ONCE + 1)
        taken = found[: max(0, min(ROWS_AT_ONCE, self.budget))]
        self._operations.extend(Delete(key) for key, _ in taken)
        self.budget -= len(taken)
        return len(taken) == len(found)

    def _upload(self, upload: bytes) -> bool:
        """The parts of an upload that is no more; True when none is left."""
        prefix = rows.PART + upload
        found = self._state.scan(prefix, prefix_end(prefix), ROWS_AT_ONCE + 1)
        taken = found[: max(0, min(ROWS_AT_ONCE, self.budget))]
        for key, value in taken:
            self._preconditions.append(Equals(key, value, "part"))
            self._operations.append(Delete(key))
            self._chained.extend(rows.part_of(value).entries())
        self.budget -= len(taken) + 1
        return len(taken) == len(found)

    def _bucket(self, bucket: bytes) -> bool:
        """The uploads of a bucket that is no more; True when none is left."""
        prefix = rows.UPLOAD + bucket
        found = self._state.scan(prefix, prefix_end(prefix), ROWS_AT_ONCE + 1)
        taken = found[: max(0, min(ROWS_AT_ONCE, self.budget))]
        for key, _ in taken:
            self._preconditions.append(Present(key, "upload"))
            self._operations.append(Delete(key))
            self._chained_uploads.append(key[-rows.ID_SIZE :])
        self.budget -= len(taken) + 1
        return len(taken) == len(found)
