"""ResilientBackend: what may be asked again, and what is then known (law 7).

- What reads, and what leaves the same behind however often it is done, is asked again.
- A source is read again only if it is a function that begins it anew; one that comes once is never replayed, and a call
  is made again with it only if no piece of it was asked for.
- A reading that breaks off goes on at its offset, with If-Match: no byte twice, and none of another version.
- A conditional call whose answer was lost is made again under the same condition. If that succeeds, it happened: once,
  for had the first one happened, the condition would not hold, unless somebody has brought back what it asks for. If
  the condition fails, the change may have been our own or another's, and the bytes do not tell (two who count write
  the same number): that is Unavailable, reason "unknown".
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self, TypeVar

import msgspec

from ostraka.backends.backend import (
    Backend,
    Copies,
    DeleteFailure,
    DeletesBatches,
    Reading,
    Resumes,
    Source,
    Stat,
    require,
)
from ostraka.backends.configs import decode, from_config
from ostraka.backends.iterators import ended
from ostraka.backends.resilience.breaker import Breaker, BreakerState, OnChange
from ostraka.backends.resilience.calls import Calls, Statistics
from ostraka.backends.resilience.policy import Budget, Resilience, checked, is_doubtful, is_passing
from ostraka.backends.resilience.reading import ResumedReading
from ostraka.backends.resilience.sending import Sending, SourceFailed
from ostraka.backends.wrapper import Operation, Wrapper
from ostraka.errors import Absent, OstrakaError, PreconditionFailed, Unavailable
from ostraka.host import Host

T = TypeVar("T")
Failures = list[DeleteFailure]
InDoubt = Callable[[OstrakaError], Awaitable[T]]

CONDITIONAL = frozenset({Operation.WRITE_IF, Operation.DELETE_IF})
LISTED_AT_FIRST, LISTED_AT_ONCE = 20, 500  # entries under one time limit


class ResilientConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``backend``: the configuration of the inner one."""

    backend: dict[str, Any]
    resilience: Resilience = Resilience()


class ResilientBackend(Wrapper):
    """The inner backend, asked again where that is safe and may help. Closing it closes the inner one."""

    type: ClassVar[str] = "resilient"

    def __init__(
        self,
        inner: Backend,
        resilience: Resilience | None = None,
        *,
        on_change: OnChange | None = None,
        host: Host | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``on_change(before, after)``: called after each change of the circuit's state. Invalid (reason "config") for
        a bound that is none."""
        super().__init__(inner)
        self._resilience = checked(resilience or Resilience())
        self._host = host or Host()
        self._sleep = sleep
        self._breaker = Breaker(self._resilience, self._host.clock, on_change)
        self._calls = Calls(self._resilience, self._breaker)

    def to_config(self) -> dict[str, Any]:
        fields = ResilientConfig(self.inner.to_config(), self._resilience)
        return {"type": self.type, **msgspec.to_builtins(fields)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        fields = decode(config, ResilientConfig)
        return cls(from_config(fields.backend), fields.resilience)

    async def close(self) -> None:
        await self._calls.close()
        await super().close()

    # -- its state

    @property
    def state(self) -> BreakerState:
        """Whether calls go through."""
        return self._breaker.state

    def statistics(self) -> Statistics:
        """What happened so far."""
        self._calls.statistics.breaker = self._breaker.statistics()
        return self._calls.statistics

    def reset(self) -> None:
        """Close the circuit, whatever happened."""
        self._breaker.reset()

    # -- asking again

    async def _call(self, operation: Operation, path: str, call: Callable[[], Awaitable[T]]) -> T:
        if operation in CONDITIONAL:
            return await self._repeated(operation, path, call, in_doubt=self._nobody_knows(operation, path))
        return await self._repeated(operation, path, call)

    async def _repeated(
        self,
        operation: Operation,
        path: str,
        call: Callable[[], Awaitable[T]],
        *,
        in_doubt: InDoubt[T] | None = None,
        may_repeat: Callable[[], bool] = lambda: True,
        moves: Callable[[], object] | None = None,
    ) -> T:
        """The call's answer, over as many attempts as its budget has. ``in_doubt`` answers for a call that fails after
        an attempt that may have happened."""
        budget = self._budget()
        doubt: OstrakaError | None = None
        self._calls.statistics.calls += 1
        while True:
            try:
                return await self._calls.attempt(operation, call, moves)
            except OstrakaError as error:
                doubt = error if is_doubtful(error) else doubt
                if is_passing(error) and may_repeat() and await budget.allows_another():
                    self._calls.statistics.retries += 1
                    continue
                if in_doubt is None or doubt is None:
                    raise
                return await in_doubt(error)

    def _nobody_knows(self, operation: Operation, path: str) -> InDoubt[Any]:
        async def in_doubt(error: OstrakaError) -> Any:
            self._calls.statistics.unknown += 1
            message = f"{path}: an answer to {operation.value} was lost, and whether it happened cannot be told"
            raise Unavailable(message, reason="unknown") from error

        return in_doubt

    def _budget(self) -> Budget:
        return Budget(self._resilience, self._host.clock, self._chance, self._sleep)

    def _chance(self) -> float:
        """Between 0 and 1."""
        return int.from_bytes(self._host.random(7), "big") / (1 << 56)

    # -- what is special

    async def stat(self, path: str) -> Stat | None:
        if self._resilience.hedge_seconds is None:
            return await super().stat(path)
        return await self._call(Operation.STAT, path, lambda: self._calls.hedged(lambda: self.inner.stat(path)))

    async def copy(self, source: str, target: str, *, if_absent: bool = False) -> str:
        copies = require(self.inner, Copies)
        in_doubt = self._nobody_knows(Operation.COPY, target) if if_absent else None
        return await self._repeated(
            Operation.COPY, target, lambda: copies.copy(source, target, if_absent=if_absent), in_doubt=in_doubt
        )

    async def promote(self, path: str, token: str, *, size: int, sha256: str) -> str:
        uploads = require(self.inner, Resumes)

        async def in_doubt(error: OstrakaError) -> str:
            """If it was published, the upload is gone and its bytes are there."""
            if not isinstance(error, Absent):
                raise error
            etag = await self._etag_of(path, size, sha256)
            return etag if etag is not None else await self._nobody_knows(Operation.PROMOTE, path)(error)

        return await self._repeated(
            Operation.PROMOTE, path, lambda: uploads.promote(path, token, size=size, sha256=sha256), in_doubt=in_doubt
        )

    async def _etag_of(self, path: str, size: int, sha256: str) -> str | None:
        """The ETag at path if these bytes are there."""
        digest = hashlib.sha256()
        try:
            async with self.open(path) as reading:
                if reading.stat.size != size:
                    return None
                async for piece in reading.pieces:
                    digest.update(piece)
                return reading.stat.etag if digest.hexdigest() == sha256.lower() else None
        except (Absent, PreconditionFailed):
            return None

    async def delete_batch(self, paths: Iterable[str]) -> Failures:
        batches, left = require(self.inner, DeletesBatches), [*paths]
        budget = self._budget()
        failures: Failures = []
        while True:
            these = left
            answer = await self._call(Operation.DELETE_BATCH, "", lambda: batches.delete_batch(these))  # noqa: B023
            again = [failure for failure in answer if is_passing(failure.error)]
            failures += [failure for failure in answer if not is_passing(failure.error)]
            if not again or not await budget.allows_another():
                return failures + again
            self._calls.statistics.retries += 1
            left = [failure.path for failure in again]

    # -- streams

    @asynccontextmanager
    async def open(
        self, path: str, *, offset: int = 0, size: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[Reading]:
        async with self._reading(path, offset, size, if_match) as reading, ended(reading.pieces()) as pieces:
            yield Reading(reading.stat, pieces)

    async def read_with_stat(self, path: str, *, offset: int = 0, size: int | None = None) -> tuple[bytes, Stat]:
        budget = self._budget()
        while True:
            async with self._reading(path, offset, size) as reading:
                try:
                    return b"".join([bytes(piece) async for piece in reading.pieces()]), reading.stat
                except PreconditionFailed:
                    if not reading.replaced or not await budget.allows_another():
                        raise
            # nobody has seen a byte of what was replaced yet: begin with what is there now

    @asynccontextmanager
    async def _reading(
        self, path: str, offset: int, size: int | None, if_match: str | None = None
    ) -> AsyncIterator[ResumedReading]:
        self._calls.statistics.calls += 1
        reading = ResumedReading(self._calls, self._budget(), self.inner, path, offset, size)
        await reading.begin(if_match)
        try:
            yield reading
        finally:
            await reading.close()

    async def write_stream(self, path: str, source: Source, size: int | None = None) -> str:
        sending = Sending(source)
        try:
            return await self._repeated(
                Operation.WRITE_STREAM,
                path,
                lambda: self.inner.write_stream(path, sending.pieces(), size),
                may_repeat=sending.may_be_replayed,
                moves=sending.moves,
            )
        except SourceFailed as failed:
            raise failed.error from None

    async def append(self, path: str, token: str, offset: int, source: Source) -> int:
        uploads, sending = require(self.inner, Resumes), Sending(source)
        try:
            return await self._repeated(
                Operation.APPEND,
                path,
                lambda: uploads.append(path, token, offset, sending.pieces()),
                may_repeat=sending.is_untouched,
                moves=sending.moves,
            )
        except SourceFailed as failed:
            raise failed.error from None

    async def _listing(
        self,
        operation: Operation,
        prefix: str,
        begin: Callable[[str], AsyncIterator[T]],
        key: Callable[[T], str],
        start_after: str = "",
    ) -> AsyncIterator[T]:
        budget, last, count = self._budget(), start_after, LISTED_AT_FIRST
        self._calls.statistics.calls += 1
        while True:
            broken: OstrakaError | None = None
            async with ended(begin(last)) as items:
                while broken is None:
                    batch: list[T] = []
                    try:
                        await self._calls.attempt(operation, lambda: _take(items, count, batch))  # noqa: B023
                    except OstrakaError as error:
                        broken = error
                    for item in batch:
                        last = key(item)
                        yield item
                    if broken is None and len(batch) < count:
                        return
                    if batch:
                        budget.progress()
                    count = LISTED_AT_ONCE
            if not is_passing(broken) or not await budget.allows_another():
                raise broken
            self._calls.statistics.resumed += 1


async def _take(items: AsyncIterator[T], count: int, batch: list[T]) -> None:
    """Put the next ones into the batch, also those that came before an error."""
    while len(batch) < count:
        try:
            batch.append(await anext(items))
        except StopAsyncIteration:
            return
