"""Replicas on virtual time, over one store in bad weather: what was acknowledged is there once, what was refused is
not, what is between is there at most once; batches are seen whole; comparisons hold between all; all see the same.

Clocks are minutes apart, answers are lost, writes happen after their callers gave up, replicas die in the middle of
anything and others take their place, two may believe that they have the lock.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.metadatadb.weather import Odds, Weather

from ostraka.backends import MemoryBackend
from ostraka.errors import Conflict, OstrakaError
from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.metadatadb import AsyncNamespace, AsyncStore, Journal, Periodic
from ostraka.testing.virtual_time import LoopClock, VirtualLoop, run

SMALL = replace(
    LIMITS,
    metadatadb_entries_loose_max=4,
    metadatadb_tail_entries_max=12,
    metadatadb_tail_bytes_max=8192,
    metadatadb_group_ops_max=20,
    metadatadb_fetches_max=3,
)


@dataclass
class Ledger:
    """What replicas were told."""

    done: set[str] = field(default_factory=set)  # acknowledged as durable
    unknown: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    won: Counter[int] = field(default_factory=Counter)  # of which value a comparison was answered True
    maybe_won: int = 0


class SeededHost(Host):
    def __init__(self, clock: LoopClock, seed: int) -> None:
        super().__init__(clock=clock, boot="")
        self._chance = random.Random(seed)

    def random(self, size: int) -> bytes:
        return self._chance.randbytes(size)


def dump(namespace: AsyncNamespace) -> dict[str, Any]:
    """All that is held; the order of names and keys does not count, that of lists does."""
    state = namespace._scope.copy.view.fork()
    state.purge()
    return {name: (held.kind, held.value, held.expires, held.key_expires) for name, held in state.names.items()}


class Replica:
    """One process: works until it dies or is told to end."""

    def __init__(self, number: int, loop: VirtualLoop, common: MemoryBackend, odds: Odds, seed: int, ledger: Ledger):
        self.name = f"r{number}"
        self.chance = random.Random(seed)
        self.weather = Weather(common, seed, odds)
        self.ledger = ledger
        host = SeededHost(LoopClock(loop, self.chance.choice([-400.0, -20.0, 0.0, 0.0, 3.0, 900.0])), seed)
        kind = self.chance.choice([Journal, Journal, Periodic])
        self.durable_at_once = kind is Journal
        interval = self.chance.uniform(1, 10)
        self.store = AsyncStore(kind(self.weather, sync_interval=interval, lock_ttl=5.0, host=host, limits=SMALL))
        self.waiting: set[str] = set()  # periodic: applied, and not flushed
        self.count = 0
        self.namespace: AsyncNamespace

    async def open(self) -> None:
        while True:
            try:
                self.namespace = await self.store.namespace("sim")
                return
            except OstrakaError:
                await asyncio.sleep(1)

    async def work(self, steps: int) -> None:
        for _ in range(steps):
            await asyncio.sleep(self.chance.expovariate(1.0))
            await self.chance.choice(
                [self.add, self.add, self.add, self.transfer, self.compare, self.flush, self.burst]
            )()
            self.look()

    def look(self) -> None:
        """What must be so in every view."""
        left, right = self.namespace.int("left"), self.namespace.int("right")
        assert left.get() + right.get() == 0, f"half of a batch: {left.get()} and {right.get()}"
        entries = self.namespace.list("log", str).entries()
        assert len(set(entries)) == len(entries), f"twice: {Counter(entries).most_common(1)}"

    def token(self) -> str:
        self.count += 1
        return f"{self.name}-{self.count:05}"

    async def add(self) -> None:
        token = self.token()
        ns = self.namespace
        try:
            async with ns.batch():
                await ns.list("log", str).append(token)
                await ns.set("seen").add(token)
                await ns.int("count").add(1)
                await ns.int_map("by replica").add(self.name, 1)
                await ns.map("last").set(self.name, token)
        except BaseException as e:  # also of being killed
            self.told(token, e)
            if not isinstance(e, OstrakaError):
                raise
        else:
            (self.ledger.done if self.durable_at_once else self.waiting).add(token)

    def told(self, token: str, error: BaseException) -> None:
        sure = isinstance(error, Conflict)
        (self.ledger.refused if sure else self.ledger.unknown).add(token)

    async def burst(self) -> None:
        await asyncio.gather(*(self.add() for _ in range(self.chance.randrange(1, 12))))

    async def transfer(self) -> None:
        amount = self.chance.randrange(-50, 50)
        try:
            async with self.namespace.batch():
                await self.namespace.int("left").add(amount)
                await self.namespace.int("right").add(-amount)
        except OstrakaError:
            pass

    async def compare(self) -> None:
        value = self.namespace.int("turn")
        seen = value.get()
        try:
            if await value.compare_and_set(seen, seen + 1):
                self.ledger.won[seen] += 1
        except Conflict:
            pass
        except BaseException as e:
            self.ledger.maybe_won += 1
            if not isinstance(e, OstrakaError):
                raise

    async def flush(self) -> None:
        before = set(self.waiting)
        try:
            await self.namespace.flush()
        except OstrakaError:
            return
        self.ledger.done |= before
        self.waiting -= before

    def die(self) -> None:
        self.weather.gone = True
        self.ledger.unknown |= self.waiting
        for scope in self.store.replica._scopes.values():
            for task in (scope._ticker, getattr(scope, "_writer", None)):  # type: ignore[attr-defined]
                if task is not None:
                    task.cancel()

    async def close(self) -> None:
        await self.store.close()
        self.ledger.done |= self.waiting
        self.waiting.clear()


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
    odds.before = odds.after = odds.late = odds.storm = 0.0
    odds.deletes_denied = False
    await asyncio.sleep(2 * odds.late_seconds)
    for replica in last:
        await replica.flush()
    for replica in last:
        await replica.flush()
    check(last, ledger)
    await check_again(loop, common, last, ledger)


def check(last: list[Replica], ledger: Ledger) -> None:
    ns = last[0].namespace
    entries = ns.list("log", str).entries()
    assert len(set(entries)) == len(entries)
    known = set(entries)
    assert not ledger.done - known, f"lost: {sorted(ledger.done - known)}"
    assert not ledger.refused & known, f"came although refused: {sorted(ledger.refused & known)}"
    assert not known - ledger.done - ledger.unknown, "from nowhere"
    assert ns.set("seen").members() == known
    assert ns.int("count").get() == len(known)
    assert ns.int_map("by replica").entries() == Counter(token.split("-")[0] for token in known)
    turn = ns.int("turn").get()
    assert not [value for value, times in ledger.won.items() if times > 1], "two won the same turn"
    assert sum(ledger.won.values()) <= turn <= sum(ledger.won.values()) + ledger.maybe_won
    for replica in last:
        assert dump(replica.namespace) == dump(ns), "they do not agree"


async def check_again(loop: VirtualLoop, common: MemoryBackend, last: list[Replica], ledger: Ledger) -> None:
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
STORMY = Odds(before=0.02, after=0.02, late=0.02, storm=0.3)
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
