"""Defects of the erasure pool that were found by reviewing it, each by its name."""

import asyncio
import gc
from typing import Any

import pytest

from ostraka.errors import Full
from ostraka.limits import LIMITS
from ostraka.pools.buffers import Buffers, size_class
from ostraka.pools.reading import all_of
from ostraka.pools.types import Owner, Stripe


def test_a_write_that_names_a_disk_which_was_given_up_meanwhile_is_told_to_whoever_heals(make_store: Any) -> None:
    """A slow upload committed behind the healing, and its stripe lacked a shard for good."""

    async def run() -> None:
        store = make_store(2, 1, 4)
        told: list[tuple[Stripe, int]] = []
        store.pool.on_damage = lambda stripe, index: told.append((stripe, index))
        stripe = await store.pool.write(Owner.CHUNK, b"owner", b"x" * 100_000, 100_000)
        store.pool.settle([stripe])
        assert told == []
        other = await store.pool.write(Owner.CHUNK, b"owner", b"x" * 100_000, 100_000)
        store.down.add(other.disks[0])
        store.pool.settle([other])
        assert told == []  # it may come back: the healing walks then
        store.lost.add(other.disks[1])  # replaced, and healed: other was not there yet
        store.pool.settle([other])
        assert told == [(other, 1)]
        await store.close()

    asyncio.run(run())


def test_a_repair_that_was_cancelled_leaves_no_segment_that_is_never_settled(make_store: Any) -> None:
    """Where a shard was to go to a disk that the stripe did not name yet, it was never settled there."""

    async def run() -> None:
        store = make_store(2, 1, 4)
        stripe = await store.pool.write(Owner.CHUNK, b"owner", b"x" * 100_000, 100_000)
        store.pool.settle([stripe])
        store.down.add(stripe.disks[1])
        (spare,) = set(store.disks) - set(stripe.disks)
        reached = asyncio.Event()
        collect = store.pool._collect

        async def cut_short(*arguments: Any) -> Any:
            await collect(*arguments)
            reached.set()
            await asyncio.Event().wait()

        store.pool._collect = cut_short
        task = asyncio.create_task(store.pool.repair(Owner.CHUNK, b"owner", stripe))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not store.disks[spare].settling._writes
        await store.close()

    asyncio.run(run())


def test_what_one_of_several_reads_raises_is_raised_as_it_is() -> None:
    """It came wrapped in a group, which nobody up to the door knew: a 500, and the end of all background work."""

    async def fails() -> None:
        raise Full("no room")

    async def waits() -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        with pytest.raises(Full):
            await all_of([waits(), fails(), waits()])

    asyncio.run(run())


def test_memory_of_reads_that_reconstruct_is_counted_and_comes_back(make_store: Any) -> None:
    """k times what was read was taken beside limits.buffers_bytes_max: many degraded reads at once had no bound."""

    async def run() -> None:
        store = make_store(4, 2, 6)
        body = bytes(range(256)) * 8192  # 2 MiB: shards of 512 KiB
        stripe = await store.pool.write(Owner.CHUNK, b"owner", body, len(body))
        store.down.add(stripe.disks[0])
        buffers, seen = store.pool.buffers, []
        lend_beyond = buffers.lend_beyond

        def counted(size: int) -> memoryview:
            view: memoryview = lend_beyond(size)
            seen.append(buffers.bytes_used)
            return view

        buffers.lend_beyond = counted
        got = await store.pool.read(stripe, 0, 300_000)
        assert got == body[:300_000]
        assert max(seen) >= 5 * 300_000  # what is read, and as much of each of k others
        del got
        await store.close()  # with the threads goes what they were the last to hold
        gc.collect()
        await asyncio.sleep(0)
        assert buffers.bytes_used == 0

    asyncio.run(run())


def test_memory_of_every_class_is_as_large_as_it_is_counted_and_all_of_it_can_be_written() -> None:
    """Large classes lie on huge pages, in mappings that are larger than what is lent."""

    async def run() -> None:
        buffers = Buffers(LIMITS)
        for size in (1, 64 << 10, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, (4 << 20) + 2048, 9 << 20):
            for _ in range(2):  # fresh, and reused
                buffer = await buffers.acquire(size)
                assert len(buffer.view) == size
                assert buffers.bytes_used == len(buffer.whole) == size_class(size)
                buffer.whole[:] = bytes(len(buffer.whole))
                buffer.release()
                assert buffers.bytes_used == 0
        buffers.close()

    asyncio.run(run())
