"""Group commit of small bodies: who shares a pack, and what becomes of those that were never committed."""

import asyncio
from dataclasses import replace

import pytest

from ostraka.chunks import packs
from ostraka.chunks.rows import PACKS, ZERO, decode_pack, pack_key
from ostraka.errors import Corrupt, Full, Overloaded
from ostraka.limits import KIB
from ostraka.state import Mutation, Put


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_body_that_comes_alone_is_written_at_once_and_alone(rig) -> None:
    for n in range(3):
        entry = await rig.store(rig.noise(100 + n))
        assert entry.slot == 0
    assert rig.pool.writes == 3


async def test_bodies_that_arrive_while_packs_are_written_share_the_next_one(rig) -> None:
    rig.pool.may_write.clear()
    tasks = []
    for wave in range(2 + 10):
        tasks.append(asyncio.ensure_future(rig.place(rig.noise(50))))
        if wave < 2:
            await turns()  # the first two go alone: that many packs may be in flight
    await turns()
    rig.pool.may_write.set()
    placements = await asyncio.gather(*tasks)
    assert rig.pool.writes == 3
    await rig.commit(*placements)
    assert sorted(p.entry.slot for p in placements) == sorted([0, 0, *range(10)])


async def test_a_pack_is_bounded_in_slots_and_in_bytes(rig) -> None:
    bodies = [rig.noise(40) for _ in range(40)] + [rig.noise(4 * KIB) for _ in range(20)]
    entries = await asyncio.gather(*(rig.store(body) for body in bodies))
    for key, value in rig.rows(PACKS).items():
        row = decode_pack(value)
        slots = packs.parse(rig.pool.bodies()[row.stripe.write_id])
        assert len(slots) <= rig.limits.pack_slots_max
        assert row.stripe.length <= rig.limits.pack_bytes_max
        assert slots == packs.slots_of(row), key
    for entry, body in zip(entries, bodies, strict=True):
        assert await rig.read(entry) == body


async def test_all_of_a_pack_may_be_committed_in_any_order_and_its_row_is_written_once(rig) -> None:
    placements = await asyncio.gather(*(rig.place(rig.noise(100)) for _ in range(6)))
    rig.random.shuffle(placements)
    for placed in placements:
        await rig.commit(placed)
        assert len(rig.rows(PACKS)) == 1


async def test_callers_memory_may_be_used_again_at_once(rig) -> None:
    memory = bytearray(rig.noise(1000))
    before = bytes(memory)
    task = asyncio.ensure_future(rig.chunks.place_small(memoryview(memory)))
    await asyncio.sleep(0)
    memory[:] = bytes(1000)
    placed = await task
    await rig.commit(placed)
    assert await rig.read(placed.entry) == before


async def test_small_bodies_wait_for_room_and_find_it(rig) -> None:
    rig.pool.may_write.clear()
    tasks = [asyncio.ensure_future(rig.place(rig.noise(4 * KIB))) for _ in range(200)]
    await turns()
    assert rig.chunks._packer._waiting_bytes <= rig.limits.pack_waiting_bytes_max
    rig.pool.may_write.set()
    placements = await asyncio.gather(*tasks)
    await rig.commit(*placements)
    assert len({(p.entry.id, p.entry.slot) for p in placements}) == 200


async def test_small_bodies_are_told_when_there_is_no_room_until_the_deadline(rig) -> None:
    rig.limits = replace(rig.limits, pack_waiting_bytes_max=8 * KIB, commit_wait_seconds_max=0.05)
    rig.chunks = rig.another()
    rig.pool.may_write.clear()
    accepted = []
    for _ in range(4):  # two go at once, each alone; two fill the queue
        accepted.append(asyncio.ensure_future(rig.place(rig.noise(4 * KIB))))
        await turns()
    for _ in range(2):
        with pytest.raises(Overloaded):
            await rig.place(rig.noise(4 * KIB))
    rig.pool.may_write.set()
    for task in accepted:
        (await task).abandon()


async def test_a_failed_pack_write_is_told_to_everybody_in_it_and_to_nobody_else(rig) -> None:
    rig.pool.failing = Full("no room", reason="writes")
    answers = await asyncio.gather(*(rig.place(rig.noise(100)) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(answer, Full) for answer in answers)
    rig.pool.failing = None
    body = rig.noise(100)
    assert await rig.read(await rig.store(body)) == body


async def test_a_pack_of_which_nothing_was_committed_is_given_back(rig) -> None:
    placements = await asyncio.gather(*(rig.place(rig.noise(100)) for _ in range(5)))
    for placed in placements:
        placed.abandon()
    await rig.chunks.settled()
    assert rig.pool.bodies() == {}


async def test_bodies_that_were_never_committed_are_dead_in_the_pack_of_their_neighbours(rig) -> None:
    bodies = [rig.noise(1000) for _ in range(5)]
    placements = await asyncio.gather(*(rig.place(body) for body in bodies))
    for placed in placements[:4]:
        placed.abandon()
    await rig.commit(placements[4])
    await rig.chunks.settled()
    assert len(rig.rows(ZERO)) == 1
    await rig.sweep_all()
    (stored,) = rig.pool.bodies().values()
    assert len(stored) < 1500
    assert await rig.read(placements[4].entry) == bodies[4]
    await rig.drop(placements[4].entry)
    await rig.sweep_all()
    assert rig.pool.bodies() == rig.rows() == {}


async def test_callers_that_leave_take_their_bodies_with_them(rig) -> None:
    rig.pool.may_write.clear()
    tasks = [asyncio.ensure_future(rig.place(rig.noise(500))) for _ in range(6)]
    await turns()
    late = asyncio.ensure_future(rig.place(rig.noise(500)))
    await turns()
    waiting = asyncio.ensure_future(rig.place(rig.noise(500)))
    await turns()
    for task in (*tasks[:5], late, waiting):  # in flight with others, in flight alone, and still waiting
        task.cancel()
    await turns()
    rig.pool.may_write.set()
    kept = await tasks[5]
    await asyncio.gather(*tasks[:5], late, waiting, return_exceptions=True)
    await rig.commit(kept)
    await rig.chunks.settled()
    await rig.drop(kept.entry)
    await rig.sweep_all()
    assert rig.pool.bodies() == rig.rows() == {}


async def test_a_caller_that_is_cancelled_just_as_its_pack_was_written_leaves_no_live_slot(rig) -> None:
    tasks = [asyncio.ensure_future(rig.place(rig.noise(500))) for _ in range(2)]
    await rig.until(lambda: rig.pool.writes)
    await rig.until(lambda: tasks[0]._fut_waiter is not None and tasks[0]._fut_waiter.done())  # and not yet taken
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    kept = await tasks[1]
    await rig.commit(kept)
    await rig.chunks.settled()
    await rig.drop(kept.entry)
    await rig.sweep_all()
    assert rig.pool.bodies() == {}


async def test_a_neighbour_whose_commit_is_on_the_way_keeps_the_pack_of_those_that_were_abandoned(rig) -> None:
    bodies = [rig.noise(500) for _ in range(2)]
    placements = await asyncio.gather(*(rig.place(body) for body in bodies))
    gate = rig.hold_commits()
    landing = asyncio.ensure_future(rig.state.commit(Mutation((), placements[1].operations)))
    await turns()
    placements[0].abandon()
    placements[1].release()
    await turns()
    gate.set()
    await landing
    await rig.chunks.settled()
    assert await rig.read(placements[1].entry) == bodies[1]
    assert rig.pool.unsettled == set()
    await rig.drop(placements[1].entry)
    await rig.sweep_all()
    assert rig.rows() == rig.pool.bodies() == {}


async def test_a_pack_row_that_is_damaged_is_an_error_for_reader_and_collector(rig) -> None:
    entry = await rig.store(rig.noise(500))
    await rig.state.commit(Mutation((), [Put(pack_key(entry.id), b"\x93\x01nonsense")]))
    with pytest.raises(Corrupt):
        await rig.read(entry)
    with pytest.raises(Corrupt):
        await rig.drop(entry)
