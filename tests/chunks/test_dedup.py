"""Deduplication: the same bytes are stored once, and a hit is a write that the collector honours (law 4, ENGINE 16)."""

import asyncio

import pytest

from ostraka.chunks import Health
from ostraka.chunks.rows import CHUNK_COUNTERS, CHUNKS, ZERO, chunk_counter_key, chunk_key, decode_chunk
from ostraka.errors import Full, Unavailable
from ostraka.limits import KIB
from ostraka.state import Absent, Mutation, Put, Rejected, counter

SIZE = 40 * KIB


async def references(rig, entry) -> int:
    value = rig.state.get(chunk_counter_key(entry.id))
    return counter(value) if value is not None else 0


async def test_the_same_bytes_are_stored_once_and_counted_twice(rig) -> None:
    body = rig.noise(SIZE)
    first = await rig.store(body)
    second = await rig.store(body)
    assert first == second
    assert rig.pool.writes == 1
    assert await references(rig, first) == 2
    totals = rig.chunks.counters.totals()
    assert (totals["dedup_hits"], totals["dedup_saved_bytes"]) == (1, SIZE)


async def test_bodies_that_fit_a_pack_are_not_deduplicated(rig) -> None:
    body = rig.noise(rig.limits.pack_size_max)
    assert await rig.store(body) != await rig.store(body)


async def test_another_store_gives_the_same_bytes_another_id(rig) -> None:
    from ostraka.chunks import ChunkStore

    other = ChunkStore(rig.pool, rig.state, b"o" * 32, limits=rig.limits)
    body = rig.noise(SIZE)
    mine, theirs = await rig.place(body), await rig.place(body, other)
    assert mine.entry.id != theirs.entry.id
    mine.abandon()
    theirs.abandon()
    await other.close()


async def test_of_two_writers_that_both_miss_one_lands_and_the_other_becomes_a_hit(rig) -> None:
    body = rig.noise(SIZE)
    first, second = await asyncio.gather(rig.place(body), rig.place(body, rig.another()))
    assert len(rig.pool.bodies()) == 2
    await rig.commit(first)
    with pytest.raises(Rejected) as rejected:
        await rig.state.commit(Mutation(second.preconditions, second.operations))
    assert rejected.value.tag == "chunk"
    await rig.commit(await second.again())
    assert await references(rig, second.entry) == 2
    await asyncio.sleep(0)
    assert len(rig.pool.bodies()) == 1  # the loser's stripe was given back
    assert await rig.read(second.entry) == body


async def test_a_hit_whose_chunk_was_collected_before_its_commit_is_written_anew(rig) -> None:
    body = rig.noise(SIZE)
    entry = await rig.store(body)
    hit = await rig.place(body)
    await rig.drop(entry)
    assert await rig.sweep_all() == 1
    assert rig.pool.bodies() == {}
    await rig.commit(hit)
    assert rig.pool.writes == 2
    assert await rig.read(entry) == body
    assert await references(rig, entry) == 1


async def test_a_hit_on_a_chunk_that_waits_for_collection_keeps_it(rig) -> None:
    body = rig.noise(SIZE)
    entry = await rig.store(body)
    await rig.drop(entry)
    await rig.commit(await rig.place(body))
    await rig.sweep_all()
    assert rig.rows(ZERO) == {}
    assert await rig.read(entry) == body
    assert rig.pool.writes == 1


async def test_one_commit_may_name_the_same_new_chunk_several_times(rig) -> None:
    body = bytes(SIZE)
    placements = await asyncio.gather(*(rig.place(body) for _ in range(3)))
    await rig.commit(*placements)
    assert await references(rig, placements[0].entry) == 3
    assert await rig.read(placements[0].entry) == body


@pytest.mark.parametrize("health", [Health.DAMAGED, Health.UNDER_REDUNDANT])
async def test_a_chunk_that_is_known_to_be_bad_is_written_anew(rig, health: Health) -> None:
    body = rig.noise(SIZE)
    entry = await rig.store(body)
    old = decode_chunk(rig.state.get(chunk_key(entry.id))).stripe
    rig.pool.damage(old.write_id)
    assert await rig.chunks.mark(entry.id, health)
    assert await rig.store(body) == entry
    row = decode_chunk(rig.state.get(chunk_key(entry.id)))
    assert row.stripe.write_id != old.write_id
    assert row.health == Health.GOOD
    assert await references(rig, entry) == 2
    assert await rig.read(entry) == body
    assert old.write_id in rig.pool.bodies()  # for the readers in flight
    await rig.sweep_all()
    assert list(rig.pool.bodies()) == [row.stripe.write_id]


async def test_a_chunk_that_a_reader_found_damaged_is_repaired_by_uploading_it_again(rig) -> None:
    body = rig.noise(SIZE)
    entry = await rig.store(body)
    rig.pool.lose(decode_chunk(rig.state.get(chunk_key(entry.id))).stripe.write_id)
    with pytest.raises(Exception, match="verif"):
        await rig.read(entry)
    await rig.chunks.settled()
    await rig.store(body)
    assert await rig.read(entry) == body


async def test_a_stripe_that_is_not_known_to_be_whole_is_not_relied_upon(rig) -> None:
    from ostraka.chunks import ChunkStore

    careful = ChunkStore(rig.pool, rig.state, b"k" * 32, limits=rig.limits, redundant=lambda stripe: False)
    body = rig.noise(SIZE)
    await rig.commit(await rig.place(body, careful))
    await rig.commit(await rig.place(body, careful))
    assert rig.pool.writes == 2
    await careful.close()


async def test_a_commit_rejected_for_another_reason_may_be_tried_again_as_it_is(rig) -> None:
    body = rig.noise(SIZE)
    placed = await rig.place(body)
    await rig.state.commit(Mutation((), [Put(b"name", b"taken")]))
    with pytest.raises(Rejected):
        await rig.commit(placed, extra=[Absent(b"name", "if-none-match")])
    placed = await placed.again()
    await rig.commit(placed)
    assert rig.pool.writes == 1
    assert await rig.read(placed.entry) == body


async def test_an_abandoned_placement_leaves_nothing(rig) -> None:
    placed = await rig.place(rig.noise(SIZE))
    placed.abandon()
    placed.abandon()
    placed.release()
    await rig.chunks.settled()
    assert rig.pool.bodies() == {}
    assert rig.pool.buffers_bytes == 0
    assert rig.rows() == {}


async def test_an_abandoned_hit_leaves_the_chunk_alone(rig) -> None:
    body = rig.noise(SIZE)
    entry = await rig.store(body)
    (await rig.place(body)).abandon()
    await rig.chunks.settled()
    assert await rig.read(entry) == body
    assert await references(rig, entry) == 1


@pytest.mark.parametrize("size", [SIZE, 500])
async def test_what_is_released_while_its_commit_is_on_the_way_stays_until_that_is_decided(rig, size: int) -> None:
    body = rig.noise(size)
    placed = await rig.place(body)
    gate = rig.hold_commits()
    landing = asyncio.ensure_future(rig.state.commit(Mutation(placed.preconditions, placed.operations)))
    await asyncio.sleep(0)
    placed.release()  # its caller was cancelled
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(rig.pool.unsettled) == len(rig.pool.bodies()) == 1
    gate.set()
    await landing
    await rig.chunks.settled()
    assert rig.pool.unsettled == set()
    assert await rig.read(placed.entry) == body


@pytest.mark.parametrize("size", [SIZE, 500])
async def test_what_is_released_and_was_never_committed_is_given_back_behind_all_commits(rig, size: int) -> None:
    placed = await rig.place(rig.noise(size))
    gate = rig.hold_commits()
    placed.release()
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(rig.pool.unsettled) == len(rig.pool.bodies()) == 1
    gate.set()
    await rig.chunks.settled()
    assert rig.pool.unsettled == set()
    assert rig.pool.bodies() == rig.rows() == {}


async def test_what_nobody_can_decide_is_left_alone(rig) -> None:
    placed = await rig.place(rig.noise(SIZE))

    async def away(mutation):
        raise Unavailable("no copy of the state is left")

    rig.state.commit = away
    placed.release()
    await rig.chunks.settled()
    assert len(rig.pool.unsettled) == len(rig.pool.bodies()) == 1
    assert rig.pool.buffers_bytes == 0


async def test_a_cancelled_place_finishes_alone_and_gives_everything_back(rig) -> None:
    rig.pool.may_write.clear()
    task = asyncio.ensure_future(rig.place(rig.noise(SIZE)))
    await rig.until(lambda: rig.chunks._ground.tasks._running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.pool.buffers_bytes > 0  # the pool may still be reading from it
    rig.pool.may_write.set()
    await rig.chunks.settled()
    assert rig.pool.bodies() == {}
    assert rig.pool.buffers_bytes == 0


async def test_a_failed_write_is_told_and_holds_nothing(rig) -> None:
    rig.pool.failing = Full("no room", reason="writes")
    with pytest.raises(Full):
        await rig.place(rig.noise(SIZE))
    assert rig.pool.buffers_bytes == 0
    assert rig.rows(CHUNKS) == rig.rows(CHUNK_COUNTERS) == {}
