"""Defects of the sweeper that were found by reviewing it, each by its name."""

import asyncio

import pytest

from ostraka.chunks.rows import ZERO, chunk_key
from ostraka.errors import Unavailable
from ostraka.limits import KIB
from ostraka.state import Mutation, Put


def pass_time(rig) -> None:
    rig.clock.now += rig.limits.collect_grace_seconds + 1


async def test_one_row_of_the_queue_that_cannot_be_read_holds_up_none_of_the_others(rig) -> None:
    """It raised Corrupt each time it was met, and nothing behind it was ever collected."""
    entry = await rig.store(rig.noise(20 * KIB))
    bad = await rig.store(rig.noise(20 * KIB))
    await rig.drop(entry)
    await rig.drop(bad)
    await rig.state.commit(Mutation((), [Put(chunk_key(bad.id), b"nonsense")]))
    await rig.state.commit(Mutation((), [Put(ZERO + b"?", b"", stamp_value=True)]))
    await rig.chunks.sweep(100)
    pass_time(rig)
    assert await rig.chunks.sweep(100) == 1
    assert rig.state.get(chunk_key(entry.id)) is None
    assert rig.state.get(chunk_key(bad.id)) == b"nonsense"  # left to fsck, as it is


async def test_a_pack_rewritten_for_a_commit_that_failed_is_settled(rig) -> None:
    """Its segments were kept from compaction for as long as the process lived."""
    bodies = [rig.noise(2 * KIB) for _ in range(4)]
    placed = await asyncio.gather(*map(rig.chunks.place_small, bodies))
    assert len({one.entry.id for one in placed}) == 1
    await rig.commit(*placed)
    for one in placed[:3]:
        await rig.drop(one.entry)
    await rig.chunks.settled()
    await rig.chunks.sweep(100)
    pass_time(rig)
    assert not rig.pool.unsettled
    commit_many = rig.state.commit_many

    async def away(mutations: object) -> None:
        raise Unavailable("away")

    rig.state.commit_many = away
    with pytest.raises(Unavailable):
        await rig.chunks.sweep(100)
    rig.state.commit_many = commit_many
    await rig.chunks.settled()
    assert not rig.pool.unsettled
    assert await rig.read(placed[3].entry) == bodies[3]
