"""Defects of the collector that were found by reviewing it, each by its name."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from objects_rig import REAL, Rig, TurnedClock

from ostraka.chunks import ChunkStore, Entry
from ostraka.host import Host
from ostraka.objects import rows
from ostraka.objects.rows import DeadRecord
from ostraka.state import Mutation, Put
from ostraka.state.memory import MemoryState
from ostraka.testing.memory_pool import MemoryPool


class Slow:
    """Chunks whose `dismantle` lets somebody else go first: another process's commits land whenever they like."""

    def __init__(self, chunks: Any) -> None:
        self.chunks = chunks
        self.first: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.chunks, name)

    async def dismantle(self, entries: Sequence[Entry]) -> Any:
        first, self.first = self.first, None
        if first is not None:
            await first()
        return await self.chunks.dismantle(entries)


async def real_rig() -> tuple[Rig, Slow]:
    clock = TurnedClock()
    host, state = Host(clock=clock), MemoryState(REAL)
    slow = Slow(ChunkStore(MemoryPool(REAL, host), state, b"k" * 32, host=host, limits=REAL))
    return await Rig(REAL, state, slow, clock).start("bucket"), slow


async def put_and_delete(rig: Rig, count: int) -> None:
    for i in range(count):
        await rig.put("bucket", f"key{i}", b"%04d" % i * 50, here=True)
    for i in range(count):
        await rig.objects.delete("bucket", f"key{i}", owner="alice")


def left(rig: Rig) -> int:
    return len(rig.state.scan(rows.DEAD, rows.DEAD + b"\xff" * 9, 1000))


def test_a_collector_that_another_overtook_looks_again_and_reports_no_damage() -> None:
    async def run() -> None:
        rig, slow = await real_rig()
        await put_and_delete(rig, 5)
        alive = rig.incarnation.__eq__
        one, other = rig.objects.collector(alive), rig.objects.collector(alive)
        slow.first = lambda: other.collect(100)
        await one.collect(100)  # raised Corrupt: the slots were dead already
        assert left(rig) == 0

    asyncio.run(run())


def test_one_dead_row_whose_counts_do_not_fit_holds_up_none_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        rig, _ = await real_rig()
        wrong = DeadRecord((Entry(1, b"x" * 32, 0, 10),))
        await rig.state.commit(Mutation((), [Put(rows.DEAD, rows.encode(wrong), stamp_key=True)]))
        await put_and_delete(rig, 5)
        assert left(rig) > 1
        collector = rig.objects.collector(rig.incarnation.__eq__)
        with caplog.at_level(logging.ERROR):
            for _ in range(5):
                await collector.collect(100)  # raised Corrupt each time, and nothing was ever collected again
        assert left(rig) == 1
        assert len([r for r in caplog.records if "dead row" in r.message]) == 1

    asyncio.run(run())
