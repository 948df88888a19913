"""A read does not wait for a disk that is slow: it is answered around it, and the late answer is seen by nobody."""

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ostraka.limits import LIMITS, MIB
from ostraka.pools.hedging import Hedges, Times
from ostraka.pools.types import Owner, Stripe


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


async def write(store: Any, body: bytes) -> Stripe:
    stripe: Stripe = await store.pool.write(Owner.CHUNK, b"o" * 32, body, len(body))
    store.pool.settle([stripe])
    return stripe


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for tells no event
        await asyncio.sleep(0.001)


class Asleep:
    """Reads of one disk wait until they are let go on."""

    def __init__(self, store: Any, number: int) -> None:
        self.awake = threading.Event()
        self.reads = 0
        self._meet: Callable[[str, Path], None] = store.files.meet
        self._part = f"disk-{number}/"
        store.files.meet = self._asleep

    def _asleep(self, op: str, path: Path) -> None:
        if op == "preadv" and self._part in str(path):
            self.reads += 1
            assert self.awake.wait(60), "nobody woke the disk"
        self._meet(op, path)


@pytest.mark.parametrize("size", [1000, 60_000, 1_500_000])
@pytest.mark.parametrize(("k", "m", "count"), [(4, 2, 6), (2, 1, 3), (1, 1, 2)])
def test_a_read_is_complete_while_a_disk_is_still_asleep(
    make_store: Any, seed: int, k: int, m: int, count: int, size: int
) -> None:
    store = make_store(k, m, count, hedge_seconds_max=0.05)
    body = random.Random(seed).randbytes(size)

    async def go() -> None:
        stripe = await write(store, body)
        asleep = Asleep(store, stripe.disks[0])
        try:
            assert await store.pool.read(stripe, 0, size) == body
            assert asleep.reads <= 1
            assert store.pool.counters.hedged_reads == store.pool.counters.hedges_won == 1
            assert not store.failures
        finally:
            asleep.awake.set()
        await store.close()

    run(go())


def test_a_disk_that_says_nothing_is_not_asked_again_until_it_has_spoken(make_store: Any, seed: int) -> None:
    store = make_store(4, 2, 6, hedge_seconds_max=0.02)
    body = random.Random(seed).randbytes(1_000_000)

    async def go() -> None:
        stripe = await write(store, body)
        asleep = Asleep(store, stripe.disks[1])
        reading = store.pool._reading
        try:
            assert await store.pool.read(stripe, 0, len(body)) == body
            await until(lambda: reading.silent(stripe.disks[1]))
            for _ in range(20):
                assert await store.pool.read(stripe, 0, len(body)) == body
            assert asleep.reads == 1
            assert store.pool.counters.silent_reads == 20
            assert store.pool.counters.hedged_reads == 1
        finally:
            asleep.awake.set()
        await until(lambda: not reading.silent(stripe.disks[1]))
        assert await store.pool.read(stripe, 0, len(body)) == body
        assert asleep.reads > 1
        await store.close()

    run(go())


def test_what_a_slow_disk_says_at_last_is_written_where_nobody_looks(make_store: Any, seed: int) -> None:
    store = make_store(2, 1, 3, hedge_seconds_max=0.05)
    body = random.Random(seed).randbytes(1_000_000)

    async def go() -> None:
        stripe = await write(store, body)
        store.damage(stripe, 0, 5)
        asleep = Asleep(store, stripe.disks[0])
        told: list[int] = []
        heard = asyncio.Event()

        def on_damage(stripe: Stripe, index: int) -> None:
            told.append(index)
            heard.set()

        store.pool.on_damage = on_damage
        found = await store.pool.read(stripe, 0, len(body))
        assert found == body
        asleep.awake.set()
        await heard.wait()  # the damage is told all the same
        assert told == [0]
        assert found == body
        await store.close()

    run(go())


def test_where_nobody_else_has_it_a_slow_disk_is_waited_for(make_store: Any, seed: int) -> None:
    store = make_store(2, 1, 3, hedge_seconds_max=0.02)
    body = random.Random(seed).randbytes(1_000_000)

    async def go() -> None:
        stripe = await write(store, body)
        store.damage(stripe, 1, 5)
        asleep = Asleep(store, stripe.disks[0])
        reading = asyncio.ensure_future(store.pool.read(stripe, 0, len(body)))
        await until(lambda: store.pool.counters.hedged_reads)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert not reading.done()
        again = asyncio.ensure_future(store.pool.read(stripe, 0, len(body)))  # the disk is silent now
        await until(lambda: store.pool.counters.silent_reads)
        asleep.awake.set()
        assert await reading == body
        assert await again == body
        await store.close()

    run(go())


def test_a_reader_that_leaves_takes_nothing_with_it(make_store: Any, seed: int) -> None:
    store = make_store(2, 1, 3, hedge_seconds_max=0.05)
    body = random.Random(seed).randbytes(1_000_000)

    async def go() -> None:
        stripe = await write(store, body)
        asleep = Asleep(store, stripe.disks[0])
        reading = asyncio.ensure_future(store.pool.read(stripe, 0, len(body)))
        await until(lambda: asleep.reads)
        reading.cancel()
        await asyncio.wait([reading])
        assert await store.pool.read(stripe, 0, len(body)) == body
        asleep.awake.set()
        await store.close()

    run(go())


def test_hedging_adds_no_more_than_its_share_of_reads() -> None:
    hedges = Hedges(LIMITS)
    taken = 0
    while hedges.take(4):
        taken += 4
    assert taken == 64  # what may be saved
    for _ in range(1000):
        hedges.took(1, 0.001)
        taken += hedges.take(1)
    assert taken == 64 + 1000 * LIMITS.hedge_share


def test_how_long_is_waited_follows_from_what_a_disk_usually_takes() -> None:
    hedges = Hedges(LIMITS)
    assert hedges.delay([0]) == LIMITS.hedge_seconds_max  # nothing is known
    for number in range(5):
        for n in range(1000):
            hedges.took(number, 0.1 if n % 200 == 0 else 0.03)
    usual = hedges.delay([0, 1, 2])
    assert 0.03 < usual < 0.1
    for _ in range(5000):
        hedges.took(5, 0.5)  # slow always: that is no reason to wait for it
    assert usual < hedges.delay([5]) <= 4 * usual
    for number in range(6):
        for _ in range(5000):
            hedges.took(number, 0.0001)
    assert hedges.delay([0]) == LIMITS.hedge_seconds_min
    assert Times(2.0).high == 2.0


def test_memory_that_a_slow_disk_holds_comes_back_when_it_answers(make_store: Any, seed: int) -> None:
    store = make_store(2, 1, 3, hedge_seconds_max=0.02)
    body = random.Random(seed).randbytes(2 * MIB)

    async def go() -> None:
        stripe = await write(store, body)
        asleep = Asleep(store, stripe.disks[0])
        for _ in range(10):
            assert await store.pool.read(stripe, 0, len(body)) == body
        assert store.pool.buffers.bytes_used <= 8 * MIB  # one answer that is still waited for, not ten
        asleep.awake.set()
        await until(lambda: not store.pool.buffers.bytes_used)
        await store.close()

    run(go())
