"""A byte store in bad weather, for simulations: each replica reaches the common one through a `Weather` of its own.

Beyond what `ostraka.testing.backends.FaultyBackend` does on order, by seed: calls take their time and overtake each
other; an answer is lost although the write happened; a write whose caller was told of an error happens *later*; storms
of failed preconditions; deletes that are denied; a lock that somebody takes from its holder, who goes on; and the
process can go away in the middle of anything.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ostraka.backends import (
    Backend,
    Capability,
    DeleteFailure,
    Entry,
    Reading,
    Source,
    Stat,
    WritesConditionally,
    require,
)
from ostraka.errors import Forbidden, OstrakaError, PreconditionFailed, Unavailable

T = TypeVar("T")


@dataclass
class Odds:
    """Probabilities, of each call."""

    before: float = 0.0  # an error, and nothing happened
    after: float = 0.0  # it happened, and the answer was lost
    late: float = 0.0  # an error, and it happens later
    storm: float = 0.0  # a conditional write that is refused although its condition holds
    stolen: float = 0.0  # a lock that is written over, whoever holds it: two hold it then
    crash: float = 0.0  # a death before a delete: what was to go has been replaced already
    deletes_denied: bool = False
    late_seconds: float = 60.0
    latency: float = 0.05


class Weather(Backend):
    """The common store, as one replica reaches it."""

    type = "weather"

    def __init__(self, inner: Backend, seed: int, odds: Odds, happened: Callable[[str], None] = lambda _: None) -> None:
        self.inner = inner
        self.odds = odds
        self._conditional = require(inner, WritesConditionally)
        self._happened = happened
        self.random = random.Random(seed)
        self.gone = False  # the process that called has died
        self.calls = 0
        self._batches = seed % 2 == 0
        self._late: set[asyncio.Task[None]] = set()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Every other one deletes many paths at once."""
        batches = {Capability.BATCH_DELETE} if self._batches else set()
        return frozenset({Capability.CONDITIONAL, *batches})

    def to_config(self) -> dict[str, Any]:
        raise NotImplementedError

    async def _pass(self) -> None:
        self.calls += 1
        await asyncio.sleep(self.random.uniform(0, self.odds.latency))
        if self.gone:
            await asyncio.Event().wait()

    async def _read(self) -> None:
        await self._pass()
        if self.random.random() < self.odds.before + self.odds.after + self.odds.late:
            self._happened("unread")
            raise Unavailable("no answer", reason="connection")

    async def _write(self, change: Callable[[], Awaitable[T]]) -> T:
        await self._pass()
        odds, luck = self.odds, self.random.random()
        if luck < odds.before:
            self._happened("refused by the server")
            raise Unavailable("503: did not happen", reason="service")
        if luck < odds.before + odds.late:
            self._happened("late")
            self._later(change)
            raise Unavailable("happens yet", reason="timeout")
        done = await change()
        await self._pass()
        if luck < odds.before + odds.late + odds.after:
            self._happened("answer lost")
            raise Unavailable("happened", reason="timeout")
        return done

    def _later(self, change: Callable[[], Awaitable[Any]]) -> None:
        async def happen() -> None:
            await asyncio.sleep(self.random.uniform(0, self.odds.late_seconds))
            try:
                await change()
            except OstrakaError:
                pass

        task = asyncio.get_running_loop().create_task(happen())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def write(self, path: str, data: Any) -> str:
        return await self._write(lambda: self.inner.write(path, data))

    async def write_if(self, path: str, data: Any, *, match: str | None) -> str:
        if path.endswith("/lock") and self.random.random() < self.odds.stolen:
            self._happened("lock stolen")
            return await self._write(lambda: self.inner.write(path, data))
        if self.random.random() < self.odds.storm:
            await self._pass()
            self._happened("storm")
            raise PreconditionFailed(f"{path}: so it is said", reason="changed")
        return await self._write(lambda: self._conditional.write_if(path, data, match=match))

    async def delete(self, path: str) -> None:
        if self.random.random() < self.odds.crash:
            self._happened("crash before a delete")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.odds.deletes_denied:
            self._happened("delete denied")
            raise Forbidden(f"{path}: may not be deleted", reason="access")
        await self._write(lambda: self.inner.delete(path))

    async def delete_batch(self, paths: Iterable[str]) -> list[DeleteFailure]:
        failures = []
        for path in paths:
            try:
                await self.delete(path)
            except OstrakaError as e:
                failures.append(DeleteFailure(path, e))
        return failures

    @asynccontextmanager
    async def open(
        self, path: str, *, offset: int = 0, size: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[Reading]:
        await self._read()
        async with self.inner.open(path, offset=offset, size=size, if_match=if_match) as reading:
            yield reading

    async def list_entries(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[Entry]:
        await self._read()
        pause = self.random.random()
        async for entry in self.inner.list_entries(prefix, start_after=start_after):
            yield entry
            if self.random.random() < pause / 4:  # a page ends here, and the next one is of later
                await asyncio.sleep(self.random.uniform(0, self.odds.latency))

    async def stat(self, path: str) -> Stat | None:
        await self._read()
        return await self.inner.stat(path)

    async def write_stream(self, path: str, source: Source, size: int | None = None) -> str:
        raise NotImplementedError

    async def clear_up(self) -> None:
        """Nothing fails any more, and what was to happen later has happened when this returns."""
        self.odds = Odds(latency=0.0)
        await asyncio.gather(*self._late)

    async def close(self) -> None:
        pass
