"""The stripes that the state names, one after the other, and what it takes to make one whole again.

`mend` is the only way in which healing, fsck and disk replace change a stripe: shards are made anew by the pool and
synced; then the row is changed if it is still the one that was read (law 8). What loses that race is dead bytes.

Where shards lie on disks that are gone for good and no other disk is free for them, the body is written anew as a
narrower stripe with the same m (ENGINE 2); the old stripe waits in the zero queue for the readers in flight.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from ostraka.chunks.rows import (
    CHUNKS,
    PACKS,
    ROW_VERSION,
    ChunkRow,
    Health,
    PackRow,
    StripeRow,
    chunk_key,
    decode_chunk,
    decode_pack,
    encode,
    pack_key,
    zero_stripe_key,
)
from ostraka.errors import Corrupt, Full, Unavailable
from ostraka.jobs.ground import Ground
from ostraka.pools.types import Owner, ShardHealth, Stripe
from ostraka.state.types import Equals, Mutation, Operation, Put, Rejected, State, prefix_end

MOVES_MAX = 4  # how often a row may change under one repair


class Named(NamedTuple):
    """A row that names a stripe."""

    owner: Owner
    owner_id: bytes
    key: bytes
    value: bytes
    row: ChunkRow | PackRow

    @property
    def stripe(self) -> Stripe:
        return self.row.stripe

    @property
    def name(self) -> str:
        return f"{self.owner.name.lower()} {self.owner_id.hex()}"


class Mended(NamedTuple):
    """What became of a stripe. "whole": nothing was wrong; "away": later, with other disks; "lost": fewer than k
    shards are good; "gone": nothing names it any more. ``bad``: disks of shards that are not good now. ``rebuilt``:
    shards were written anew and the state names them, whether or not others are still away."""

    outcome: Literal["whole", "repaired", "away", "lost", "gone"]
    note: str = ""
    bad: frozenset[int] = frozenset()
    rebuilt: bool = False


def key_of(owner: Owner, owner_id: bytes) -> bytes:
    return (chunk_key if owner == Owner.CHUNK else pack_key)(owner_id)


def read_named(key: bytes, value: bytes) -> Named:
    """The row of a chunk or pack. Raises Corrupt."""
    if key[:1] == CHUNKS:
        return Named(Owner.CHUNK, key[-32:], key, value, decode_chunk(value))
    return Named(Owner.PACK, key[1:], key, value, decode_pack(value))


def pages(state: State, after: bytes, size: int) -> Iterator[list[tuple[bytes, bytes]]]:
    """Pages of chunk and pack rows from ``after`` on (b"": all), as (key, value), in key order."""
    for table in sorted((CHUNKS, PACKS)):
        start, end = max(table, after), prefix_end(table)
        while end is None or start < end:
            page = state.scan(start, end, size)
            if page:
                yield page
            if len(page) < size:
                break
            start = page[-1][0] + b"\0"


async def mend(ground: Ground, named: Named) -> Mended:
    """Make the stripe that this row names whole, and have the state name what it became."""
    before = named
    for _ in range(MOVES_MAX):
        result = await _mend_once(ground, before)
        if result is not None:
            return result
        value = ground.state.get(before.key)
        if value is None:
            return Mended("gone")
        before = read_named(before.key, value)
    return Mended("away", f"{named.name} is changed again and again", frozenset(before.stripe.disks))


async def _mend_once(ground: Ground, named: Named) -> Mended | None:
    """One try; None when the row changed meanwhile."""
    pool, old = ground.pools, named.stripe
    try:
        new = await pool.repair(named.owner, named.owner_id, old)
    except Corrupt as error:
        return Mended("lost", error.message) if _stands(ground, named) else None
    except (Unavailable, Full) as error:
        if not _stands(ground, named):
            return None
        return await rewrite(ground, named) if _must_move(ground, old) else await _away(ground, old, error.message)
    if new is not None and _must_move(ground, new):
        pool.settle([new])
        return await rewrite(ground, named)
    if new is None:
        return Mended("whole") if await adopt(ground, named, old) else None
    try:
        landed = await adopt(ground, named, new)
    finally:
        pool.settle([new])
    if not landed:
        return None
    if any(ground.membership.disk(disk) is None for disk in new.disks):
        return (await _away(ground, new, "some of its disks are away"))._replace(rebuilt=True)
    return Mended("repaired", rebuilt=True)


def _stands(ground: Ground, named: Named) -> bool:
    """Whether the row still names the stripe: shards of one that was deleted or moved under us are no loss."""
    value = ground.state.get(named.key)
    return value is not None and read_named(named.key, value).stripe == named.stripe


async def _away(ground: Ground, stripe: Stripe, why: str) -> Mended:
    bad = [shard for shard in await ground.pools.verify(stripe) if shard.state != "good"]
    return Mended("away", f"{why} ({describe(bad)})", frozenset(shard.disk for shard in bad))


def _must_move(ground: Ground, stripe: Stripe) -> bool:
    """Whether a shard of it is on a disk that is gone, although there are disks enough for the same m."""
    membership = ground.membership
    if not any(membership.gone(disk) for disk in stripe.disks) or membership.read_only:
        return False
    return len(membership.up()) > membership.m


async def rewrite(ground: Ground, named: Named) -> Mended | None:
    """Read the body and write it as a stripe of its own, as wide as stripes are now. None when the row changed."""
    pool, old = ground.pools, named.stripe
    try:
        body = await pool.read(old, 0, old.length)
        new = await pool.write(named.owner, named.owner_id, body, old.length, old.pool)
    except Corrupt as error:
        return Mended("lost", error.message) if _stands(ground, named) else None
    except (Unavailable, Full) as error:
        return await _away(ground, old, error.message)
    try:
        landed = await adopt(ground, named, new)
    finally:
        pool.settle([new])  # whatever became of the commit: compaction asks the state
    return Mended("repaired", rebuilt=True) if landed else None


async def adopt(ground: Ground, named: Named, new: Stripe) -> bool:
    """Have the row name the stripe as it is now, with nothing known against it. False: the row changed."""
    row: ChunkRow | PackRow = msgspec.structs.replace(named.row, stripe=new)
    if isinstance(row, ChunkRow) and row.health != Health.GOOD:
        row = msgspec.structs.replace(row, health=int(Health.GOOD))
    if row == named.row:
        return True
    operations: list[Operation] = [Put(named.key, encode(row))]
    if new.write_id != named.stripe.write_id:
        dead = encode(StripeRow(ROW_VERSION, named.owner, named.owner_id, named.stripe))
        operations.append(Put(zero_stripe_key(named.stripe), dead, stamp_value=True))
    try:
        await ground.state.commit(Mutation([Equals(named.key, named.value)], operations))
    except Rejected:
        return False
    return True


async def relocate(ground: Ground, named: Named, targets: Mapping[int, int]) -> Stripe | None:
    """Have shards (index to disk) of the stripe that this row names lie on other disks; the stripe as it became, or
    None when the row changed. Raises what keeps all of them from being moved.

    The bytes are synced on the new disk, then one commit names it, and only then is the old disk told. A reader that
    looked the row up before finds the shard gone at worst: it computes it, or looks the row up again. After a crash
    one of the two copies is named by nobody, and compaction finds it.
    """
    pool, old = ground.pool, named.stripe
    new = await pool.move(named.owner, named.owner_id, old, targets)
    moved = {index: new.disks[index] for index in targets if new.disks[index] != old.disks[index]}
    row = encode(msgspec.structs.replace(named.row, stripe=new))
    try:
        await ground.state.commit(Mutation([Equals(named.key, named.value)], [Put(named.key, row)]))
    except Rejected:
        landed = False
    else:
        landed = True
    finally:
        pool.settle([new])  # whatever became of the commit: compaction asks the state
    calls = pool.give_up(old, {index: old.disks[index] for index in moved} if landed else moved)
    if calls:
        await asyncio.wait(calls)  # else one could meet the next move, back to that disk
    return new if landed else None


def describe(bad: list[ShardHealth]) -> str:
    return ", ".join(f"shard {shard.index} on disk {shard.disk} is {shard.state}" for shard in bad)
