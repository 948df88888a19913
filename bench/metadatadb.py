"""The metadata database: what operations cost here, what they cost until they are durable, how soon others see them.

    python bench/metadatadb.py [--quick] [--only NAME] [--json] [--dir DIR]

Durable operations go to a plain directory, to `ostraka serve` with one disk and one worker on the loopback interface,
and to memory, which shows what the protocol itself costs. After each round a replica that comes anew must find every
operation that was acknowledged. Requests are calls of the byte store, for 1,000 operations. "us CPU" is of this process
for one operation.

Convergence is the time from the last write of all replicas, made at once at any moment between two syncs, until each
of them shows the writes of all and nothing waits to become durable. It is told of replicas that sync every second over
`ostraka serve`, and, where no other program takes part in it, of virtual time: requests of 0 to 40 ms, the intervals
that replicas have unless told otherwise. So are the requests of an idle hour.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop
from load.inside import Round, repeat
from load.machine import Meter, describe
from load.report import HEAD, Figure, as_json, line
from load.signing import ACCESS, REGION, SECRET
from load.target import BUCKET, Target, ostraka
from load.wrk import WrongAnswers

from ostraka.backends import Backend, LocalBackend, MemoryBackend, from_config
from ostraka.host import Host
from ostraka.metadatadb import AsyncNamespace, AsyncStore, Journal, Memory, Namespace, Periodic, Replica, Store
from ostraka.testing.backends.faulty import Fault, Faults, FaultyBackend
from ostraka.testing.virtual_time import LoopClock, VirtualLoop, run

KEYS = 1000  # of maps that are written to
REQUEST_SECONDS = 0.02  # of a request on virtual time, on average
INTERVAL = 1.0  # seconds between two syncs, where convergence is measured
HOUR = 3600.0

LOCAL: dict[str, Callable[[], Replica]] = {
    "memory": Memory,
    "periodic": lambda: Periodic(MemoryBackend(), sync_interval=HOUR),
}

Opening = Callable[[], AbstractAsyncContextManager[Backend]]


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    rounds: int
    seconds: float
    patience: float  # seconds that are waited for a quiet moment
    group: int = 50_000  # local operations between two flushes, which are not part of what is measured
    tasks: tuple[int, ...] = (1, 32, 256)
    replicas: tuple[int, ...] = (1, 5, 20)
    virtual_rounds: int = 20


FULL = Plan(5, 4.0, 15.0)
QUICK = Plan(1, 2.0, 3.0)
TINY = Plan(1, 0.1, 0.0, 2000, (1, 32), (1, 3), 2)  # for a test that it runs


class Bench:
    """One run."""

    def __init__(self, plan: Plan, where: Path, only: str) -> None:
        self.plan = plan
        self.where = where
        self.only = only
        self.figures: dict[tuple[str, str], Figure] = {}

    def wanted(self, name: str) -> bool:
        return self.only.lower() in name.lower()

    def figure(self, target: str, name: str, unit: str) -> Figure:
        return self.figures.setdefault((target, name), Figure(target, name, unit))

    def _measure(self, target: str, name: str, unit: str, work: Callable[[], Round]) -> None:
        if self.wanted(f"{target}, {name}"):
            meter = Meter(patience=self.plan.patience)
            meter.wait_for_quiet()
            with meter.measure() as spent:
                found = work()
            self.figure(target, name, unit).add(found.rate, found.cpu, spent.foreign, found.p50, found.p99)

    # -- in this process

    def local(self) -> None:
        for _ in range(self.plan.rounds):
            for name, make in LOCAL.items():
                with Store(make()) as store:
                    self._local(name, store.namespace("bench"))

    def _local(self, target: str, ns: Namespace) -> None:
        counts, ints, texts = ns.int_map("counts"), ns.int("n"), ns.map("texts", str, str)
        keys = [f"key-{n}" for n in range(KEYS)]
        work: dict[str, Callable[[int], object]] = {
            "int.add": lambda n: ints.add(1),
            "int_map.add": lambda n: counts.add(keys[n % KEYS]),
            "map.set": lambda n: texts.set(keys[n % KEYS], "value"),
            "int_map.get": lambda n: counts.get(keys[n % KEYS]),
            "map.get": lambda n: texts.get(keys[n % KEYS]),
        }
        for name, one in work.items():
            self._measure(target, name, "op/s", partial(calls, one, self.plan, ns.flush))

    # -- until it is durable

    def durable(self, served: Target) -> None:
        for number in range(self.plan.rounds):
            for target, opening in self._stores(served, f"durable-{number}"):
                for tasks in self.plan.tasks:
                    self._durable(target, opening, Journal, f"journal, {tasks} task{'s' * (tasks > 1)}", tasks)
                self._durable(target, opening, Periodic, "periodic, flushed each second", 1)

    def _stores(self, served: Target, prefix: str) -> Iterator[tuple[str, Opening]]:
        yield "memory", MemoryBackend

        @asynccontextmanager
        async def directory() -> AsyncIterator[Backend]:
            with tempfile.TemporaryDirectory(prefix="ostraka-bench-", dir=self.where) as made:
                async with LocalBackend(made) as backend:
                    yield backend

        yield "directory", directory
        yield "ostraka serve", lambda: remote(served, f"{prefix}/{os.urandom(4).hex()}")

    def _durable(
        self, target: str, opening: Opening, kind: type[Journal] | type[Periodic], name: str, tasks: int
    ) -> None:
        if not self.wanted(f"{target}, {name}"):
            return
        requests = 0.0

        def work() -> Round:
            nonlocal requests
            found, requests = uvloop.run(durable(opening, kind, tasks, self.plan.seconds))
            return found

        self._measure(target, name, "op/s", work)
        self.figure(target, f"{name}, requests", "per 1,000").add(requests, 0.0, 0.0)

    # -- until others see it

    def convergence(self, served: Target) -> None:
        for _ in range(self.plan.rounds):
            for kind in (Journal, Periodic):
                for count in self.plan.replicas:
                    name = f"convergence of {count} replica{'s' * (count > 1)}"
                    self._measure(kind.type, name, "ms", partial(converged, served, kind, count))

    def virtual(self) -> None:
        for kind in (Journal, Periodic):
            for count in self.plan.replicas:
                name = f"convergence of {count}, virtual time"
                if self.wanted(f"{kind.type}, {name}"):
                    for _ in range(self.plan.virtual_rounds):
                        self.figure(kind.type, name, "ms").add(run(partial(converge_virtually, kind, count)), 0.0, 0.0)
            if self.wanted(f"{kind.type}, idle"):
                count = run(partial(idle, kind))
                self.figure(kind.type, "idle, one namespace", "requests/h").add(count, 0.0, 0.0)


def calls(one: Callable[[int], object], plan: Plan, flush: Callable[[], None]) -> Round:
    """That one after the other, for so long; what waits is flushed in between, and that time is not counted."""
    spent = cpu = 0.0
    count = 0
    while spent < plan.seconds:
        began, before = time.perf_counter(), time.process_time()
        for number in range(plan.group):
            one(number)
        spent += time.perf_counter() - began
        cpu += time.process_time() - before
        count += plan.group
        flush()
    return Round(count / spent, cpu / count * 1e6)


@asynccontextmanager
async def remote(served: Target, prefix: str) -> AsyncIterator[Backend]:
    """A backend below that prefix of the bucket."""
    config = {
        "type": "s3",
        "bucket": BUCKET,
        "endpoint": served.url,
        "region": REGION,
        "prefix": prefix,
        "credentials": {"from": "keys", "access_key": ACCESS, "secret_key": {"variable": "BENCH_SECRET"}},
    }
    async with from_config(config) as backend:
        yield backend


async def durable(
    opening: Opening, kind: type[Journal] | type[Periodic], tasks: int, seconds: float
) -> tuple[Round, float]:
    """So many tasks that add to a map of integers; operations until all are durable, and requests for 1,000 of them."""
    async with opening() as inner:
        faults = Faults()  # none: it counts the calls
        async with AsyncStore(kind(FaultyBackend(inner, faults), sync_interval=HOUR)) as store:
            ns = await store.namespace("bench")
            counts = ns.int_map("counts")
            keys = [f"key-{n}" for n in range(KEYS)]
            before = faults.calls.total()
            if kind is Journal:
                found = await repeat(lambda n: counts.add(keys[n % KEYS]), tasks, seconds)
            else:
                found = await flushed(ns, lambda n: counts.add(keys[n % KEYS]), seconds)
            requests = faults.calls.total() - before
            held = sum(counts.entries().values())
        async with AsyncStore(Journal(inner)) as later:
            if sum((await later.namespace("bench")).int_map("counts").entries().values()) != held:
                raise WrongAnswers("a replica that came later does not find what was acknowledged")
    return found, requests / held * 1000


async def flushed(ns: AsyncNamespace, one: Callable[[int], Awaitable[None]], seconds: float) -> Round:
    """One after the other, with a flush after each second and at the end; all of it is measured."""
    count, began, cpu = 0, time.perf_counter(), time.process_time()
    while (now := time.perf_counter()) < began + seconds:
        while time.perf_counter() < min(now + 1.0, began + seconds):
            await one(count)
            count += 1
        await ns.flush()
    lasted, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Round(count / lasted, cpu / count * 1e6)


def converged(served: Target, kind: type[Journal] | type[Periodic], count: int) -> Round:
    return uvloop.run(converge(served, kind, count))


async def converge(served: Target, kind: type[Journal] | type[Periodic], count: int) -> Round:
    """All replicas write at once; milliseconds until each shows what all have written, and nothing waits."""
    async with remote(served, f"convergence/{os.urandom(4).hex()}") as backend:
        stores = [AsyncStore(kind(backend, sync_interval=INTERVAL)) for _ in range(count)]
        spaces = await asyncio.gather(*(store.namespace("bench") for store in stores))
        await asyncio.sleep(INTERVAL * random.random())  # at any moment between syncs
        began, cpu = time.perf_counter(), time.process_time()
        await write_and_see(spaces)
        lasted, cpu = time.perf_counter() - began, time.process_time() - cpu
        await asyncio.gather(*(store.close() for store in stores))
    return Round(lasted * 1e3, cpu / count * 1e6)


async def converge_virtually(kind: type[Journal] | type[Periodic], count: int, loop: VirtualLoop) -> float:
    """The same on virtual time, with the usual intervals."""
    faults = Faults(random.getrandbits(32))
    faults.chance(1.0, [Fault.LATENCY])
    faults.latency_max = 2 * REQUEST_SECONDS
    common = MemoryBackend(LoopClock(loop))
    host = Host(clock=LoopClock(loop), boot="")
    stores = [AsyncStore(kind(FaultyBackend(common, faults), host=host)) for _ in range(count)]
    spaces = [await store.namespace("bench") for store in stores]
    await asyncio.sleep(100 + kind.sync_seconds * random.random())
    began = loop.time()
    await write_and_see(spaces)
    lasted = loop.time() - began
    await asyncio.gather(*(store.close() for store in stores))
    return lasted * 1e3


async def write_and_see(spaces: Sequence[AsyncNamespace]) -> None:
    """All write at once, and each waits until it shows what all have written, and nothing waits."""
    await asyncio.gather(*(ns.set("seen", int).add(n) for n, ns in enumerate(spaces)))
    await asyncio.gather(*(shown(ns, len(spaces)) for ns in spaces))


async def shown(ns: AsyncNamespace, count: int) -> None:
    """Until the namespace shows so many members, and nothing waits."""
    members = ns.set("seen", int)
    changes = ns.watch("seen")
    while len(members) < count:
        await anext(changes)
    while ns.status().pending:  # noqa: ASYNC110 - its own write is shown at once, and nobody is told when it is durable
        await asyncio.sleep(0.002)


async def idle(kind: type[Journal] | type[Periodic], loop: VirtualLoop) -> float:
    """Requests in an hour in which nothing is written."""
    faults = Faults()
    backend = FaultyBackend(MemoryBackend(LoopClock(loop)), faults)
    async with AsyncStore(kind(backend, host=Host(clock=LoopClock(loop), boot=""))) as store:
        ns = await store.namespace("bench")
        await ns.int("n").add(1)
        await asyncio.sleep(HOUR)  # what was written is settled, and its garbage removed
        before = faults.calls.total()
        await asyncio.sleep(HOUR)
        return faults.calls.total() - before


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="one short round of everything")
    options.add_argument("--tiny", action="store_true", help="only to see that it runs")
    options.add_argument("--only", default="", help="what has this in its name, such as journal, convergence, idle")
    options.add_argument("--json", action="store_true", help="print one JSON document, and nothing else")
    options.add_argument("--dir", default="/var/tmp", help="a directory on the disk that is measured")
    chosen = options.parse_args()
    plan = TINY if chosen.tiny else QUICK if chosen.quick else FULL
    os.environ["BENCH_SECRET"] = SECRET
    bench = Bench(plan, Path(chosen.dir), chosen.only)
    bench.local()
    with ostraka(bench.where, 1, 1) as served:
        served.make_bucket()
        bench.durable(served)
        bench.convergence(served)
    bench.virtual()
    figures = list(bench.figures.values())
    if not figures:
        sys.exit(f"nothing has {chosen.only!r} in its name")
    about = describe()
    if chosen.json:
        print(as_json(about, {}, figures))
        return
    print(" ".join(f"{name} {value}," for name, value in about.items()).rstrip(","))
    print(HEAD)
    for figure in figures:
        print(line(figure))


if __name__ == "__main__":
    main()
