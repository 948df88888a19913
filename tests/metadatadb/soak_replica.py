"""One replica of the soak, a process of its own: works on a real byte store in changing weather until it is told to
end, or dies. What it did is in its ledger, line by line, so that a death loses nothing of the books.

The process that started it writes one word at a time into the pipe: ``calm`` (nothing fails any more, and the work
ends; answered when all is flushed), ``flush``, ``show`` (answered with all that is held), ``close``.
"""

import asyncio
import logging
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from tests.metadatadb.weather import Odds, Weather
from tests.metadatadb.working import Worker, dump

from ostraka.backends import from_config
from ostraka.errors import OstrakaError
from ostraka.host import Host, SystemClock
from ostraka.limits import LIMITS
from ostraka.metadatadb import AsyncStore, Journal, Periodic

PREFIX: Final = "soak/"
NAMESPACE: Final = "soak"
LIMITS_SMALL: Final = replace(
    LIMITS,
    metadatadb_entries_loose_max=16,
    metadatadb_entries_unsettled_max=24,
    metadatadb_tail_entries_max=64,
    metadatadb_tail_bytes_max=32 << 10,
    metadatadb_group_ops_max=40,
)
SKEWS: Final = (-400.0, -20.0, 0.0, 3.0, 900.0)  # seconds that a wall clock is ahead

CALM: Final = Odds(latency=0.01)
WEATHERS: Final = (  # each for some seconds
    CALM,
    Odds(before=0.05, after=0.05, late=0.03, latency=0.02),  # losses
    Odds(storm=0.6, after=0.05, stolen=0.5, latency=0.01),  # a storm of failed preconditions, and two with the lock
    Odds(before=0.7, after=0.1, latency=0.01),  # a server that is hardly there
    Odds(crash=0.05, latency=0.05),
)


@dataclass(frozen=True)
class Part:
    """Who a process is, and what it is to work on."""

    name: str
    seed: int
    config: Mapping[str, Any]  # of the byte store
    environment: Mapping[str, str]
    ledger: Path
    pace: float  # seconds between two steps
    weather_seconds: float  # how long each weather stays


class SkewedClock(SystemClock):
    """The machine's clock, set wrong."""

    def __init__(self, skew: float) -> None:
        self._skew = skew

    def time(self) -> float:
        return super().time() + self._skew


def main(part: Part, pipe: Connection) -> None:
    """The process."""
    os.environ.update(part.environment)
    logging.getLogger("ostraka").setLevel(logging.CRITICAL)  # the weather would be told again and again
    asyncio.run(_Replica(part, pipe).live())


class _Replica:
    def __init__(self, part: Part, pipe: Connection) -> None:
        self._part = part
        self._pipe = pipe
        self._chance = random.Random(part.seed)
        self._ledger = part.ledger.open("a", buffering=1)
        self._denied = self._chance.random() < 0.3  # this one may delete nothing
        self._words: asyncio.Queue[str] = asyncio.Queue()

    def _note(self, verdict: str, what: str) -> None:
        self._ledger.write(f"{verdict} {what}\n")

    def _hear(self) -> None:
        try:
            self._words.put_nowait(self._pipe.recv())
        except EOFError:  # who started us is gone
            os._exit(1)

    async def live(self) -> None:
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._hear)
        inner = from_config(self._part.config)
        weather = Weather(inner, self._part.seed, self._odds(), lambda what: self._note("fault", what))
        kind = self._chance.choice([Journal, Journal, Periodic])
        clock = SkewedClock(self._chance.choice(SKEWS))
        interval = self._chance.uniform(0.2, 1.5)
        replica = kind(
            weather,
            prefix=PREFIX,
            sync_interval=interval,
            lock_ttl=0.5,
            host=Host(clock=clock),
            limits=LIMITS_SMALL,
        )
        store = AsyncStore(replica)
        worker = Worker(self._part.name, self._chance, self._note, durable_at_once=kind is Journal)
        changing = asyncio.create_task(self._change(weather))
        await self._open(store, worker)
        while self._words.empty():
            await worker.work(1, self._part.pace)
        changing.cancel()
        await weather.clear_up()
        await self._finish(store, worker)
        await inner.close()

    def _odds(self) -> Odds:
        return replace(self._chance.choice(WEATHERS), late_seconds=3.0, deletes_denied=self._denied)

    async def _open(self, store: AsyncStore, worker: Worker) -> None:
        while True:
            try:
                worker.namespace = await store.namespace(NAMESPACE)
                return
            except OstrakaError:
                await asyncio.sleep(0.1)

    async def _change(self, weather: Weather) -> None:
        """Good weather follows once the work is to end."""
        while True:
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * self._part.weather_seconds)
            weather.odds = self._odds() if self._words.empty() else CALM

    async def _finish(self, store: AsyncStore, worker: Worker) -> None:
        while (word := await self._words.get()) != "close":
            if word == "show":
                self._pipe.send(dump(worker.namespace))
            else:
                await worker.namespace.flush()
                worker.flushed(set(worker.waiting))
                self._pipe.send(word)
        await store.close()
        self._pipe.send("close")
