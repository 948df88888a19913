"""The collector deletes only what is unreferenced, past its grace and past every reader, re-checked in the commit."""

import asyncio

import msgspec
import pytest

from ostraka.chunks.rows import (
    CHUNKS,
    PACKS,
    SLOT_COUNTERS,
    ZERO,
    chunk_counter_key,
    chunk_key,
    decode_pack,
    encode,
    named,
    pack_key,
)
from ostraka.errors import Corrupt
from ostraka.limits import KIB
from ostraka.pools.types import Owner
from ostraka.state import Delete, Mutation, Put, Rejected
from ostraka.state.types import SEQUENCE_MAX

SIZE = 20 * KIB


def pass_time(rig) -> None:
    rig.clock.now += rig.limits.collect_grace_seconds + 1


async def test_nothing_is_deleted_before_the_grace_that_the_collector_itself_observed(rig) -> None:
    entry = await rig.store(rig.noise(SIZE))
    await rig.drop(entry)
    pass_time(rig)  # nobody watched: it does not count
    assert await rig.chunks.sweep(100) == 0
    rig.clock.now += rig.limits.collect_grace_seconds - 1
    assert await rig.chunks.sweep(100) == 0
    assert len(rig.pool.bodies()) == 1
    rig.clock.now += 1
    assert await rig.chunks.sweep(100) == 1
    assert rig.pool.bodies() == rig.rows() == {}


async def test_the_grace_begins_anew_for_a_collector_that_starts(rig) -> None:
    await rig.drop(await rig.store(rig.noise(SIZE)))
    await rig.chunks.sweep(100)
    pass_time(rig)
    assert await rig.another().sweep(100) == 0
    assert await rig.chunks.sweep(100) == 1


async def test_a_reader_in_flight_holds_back_what_it_may_be_reading_and_no_more(rig) -> None:
    old, new = await rig.store(rig.noise(SIZE)), await rig.store(rig.noise(SIZE))
    await rig.drop(old)
    await rig.state.commit(Mutation())
    rig.pinned = rig.state.sequence  # a reader starts here: it cannot know of old, and may read new
    await rig.drop(new)
    await rig.chunks.sweep(100)
    for _ in range(3):
        pass_time(rig)
        await rig.chunks.sweep(100)
    assert len(await rig.read(new)) == SIZE
    assert set(rig.rows(CHUNKS)) == {chunk_key(new.id)}
    rig.pinned = SEQUENCE_MAX
    assert await rig.sweep_all() >= 1
    assert rig.pool.bodies() == {}


async def test_a_second_death_starts_the_wait_anew(rig) -> None:
    body = rig.noise(SIZE)
    entry = await rig.store(body)
    await rig.drop(entry)
    await rig.chunks.sweep(100)
    pass_time(rig)
    await rig.store(body)  # alive again
    rig.pinned = rig.state.sequence  # a reader of the second life
    await rig.drop(entry)
    await rig.chunks.sweep(100)
    pass_time(rig)
    await rig.chunks.sweep(100)
    assert await rig.read(entry) == body


async def test_a_chunk_that_is_referred_to_again_leaves_the_queue(rig) -> None:
    body = rig.noise(SIZE)
    await rig.drop(await rig.store(body))
    entry = await rig.store(body)
    assert await rig.sweep_all() == 1
    assert rig.rows(ZERO) == {}
    assert await rig.read(entry) == body


@pytest.mark.parametrize("and_dropped", [False, True])
async def test_a_reference_that_lands_between_look_and_commit_saves_the_chunk(rig, and_dropped: bool) -> None:
    """The collector decides by its commit, not by what it saw; even a life that ended again may have readers."""
    body = rig.noise(SIZE)
    entry = await rig.store(body)
    await rig.drop(entry)
    await rig.chunks.sweep(100)
    pass_time(rig)
    commit_many = rig.state.commit_many

    async def late(mutations):
        if any(isinstance(op, Delete) for mutation in mutations for op in mutation.operations):
            rig.state.commit_many = commit_many
            await rig.store(body)
            if and_dropped:
                await rig.drop(entry)
        return await commit_many(mutations)

    rig.state.commit_many = late
    assert await rig.chunks.sweep(100) == 0
    assert rig.state.commit_many == commit_many
    assert await rig.read(entry) == body


async def test_a_repair_during_a_rewrite_makes_it_void(rig) -> None:
    bodies = [rig.noise(1000) for _ in range(6)]
    entries = await asyncio.gather(*(rig.store(body) for body in bodies))
    await rig.drop(*entries[:4])
    await rig.chunks.sweep(100)
    pass_time(rig)
    rig.pool.may_write.clear()
    sweep = asyncio.ensure_future(rig.chunks.sweep(100))
    await rig.until(lambda: rig.pool.reads)
    key = pack_key(entries[0].id)
    row = decode_pack(rig.state.get(key))
    moved = msgspec.structs.replace(row, stripe=rig.pool.move(row.stripe))
    await rig.state.commit(Mutation((), [Put(key, encode(moved))]))
    rig.pool.may_write.set()
    assert await sweep == 0
    assert list(rig.pool.bodies()) == [moved.stripe.write_id]
    assert await rig.read(entries[5]) == bodies[5]


async def test_a_slot_that_was_copied_and_dropped_costs_no_row_any_more(rig) -> None:
    entry = await rig.store(rig.noise(100))
    await rig.refer(entry, entry)
    assert len(rig.rows(SLOT_COUNTERS)) == 1
    await rig.drop(entry)
    await rig.drop(entry)
    assert rig.rows(SLOT_COUNTERS) == {}
    assert len(await rig.read(entry)) == 100
    await rig.refer(entry)
    await rig.drop(entry, entry)
    await rig.sweep_all()
    assert rig.rows() == rig.pool.bodies() == {}


async def test_two_collectors_free_everything_once(rig) -> None:
    other = rig.another()
    entries = [await rig.store(rig.noise(SIZE)) for _ in range(10)]
    await rig.drop(*entries)
    await asyncio.gather(rig.chunks.sweep(100), other.sweep(100))
    pass_time(rig)
    settled = await asyncio.gather(rig.chunks.sweep(100), other.sweep(100))
    assert sum(settled) == 10
    assert rig.pool.bodies() == rig.rows() == {}


async def test_a_sweep_settles_no_more_than_it_was_allowed(rig) -> None:
    for _ in range(3):
        await rig.drop(*[await rig.store(rig.noise(9000)) for _ in range(10)])
    await rig.chunks.sweep(100)
    pass_time(rig)
    counts = [await rig.chunks.sweep(7) for _ in range(6)]
    assert counts == [7, 7, 7, 7, 2, 0]


async def test_old_rows_are_found_behind_any_number_of_young_ones(rig) -> None:
    old = [await rig.store(rig.noise(9000)) for _ in range(3)]
    await rig.drop(*old)
    await rig.chunks.sweep(1)
    rig.pinned = rig.state.sequence + 1
    young = [Put(ZERO + b"c" + bytes(8) + n.to_bytes(32, "big"), b"", stamp_value=True) for n in range(3000)]
    await rig.state.commit(Mutation((), young))
    pass_time(rig)
    settled = 0
    for _ in range(3200):
        settled += await rig.chunks.sweep(1)
    assert settled == 3


async def test_a_dead_slot_stays_readable_until_its_pack_is_rewritten_behind_its_readers(rig) -> None:
    bodies = [rig.noise(1000) for _ in range(6)]
    entries = await asyncio.gather(*(rig.store(body) for body in bodies))
    await rig.drop(*entries[:5])
    rig.pinned = rig.state.sequence - 1
    for _ in range(3):
        pass_time(rig)
        await rig.chunks.sweep(100)
    for entry, body in zip(entries, bodies, strict=True):
        assert await rig.read(entry) == body


async def test_a_pack_that_is_mostly_dead_is_rewritten_and_its_old_stripe_outlives_its_readers(rig) -> None:
    bodies = [rig.noise(1000) if n % 2 else rig.text(3000) for n in range(8)]
    entries = await asyncio.gather(*(rig.store(body) for body in bodies))
    pack = entries[0].id
    before = decode_pack(rig.state.get(pack_key(pack))).stripe
    await rig.drop(*entries[2:])
    await rig.chunks.sweep(100)
    pass_time(rig)
    assert await rig.chunks.sweep(100) == 1
    after = decode_pack(rig.state.get(pack_key(pack))).stripe
    assert after.length < before.length / 2
    assert [await rig.read(entry) for entry in entries[:2]] == bodies[:2]
    assert set(rig.pool.bodies()) == {before.write_id, after.write_id}
    assert named(rig.state, Owner.PACK, pack, before.write_id)
    with pytest.raises(Corrupt):
        await rig.read(entries[5])
    await rig.sweep_all()
    assert set(rig.pool.bodies()) == {after.write_id}
    assert not named(rig.state, Owner.PACK, pack, before.write_id)
    await rig.drop(*entries[:2])
    await rig.sweep_all()
    assert rig.pool.bodies() == rig.rows() == {}


async def test_a_pack_that_is_mostly_alive_is_left_alone(rig) -> None:
    entries = await asyncio.gather(*(rig.store(rig.noise(1000)) for _ in range(10)))
    await rig.drop(*entries[:3])
    assert rig.rows(ZERO) == {}
    await rig.sweep_all()
    assert rig.pool.writes == 1


async def test_a_pack_that_cannot_be_read_is_not_rewritten_and_is_told(rig) -> None:
    entries = await asyncio.gather(*(rig.store(rig.noise(1000)) for _ in range(4)))
    await rig.drop(*entries[:3])
    stripe = decode_pack(rig.state.get(pack_key(entries[0].id))).stripe
    rig.pool.damage_unseen(stripe.write_id, stripe.length - 1)  # in the slot that lives
    await rig.sweep_all()
    assert rig.damage
    assert list(rig.pool.bodies()) == [stripe.write_id]
    assert len(rig.rows(PACKS)) == 1


async def test_a_death_during_a_rewrite_makes_it_void(rig) -> None:
    bodies = [rig.noise(1000) for _ in range(6)]
    entries = await asyncio.gather(*(rig.store(body) for body in bodies))
    await rig.drop(*entries[:4])
    await rig.chunks.sweep(100)
    pass_time(rig)
    rig.pool.may_write.clear()
    sweep = asyncio.ensure_future(rig.chunks.sweep(100))
    await rig.until(lambda: rig.pool.reads)
    await rig.drop(entries[4])
    rig.pool.may_write.set()
    assert await sweep == 0
    assert len(rig.pool.bodies()) == 1  # the rewritten one was given back
    assert await rig.read(entries[4]) == bodies[4]
    await rig.sweep_all()
    assert await rig.read(entries[5]) == bodies[5]


async def test_counts_that_cannot_be_are_an_error_and_give_up_nothing(rig) -> None:
    chunk, slot = await rig.store(rig.noise(SIZE)), await rig.store(rig.noise(100))
    for entry in (chunk, slot):
        with pytest.raises(Corrupt):
            await rig.chunks.dismantle([entry, entry])
        await rig.drop(entry)
        with pytest.raises(Corrupt):
            await rig.chunks.dismantle([entry])


async def test_of_two_dismantlings_that_saw_the_same_count_one_is_rejected(rig) -> None:
    body = rig.noise(SIZE)
    entry = await rig.store(body)
    await rig.store(body)
    first, second = await rig.chunks.dismantle([entry]), await rig.chunks.dismantle([entry])
    await rig.state.commit(Mutation(*first))
    with pytest.raises(Rejected):
        await rig.state.commit(Mutation(*second))
    await rig.drop(entry)
    assert rig.state.get(chunk_counter_key(entry.id)) is None
    await rig.sweep_all()
    assert rig.pool.bodies() == {}
