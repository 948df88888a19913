"""Replicas on virtual time, over one store in bad weather: what was acknowledged is there once, what was refused is
not, what is between is there at most once; batches are seen whole; comparisons hold between all; all see the same.

Clocks are minutes apart, answers are lost, writes happen after their callers gave up, replicas die in the middle of
anything and others take their place, two may believe that they have the lock.
"""

import asyncio
import random
from dataclasses import replace

import pytest
from tests.metadatadb.weather import Odds, Weather
from tests.metadatadb.working import Ledger, Worker, check, dump

from ostraka.backends import MemoryBackend
from ostraka.errors import OstrakaError
from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.metadatadb import AsyncStore, Journal, Periodic
from ostraka.testing.virtual_time import LoopClock, VirtualLoop, run

SMALL = replace(
    LIMITS,
    metadatadb_entries_loose_max=4,
    metadatadb_entries_unsettled_max=6,
    metadatadb_tail_entries_max=12,
    metadatadb_tail_bytes_max=8192,
    metadatadb_group_ops_max=20,
    metadatadb_fetches_max=3,
)


class SeededHost(Host):
    def __init__(self, clock: LoopClock, seed: int) -> None:
        super().__init__(clock=clock, boot="")
        self._chance = random.Random(seed)

    def random(self, size: int) -> bytes:
        return self._chance.randbytes(size)


class Replica(Worker):
    """One process: works until it dies or is told to end."""

    def __init__(self, number: int, loop: VirtualLoop, common: MemoryBackend, odds: Odds, seed: int, ledger: Ledger):
        chance = random.Random(seed)
        self.weather = Weather(common, seed, odds)
        host = SeededHost(LoopClock(loop, chance.choice([-400.0, -20.0, 0.0, 0.0, 3.0, 900.0])), seed)
        kind = chance.choice([Journal, Journal, Periodic])
        interval = chance.uniform(1, 10)
        self.store = AsyncStore(kind(self.weather, sync_interval=interval, lock_ttl=5.0, host=host, limits=SMALL))
        super().__init__(f"r{number}", chance, ledger.note, durable_at_once=kind is Journal)

    async def open(self) -> None:
        while True:
            try:
                self.namespace = await self.store.namespace("sim")
                return
            except OstrakaError:
                await asyncio.sleep(1)

    def die(self) -> None:
        self.weather.gone = True
        for scope in self.store.replica._scopes.values():
            for task in (scope._ticker, getattr(scope, "_writer", None)):  # type: ignore[attr-defined]
                if task is not None:
                    task.cancel()

    async def close(self) -> None:
        await self.store.close()
        self.flushed(set(self.waiting))


async def simulate(loop: VirtualLoop, seed: int, odds: Odds, replicas: int, steps: int) -> None:
    chance = random.Random(seed)
    common, ledger = MemoryBackend(LoopClock(loop)), Ledger()
    numbers = iter(range(1000))

    def born() -> Replica:
        return Replica(next(numbers), loop, common, odds, chance.randrange(1 << 32), ledger)

    async def live() -> Replica:
        """A line of replicas: some die, the last one is there at the end."""
        replica = born()
        await replica.open()
        while True:
            work = loop.create_task(replica.work(steps))
            fate = chance.uniform(0, 3 * steps)
            done, _ = await asyncio.wait([work], timeout=fate)
            if done:
                work.result()
                return replica
            replica.die()
            work.cancel()
            replica = born()
            await replica.open()

    last = await asyncio.gather(*(live() for _ in range(replicas)))
    odds.before = odds.after = odds.late = odds.storm = odds.stolen = 0.0
    odds.deletes_denied = False
    await asyncio.sleep(2 * odds.late_seconds)
    for replica in last:
        await replica.flush()
    for replica in last:
        await replica.flush()
    check(last[0].namespace, ledger)
    for replica in last:
        assert dump(replica.namespace) == dump(last[0].namespace), "they do not agree"
    await check_again(loop, common, last)


async def check_again(loop: VirtualLoop, common: MemoryBackend, last: list[Replica]) -> None:
    """All close; one that comes later finds the same, and what lies there is bounded."""
    expected = dump(last[0].namespace)
    for replica in last:
        await replica.close()
    async with AsyncStore(
        Journal(common, host=SeededHost(LoopClock(loop), 1), limits=SMALL, sync_interval=5.0)
    ) as store:
        ns = await store.namespace("sim")
        assert dump(ns) == expected
        assert ns.status().stuck == 0
        await asyncio.sleep(5.0 * 60)
        assert dump(ns) == expected
        left = [path async for path in common.list()]
        assert len(left) <= 4 + SMALL.metadatadb_entries_loose_max, left


FAIR = Odds()
LOSSY = Odds(before=0.05, after=0.05, late=0.03)
STORMY = Odds(before=0.02, after=0.02, late=0.02, storm=0.3, stolen=0.3)
FORBIDDING = Odds(before=0.02, after=0.02, late=0.02, deletes_denied=True)


@pytest.mark.parametrize("odds", [FAIR, LOSSY, STORMY, FORBIDDING], ids=["fair", "lossy", "stormy", "forbidding"])
@pytest.mark.parametrize("turn", range(5))
def test_nothing_is_lost_or_done_twice(odds: Odds, turn: int, seed: int) -> None:
    run(lambda loop: simulate(loop, seed, replace(odds), 4, 25))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("odds", [FAIR, LOSSY, STORMY, FORBIDDING], ids=["fair", "lossy", "stormy", "forbidding"])
def test_nothing_is_lost_or_done_twice_in_the_long_run(odds: Odds, seed: int) -> None:
    for turn in range(200):
        print(turn)
        run(lambda loop, turn=turn: simulate(loop, seed + turn, replace(odds), 5, 40))  # type: ignore[misc]
