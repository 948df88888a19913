"""Memory is bounded by limits, not by what is stored or read (law 10)."""

import asyncio
from dataclasses import replace

from ostraka.chunks.frames import FrameTable
from ostraka.chunks.reading import TableCache
from ostraka.limits import KIB


async def test_receive_buffers_wait_for_room_and_all_come_back(rig) -> None:
    async def put(n: int) -> None:
        await rig.commit(await rig.place(rig.noise(60 * KIB) if n % 2 else rig.text(60 * KIB)))

    await asyncio.gather(*(put(n) for n in range(60)))
    assert rig.pool.buffers_bytes_peak <= rig.limits.buffers_bytes_max
    assert rig.pool.buffers_bytes == 0


async def test_a_slow_reader_holds_one_piece_and_reads_one_ahead(rig) -> None:
    entry = await rig.store(rig.noise(64 * KIB))
    taken = 0
    async for piece in rig.chunks.read(entry, 0, 64 * KIB):
        taken += len(piece)
        for _ in range(20):
            await asyncio.sleep(0)
        asked = sum(length for _, offset, length in rig.pool.reads if offset)
        assert asked <= taken + rig.limits.read_piece_max
        assert len(piece) <= rig.limits.read_piece_max


async def test_what_compresses_well_unfolds_in_bounded_pieces(rig) -> None:
    body = bytes(64 * KIB)
    entry = await rig.store(body)
    got = b""
    async for piece in rig.chunks.read(entry, 0, 64 * KIB):
        assert len(piece) <= 2 * rig.limits.read_piece_max
        got += bytes(piece)
    assert got == body


async def test_frame_tables_that_are_remembered_are_bounded(rig) -> None:
    rig.limits = replace(rig.limits, frame_tables_bytes_max=2000)
    rig.chunks = rig.another()
    entries = [await rig.store(rig.noise(30 * KIB)) for _ in range(20)]
    for entry in entries + entries:
        assert len(await rig.read(entry)) == 30 * KIB
        assert 0 < rig.chunks._reader._tables.bytes <= 2000


def test_the_least_recently_used_table_is_dropped_first() -> None:
    table = FrameTable(8, 8, 64)
    cache = TableCache(2 * table.size)
    cache.put(b"a", table)
    cache.put(b"b", table)
    assert cache.get(b"a")
    cache.put(b"c", table)
    assert cache.get(b"a") is table
    assert cache.get(b"b") is None
    assert cache.bytes == 2 * table.size
