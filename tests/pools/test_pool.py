"""A body survives any m disks; it is read whole or not at all; and every failure has its own answer."""

import asyncio
import errno
import gc
import os
import random
import threading
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ostraka.errors import Corrupt, Full, Overloaded, Unavailable
from ostraka.host import Buffer
from ostraka.limits import LIMITS
from ostraka.pools.pool import ErasurePool
from ostraka.pools.types import Owner, Stripe

# direct segments begin at this shard size; cells are 64 KiB (16 KiB in packs): sizes on both sides of each
SIZES = [
    1,
    8,
    9,
    4096,
    16384,
    65537,
    4 * LIMITS.direct_shard_size_min - 1,
    4 * LIMITS.direct_shard_size_min + 1,
    1 << 20,
]
GEOMETRIES = pytest.mark.parametrize(
    ("k", "m", "count"), [(1, 0, 1), (1, 1, 2), (1, 2, 4), (2, 1, 3), (4, 2, 6), (4, 2, 9)]
)


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


async def write(store: Any, body: bytes, owner: Owner = Owner.CHUNK, pooled: bool = False) -> Stripe:
    pool: ErasurePool = store.pool
    if not pooled:
        return await pool.write(owner, b"owner", body, len(body))
    buffer = await pool.buffer(len(body) + 100)
    buffer.view[: len(body)] = body
    buffer.view[len(body) :] = b"\xee" * 100  # what is behind the body must not get into it
    try:
        return await pool.write(owner, b"owner", buffer, len(body))
    finally:
        buffer.release()


@GEOMETRIES
@pytest.mark.parametrize("pooled", [False, True])
def test_every_body_reads_back_in_every_range(
    make_store: Any, k: int, m: int, count: int, pooled: bool, seed: int
) -> None:
    store = make_store(k, m, count)
    rng = random.Random(seed)

    async def go() -> None:
        for size in SIZES:
            for owner in Owner:
                body = rng.randbytes(size)
                stripe = await write(store, body, owner, pooled)
                assert (stripe.k, stripe.m, stripe.length) == (k, m, size)
                assert len(set(stripe.disks)) == k + m
                assert stripe.shard_size % 8 == 0
                assert stripe.shard_size * k >= size
                ranges = [(0, size), (size, 0), (0, 0), (0, min(size, 100_000))]
                ranges += [(a := rng.randrange(size), rng.randrange(size - a + 1)) for _ in range(6)]
                for offset, length in ranges:
                    assert await store.pool.read(stripe, offset, length) == body[offset : offset + length]
                    now = store.pool.read_now(stripe, offset, length)
                    assert now is None or now == body[offset : offset + length]
                assert [h.state for h in await store.pool.verify(stripe)] == ["good"] * (k + m)
                assert await store.pool.repair(owner, b"owner", stripe) is None
        assert store.pool.counters.degraded_reads == 0
        await store.close()
        gc.collect()
        await asyncio.sleep(0)
        assert store.pool.buffers.bytes_used == 0, "every buffer came back"

    run(go())


@pytest.mark.parametrize(("k", "m", "count"), [(1, 1, 2), (1, 2, 3), (2, 1, 3), (2, 2, 4), (4, 2, 6)])
@pytest.mark.parametrize("how", ["down", "lost", "damaged", "missing"])
def test_any_m_shards_may_be_lost_in_any_way(make_store: Any, k: int, m: int, count: int, how: str, seed: int) -> None:
    store = make_store(k, m, count)
    rng = random.Random(seed)

    async def go() -> None:
        for size in (1000, 200_000):
            body = rng.randbytes(size)
            for lost in combinations(range(k + m), m):
                stripe = await write(store, body, pooled=True)
                for index in lost:
                    if how == "down":
                        store.down.add(stripe.disks[index])
                    elif how == "lost":
                        store.lost.add(stripe.disks[index])
                    elif how == "damaged":
                        store.damage(stripe, index, rng.randrange(stripe.shard_size))
                    else:
                        store.forget(stripe, index)
                assert await store.pool.read(stripe, 0, size) == body, lost
                a = rng.randrange(size)
                assert await store.pool.read(stripe, a, size - a) == body[a:], lost
                assert await store.pool.read(stripe, a, 1) == body[a : a + 1], lost
                store.down.clear()
                store.lost.clear()
        assert store.pool.counters.reconstructed_bytes > 0
        await store.close()

    run(go())


@pytest.mark.parametrize("how", ["down", "lost", "damaged", "missing", "failing"])
def test_fewer_than_k_good_shards_are_corrupt_if_lost_and_unavailable_if_only_away(make_store: Any, how: str) -> None:
    store = make_store(2, 1, 3)

    async def go() -> None:
        stripe = await write(store, b"x" * 10_000)
        for index in (0, 2):
            number = stripe.disks[index]
            if how == "down":
                store.down.add(number)
            elif how == "lost":
                store.lost.add(number)
            elif how == "damaged":
                store.damage(stripe, index)
            elif how == "missing":
                store.forget(stripe, index)
            else:
                store.files.fail("preadv", f"disk-{number}", errno.EIO, count=10**6)
        with pytest.raises(Corrupt if how in ("lost", "damaged", "missing") else Unavailable):
            await store.pool.read(stripe, 0, 10_000)
        store.files.heal()
        store.down.clear()
        if how in ("down", "failing"):
            assert await store.pool.read(stripe, 0, 10_000) == b"x" * 10_000
        await store.close()

    run(go())


def test_a_damaged_cell_costs_only_its_own_range(make_store: Any, seed: int) -> None:
    """A degraded range reads the same bytes of k others, not the whole body."""
    store = make_store(4, 2, 6)
    body = random.Random(seed).randbytes(4 << 20)

    async def go() -> None:
        stripe = await write(store, body)
        store.damage(stripe, 1, 3 * 65536 + 5)
        start = stripe.shard_size + 3 * 65536
        assert await store.pool.read(stripe, start + 10, 100) == body[start + 10 : start + 110]
        assert store.pool.counters.reconstructed_bytes == 100
        before = store.pool.counters.degraded_reads
        assert await store.pool.read(stripe, stripe.shard_size, 65536) == body[stripe.shard_size :][:65536]
        assert store.pool.counters.degraded_reads == before
        await store.close()

    run(go())


@pytest.mark.parametrize("op", ["sync_data", "pwritev", "open", "sync_directory"])
@pytest.mark.parametrize("count", [6, 7])
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_a_write_does_not_fail_because_one_disk_does(
    make_store: Any, op: str, count: int, size: int, seed: int
) -> None:
    """With a spare disk the shard goes there, without one the stripe gets narrower: always m may be lost."""
    store = make_store(4, 2, count)
    body = random.Random(seed).randbytes(size)

    async def go() -> None:
        store.files.fail(op, "disk-3/segments", errno.EIO, count=10**6)
        stripe = await write(store, body, pooled=True)
        while 3 not in store.down:  # the ring may have left it out
            stripe = await write(store, body, pooled=True)
        assert [number for number, _ in store.failures] == [3], "reported once, before the write is answered"
        assert 3 not in stripe.disks
        assert (stripe.k, stripe.m) == ((4, 2) if count == 7 else (3, 2))
        store.down.update(stripe.disks[:2])
        assert await store.pool.read(stripe, 0, size) == body
        await store.close()

    run(go())


def test_disks_that_fail_one_after_the_other_narrow_the_stripe_until_nothing_can_be_promised(make_store: Any) -> None:
    store = make_store(4, 2, 6)

    async def go() -> None:
        seen = []
        for number in range(6):
            stripe = await write(store, b"x" * 5000)
            seen.append((stripe.k, stripe.m))
            assert await store.pool.read(stripe, 0, 5000) == b"x" * 5000
            store.files.fail("sync_data", f"disk-{number}/", errno.EIO, count=10**6)
            store.files.fail("pwritev", f"disk-{number}/", errno.EIO, count=10**6)
            if len(seen) == 4:
                break
        assert seen == [(4, 2), (3, 2), (2, 2), (1, 2)]
        with pytest.raises(Unavailable):
            await write(store, b"x" * 5000)
        await store.close()

    run(go())


def test_a_store_that_cannot_record_a_failure_refuses_the_write(make_store: Any) -> None:
    store = make_store(2, 1, 3)

    async def go() -> None:
        store.read_only = True
        store.files.fail("sync_data", "disk-1/", errno.EIO, count=10**6)
        with pytest.raises(Unavailable, match="majority"):
            await write(store, b"x" * 5000)
        await store.close()

    run(go())


def test_a_full_disk_is_passed_over_and_not_reported(make_store: Any) -> None:
    store = make_store(2, 1, 4)

    async def go() -> None:
        store.files.fail("pwritev", "disk-2/segments", errno.ENOSPC, count=10**6)
        stripes = [await write(store, bytes([n]) * 300_000) for n in range(8)]
        assert all(2 not in stripe.disks and (stripe.k, stripe.m) == (2, 1) for stripe in stripes)
        assert not store.failures
        for n, stripe in enumerate(stripes):
            assert await store.pool.read(stripe, 0, 300_000) == bytes([n]) * 300_000
        store.files.fail("pwritev", "/segments", errno.ENOSPC, count=10**6)
        with pytest.raises(Full):
            await write(store, b"x")
        await store.close()

    run(go())


def test_a_disk_that_hangs_is_reported_and_the_write_goes_elsewhere(make_store: Any) -> None:
    store = make_store(2, 1, 4, disk_seconds_max=0.3)
    hang = threading.Event()
    meet = store.files.meet

    def hanging(op: str, path: Path) -> None:
        if op == "sync_data" and "disk-1/" in str(path):
            hang.wait(20)
        meet(op, path)

    store.files.meet = hanging

    async def go() -> None:
        try:
            while not store.failures:
                stripe = await write(store, b"x" * 300_000, pooled=True)
            assert 1 not in stripe.disks
            assert isinstance(store.failures[0][1], TimeoutError)
            assert await store.pool.read(stripe, 0, 300_000) == b"x" * 300_000
        finally:
            hang.set()
        await store.close()

    run(go())


def test_a_failed_or_cancelled_write_leaves_only_dead_bytes(make_store: Any) -> None:
    store = make_store(2, 1, 3)
    hang = threading.Event()
    meet = store.files.meet

    entered = threading.Semaphore(0)

    def hanging(op: str, path: Path) -> None:
        if op == "sync_data":
            entered.release()
            hang.wait(20)
        meet(op, path)

    async def go() -> None:
        kept = await write(store, b"k" * 1000)
        store.pool.settle([kept])
        store.files.meet = hanging
        buffer = await store.pool.buffer(300_000)
        buffer.view[:] = b"c" * 300_000
        task = asyncio.create_task(store.pool.write(Owner.CHUNK, b"owner", buffer, 300_000))
        for _ in range(3):
            await asyncio.to_thread(entered.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        buffer.release()
        assert store.pool.buffers.bytes_used > 0, "threads still write from that memory: it must not be reused yet"
        hang.set()
        await store.pool.close()
        await asyncio.sleep(0)
        assert store.pool.buffers.bytes_used == 0
        for disk in store.disks.values():
            assert disk.index.count() == 1, "what was cancelled is named by nobody"
            for writer in disk._writers:
                writer.seal()
            assert all(disk.settling.done(info.segment) for info in disk.segments())
        assert await store.pool.read(kept, 0, 1000) == b"k" * 1000
        await store.close()

    run(go())


@pytest.mark.parametrize("how", ["damaged", "missing", "lost"])
def test_repair_restores_every_shard_and_full_redundancy(make_store: Any, how: str, seed: int) -> None:
    store = make_store(2, 2, 6)
    rng = random.Random(seed)

    async def go() -> None:
        for size in (999, 700_000):
            body = rng.randbytes(size)
            for lost in combinations(range(4), 2):
                stripe = await write(store, body)
                store.pool.settle([stripe])
                for index in lost:
                    if how == "damaged":
                        store.damage(stripe, index, rng.randrange(stripe.shard_size))
                    elif how == "missing":
                        store.forget(stripe, index)
                    else:
                        store.lost.add(stripe.disks[index])
                states = [h.state for h in await store.pool.verify(stripe)]
                expected = "damaged" if how == "damaged" else "missing"
                assert states == [expected if i in lost else "good" for i in range(4)]
                repaired = await store.pool.repair(Owner.CHUNK, b"owner", stripe)
                assert repaired is not None
                assert repaired.write_id == stripe.write_id
                assert len(set(repaired.disks)) == 4
                if how != "lost":
                    assert repaired.disks == stripe.disks, "in place, where the disk is up"
                assert [h.state for h in await store.pool.verify(repaired)] == ["good"] * 4
                for other in combinations(range(4), 2):  # any two may be lost again
                    store.down = {repaired.disks[i] for i in other}
                    assert await store.pool.read(repaired, 0, size) == body
                store.down = set()
                store.lost.clear()
        await store.close()

    run(go())


def test_repair_without_a_disk_to_rebuild_on_changes_nothing(make_store: Any) -> None:
    store = make_store(2, 1, 3)

    async def go() -> None:
        stripe = await write(store, b"x" * 5000)
        store.down.add(stripe.disks[0])
        with pytest.raises(Unavailable, match="no disk"):
            await store.pool.repair(Owner.CHUNK, b"owner", stripe)
        store.down.clear()
        store.damage(stripe, 0)
        store.damage(stripe, 1)
        with pytest.raises(Corrupt):
            await store.pool.repair(Owner.CHUNK, b"owner", stripe)
        await store.close()

    run(go())


def test_released_stripes_are_dead_on_every_disk(make_store: Any) -> None:
    store = make_store(2, 1, 4)

    async def go() -> None:
        stripes = [await write(store, os.urandom(1000)) for _ in range(10)]
        store.pool.settle(stripes)
        await store.pool.release([(Owner.CHUNK, b"owner", stripe) for stripe in stripes[:5]])
        assert sum(disk.index.count() for disk in store.disks.values()) == 15
        assert sum(info.live for d in store.disks.values() for info in d.segments()) < 15 * 700
        for stripe in stripes[5:]:
            assert len(await store.pool.read(stripe, 0, 1000)) == 1000
        await store.close()

    run(go())


def test_damage_that_a_read_meets_is_told_to_whoever_heals(make_store: Any) -> None:
    store = make_store(2, 1, 3)

    async def go() -> None:
        told: list[tuple[Stripe, int]] = []
        store.pool.on_damage = lambda stripe, index: told.append((stripe, index))
        stripe = await write(store, b"x" * 10_000)
        store.damage(stripe, 1)
        assert await store.pool.read(stripe, 0, 10_000) == b"x" * 10_000
        assert told == [(stripe, 1)]
        await store.close()

    run(go())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_body_may_be_any_buffer(make_store: Any, kind: Any) -> None:
    store = make_store(2, 1, 3)

    async def go() -> None:
        for size in (10, 1 << 20):
            body: Buffer = kind(os.urandom(size + 5))
            stripe = await store.pool.write(Owner.PACK, b"p", body, size)
            assert await store.pool.read(stripe, 0, size) == bytes(body[:size])
        await store.close()

    run(go())


def test_memory_for_bodies_is_bounded_and_waits_end_with_a_typed_error(make_store: Any) -> None:
    store = make_store(1, 0, 1, buffers_bytes_max=1 << 20, buffers_wait_seconds_max=0.05)

    async def go() -> None:
        held = [await store.pool.buffer(200_000) for _ in range(4)]
        with pytest.raises(Overloaded):
            await store.pool.buffer(200_000)
        waiting = asyncio.create_task(store.pool.buffer(200_000))
        await asyncio.sleep(0)
        held[0].release()
        again = await waiting
        assert store.pool.buffers.bytes_used <= 1 << 20
        for buffer in [*held, again]:
            buffer.release()
            buffer.release()
        assert store.pool.buffers.bytes_used == 0
        await store.close()

    run(go())
