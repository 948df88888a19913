"""The collector's half of chunks: delete what stayed unreferenced, rewrite packs that are mostly dead.

A row of the zero queue may be settled once the commit that queued it is older than

- the start of the oldest reader in flight (``pinned_before``), and
- a moment that this process itself saw, at least the grace ago on its monotonic clock. It remembers a few pairs
  (moment, sequence of the state then), not rows: memory does not grow with the queue.

Whatever is done is re-checked in the commit that does it: the counter still absent, the row and the queue's row
unchanged (law 5). Only after that commit does the pool hear that a stripe is dead. A crash between the two leaves
shards that no row names, which compaction finds.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ostraka.chunks import packs
from ostraka.chunks.ground import Ground
from ostraka.chunks.references import live_share
from ostraka.chunks.rows import (
    PACKS,
    ROW_VERSION,
    SLOT_DEAD,
    SLOT_GONE,
    ZERO,
    PackRow,
    Record,
    StripeRow,
    chunk_counter_key,
    chunk_key,
    decode,
    decode_chunk,
    decode_pack,
    encode,
    pack_key,
    slots_of,
    zero_stripe_key,
)
from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Absent as AbsentError
from ostraka.errors import Corrupt, OstrakaError, Refused
from ostraka.pools.types import Owner, Stripe
from ostraka.state.types import (
    Absent,
    Committed,
    Delete,
    Equals,
    Mutation,
    Present,
    Put,
    Rejected,
    prefix_end,
    value_sequence,
)

log = logging.getLogger("ostraka.chunks")

MOMENTS_PER_GRACE = 8  # how finely the grace is observed
SCANNED_PER_SETTLED = 8  # rows looked at in one call, for each that it may settle
PAGE = 256  # rows looked at together


@dataclass(frozen=True, slots=True)
class _Step:
    """One row to settle: the commit that does it, and what is dead once it landed."""

    mutation: Mutation
    dead: tuple[Owner, bytes, Stripe] | None = None
    count: str = ""
    written: tuple[Owner, bytes, Stripe] | None = None  # for this commit: dead if it is rejected


class Sweeper:
    """Works through the zero queue, a bounded piece with each call, round and round."""

    def __init__(self, ground: Ground, pinned_before: Callable[[], int]) -> None:
        self._ground = ground
        self._pinned_before = pinned_before
        self._moments: deque[tuple[float, int]] = deque()
        self._aged = 0  # every commit up to this one is older than the grace
        self._cursor = ZERO
        self._told: set[bytes] = set()  # rows of the queue of which we said that they cannot be settled

    async def sweep(self, limit: int) -> int:
        """Settle up to ``limit`` rows; returns how many it settled."""
        self._observe()
        before = min(self._pinned_before(), self._aged + 1)
        settled, budget, wrapped = 0, limit * SCANNED_PER_SETTLED, self._cursor == ZERO
        while settled < limit and budget > 0:
            page = min(PAGE, budget)
            rows = self._ground.state.scan(self._cursor, prefix_end(ZERO), page)
            budget -= page
            ripe = [(key, value) for key, value in rows if value_sequence(value) < before][: limit - settled]
            settled += await self._settle(ripe)
            if settled >= limit and ripe:
                self._cursor = ripe[-1][0] + b"\0"
            elif len(rows) == page:
                self._cursor = rows[-1][0] + b"\0"
            else:  # the end: once around, and no further
                self._cursor = ZERO
                if wrapped:
                    break
                wrapped = True
        return settled

    def _observe(self) -> None:
        """Note the present moment, and how far the grace has come."""
        now, grace = self._ground.host.clock.monotonic(), self._ground.limits.collect_grace_seconds
        moments = self._moments
        if not moments or now - moments[-1][0] >= grace / MOMENTS_PER_GRACE:
            moments.append((now, self._ground.state.sequence))
        while moments and now - moments[0][0] >= grace:
            self._aged = moments.popleft()[1]

    async def _settle(self, rows: list[tuple[bytes, bytes]]) -> int:
        steps: list[_Step] = []
        ground = self._ground
        try:
            for key, value in rows:
                try:
                    step = await self._step(key, value)
                except (Corrupt, Refused) as error:  # it stays where it is, and the others must not wait for it
                    self._pass_over(key, error)
                    continue
                if step is not None:
                    steps.append(step)
            if not steps:
                return 0
            outcomes = await ground.state.commit_many([step.mutation for step in steps])
        except BaseException:
            for step in steps:
                if step.written is not None:
                    ground.settle(*step.written)
            raise
        dead, settled = [], 0
        for step, outcome in zip(steps, outcomes, strict=True):
            if isinstance(outcome, Committed):
                settled += 1
                if step.dead is not None:
                    dead.append(step.dead)
                if step.count:
                    ground.counters.add(step.count)
                if step.written is not None:
                    ground.pool.settle([step.written[2]])
            elif isinstance(outcome, Rejected) and step.written is not None:
                dead.append(step.written)
        if dead:
            await ground.pool.release(dead)
        return settled

    def _pass_over(self, key: bytes, error: OstrakaError) -> None:
        if key not in self._told and len(self._told) < PAGE:
            self._told.add(key)
            log.error("%s is left to fsck, nothing can be collected by it: %s", key[:64].hex(), error.message)

    async def _step(self, key: bytes, value: bytes) -> _Step | None:
        """What to do with a ripe row of the queue; None: nothing now."""
        record = decode(key, value)
        queued = Equals(key, value)
        if isinstance(record.row, StripeRow):
            row = record.row
            return _Step(Mutation([queued], [Delete(key)]), (Owner(row.owner), row.owner_id, row.stripe))
        if record.kind == Kind.CHUNK:
            return self._chunk(record, queued)
        return await self._pack(record, queued)

    def _chunk(self, record: Record, queued: Equals) -> _Step:
        key, counts = chunk_key(record.id), chunk_counter_key(record.id)
        if self._ground.state.get(counts) is not None:  # referred to again since
            return _Step(Mutation([queued, Present(counts)], [Delete(queued.key)]))
        value = self._ground.state.get(key)
        if value is None:
            return _Step(Mutation([queued, Absent(key)], [Delete(queued.key)]))
        return _Step(
            Mutation([Absent(counts), Equals(key, value), queued], [Delete(key), Delete(queued.key)]),
            (Owner.CHUNK, record.id, decode_chunk(value).stripe),
            "chunks_collected",
        )

    async def _pack(self, record: Record, queued: Equals) -> _Step | None:
        key = pack_key(record.id)
        value = self._ground.state.get(key)
        if value is None:
            return _Step(Mutation([queued, Absent(key)], [Delete(queued.key)]))
        row = decode_pack(value)
        if all(slot.flags & (SLOT_DEAD | SLOT_GONE) for slot in slots_of(row)):
            return _Step(
                Mutation([Equals(key, value), queued], [Delete(key), Delete(queued.key)]),
                (Owner.PACK, record.id, row.stripe),
                "packs_collected",
            )
        if live_share(row) >= self._ground.limits.compact_live_ratio:
            return _Step(Mutation([Equals(key, value), queued], [Delete(queued.key)]))
        try:
            return await self._compact(record.id, value, row, queued)
        except (Corrupt, AbsentError) as error:  # a pack that cannot be read is kept as it is, for repair
            self._ground.on_damage(Entry(Kind.SLOT, record.id, 0, 0), error)
        except OstrakaError:
            pass  # disks away, or no room: a later sweep
        return None

    async def _compact(self, pack: bytes, value: bytes, row: PackRow, queued: Equals) -> _Step:
        """Write the live slots anew; the old stripe stays until the readers in flight are done (law 6)."""
        ground, key = self._ground, pack_key(pack)
        body = await ground.pool.read(row.stripe, 0, row.stripe.length)
        built = await ground.in_thread(packs.rebuild, body, row)
        stripe = await ground.pool.write(Owner.PACK, pack, built.body, len(built.body), row.stripe.pool)
        old = encode(StripeRow(ROW_VERSION, Owner.PACK, pack, row.stripe))
        return _Step(
            Mutation(
                [Equals(key, value), queued],
                [
                    Put(key, encode(PackRow(ROW_VERSION, built.slots, stripe, row.seal))),
                    Delete(queued.key),
                    Put(zero_stripe_key(row.stripe), old, stamp_value=True),
                ],
            ),
            count="packs_compacted",
            written=(Owner.PACK, pack, stripe),
        )


assert len(ZERO + PACKS) == 2  # the queue's kinds are single bytes
