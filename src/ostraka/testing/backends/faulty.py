"""A backend that fails on order or by seed, around one that does not: what a network and a busy store do to callers.

    faults = Faults(seed=7)
    faults.order("write", Fault.AFTER)                          # the next write happens, and its answer is lost
    faults.order("read", Fault.RESET, times=2, error=...)       # the next two reads break off
    faults.chance(0.1, {Fault.BEFORE, Fault.LATENCY})           # of every call, by seed
    backend = FaultyBackend(MemoryBackend(), faults)

Calls are named as in ostraka.backends.Operation. What was injected is in ``faults.log``.
"""

import asyncio
import enum
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ostraka.backends import Backend, DeleteFailure, DeletesBatches, Entry, Reading, Resumes, Source, require
from ostraka.backends.iterators import ended
from ostraka.backends.wrapper import Operation, Wrapper
from ostraka.errors import NotSupported, OstrakaError, Unavailable
from ostraka.host import Buffer

T = TypeVar("T")
Failures = list[DeleteFailure]
HISTORY_MAX = 1000  # changes that a stale listing may not know of yet


class Fault(enum.Enum):
    LATENCY = "latency"  # the call takes longer
    BEFORE = "before"  # an error, and nothing happened
    AFTER = "after"  # it happened, and then an error: the answer was lost
    HANG = "hang"  # no answer for ever; nothing happened
    TRUNCATE = "truncate"  # what is read ends early, without any error
    RESET = "reset"  # what is read, written or listed breaks off in the middle
    PARTIAL_BATCH = "partial-batch"  # some paths of a batch fail
    STALE_LIST = "stale-list"  # a listing does not know of the last changes


_READS = frozenset({Operation.READ, Operation.LIST, Operation.LIST_DIRECTORIES})
FITS = {  # the calls that a fault is for; one that is not here is for all
    Fault.TRUNCATE: frozenset({Operation.READ}),
    Fault.RESET: frozenset({Operation.READ, Operation.WRITE_STREAM, Operation.APPEND, Operation.LIST}),
    Fault.PARTIAL_BATCH: frozenset({Operation.DELETE_BATCH}),
    Fault.STALE_LIST: frozenset({Operation.LIST}),
    Fault.AFTER: frozenset(Operation) - _READS,
}


def fits(fault: Fault, operation: Operation) -> bool:
    return fault not in FITS or operation in FITS[fault]


def broken() -> Unavailable:
    """The error that is raised unless another is ordered."""
    return Unavailable("a fault, as ordered", reason="connection")


@dataclass(slots=True)
class _Order:
    operation: Operation | None
    fault: Fault
    times: int
    skip: int
    error: Callable[[], BaseException]


class Faults:
    """What is to go wrong, by order or by seed, and what did. ``sleep`` is what latency waits with."""

    def __init__(self, seed: int = 0, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.random = random.Random(seed)
        self.sleep = sleep
        self.calls: Counter[str] = Counter()
        self.log: list[tuple[str, str, str]] = []  # call, path, fault
        self.latency_max = 0.01  # seconds
        self._orders: list[_Order] = []
        self._chances: list[tuple[float, list[Fault], frozenset[Operation]]] = []

    def order(
        self,
        operation: str | None,
        fault: Fault,
        *,
        times: int = 1,
        skip: int = 0,
        error: Callable[[], BaseException] = broken,
    ) -> None:
        """The next so many calls of this kind (None: any that the fault fits) go wrong, after ``skip`` more."""
        self._orders.append(_Order(Operation(operation) if operation else None, fault, times, skip, error))

    def chance(self, of_all: float, faults: Iterable[Fault], operations: Iterable[Operation] = Operation) -> None:
        """Each call, of these kinds, goes wrong with this probability, by one of these faults that fits it."""
        self._chances.append((of_all, sorted(faults, key=lambda fault: fault.value), frozenset(operations)))

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self._orders.clear()
        self._chances.clear()

    def meet(self, operation: Operation, path: str) -> tuple[Fault | None, Callable[[], BaseException]]:
        """What happens to this call."""
        self.calls[operation.value] += 1
        found, error = self._ordered(operation)
        if found is None:
            for of_all, faults, operations in self._chances:
                fitting = [fault for fault in faults if operation in operations and fits(fault, operation)]
                if fitting and self.random.random() < of_all:
                    found = self.random.choice(fitting)
                    break
        if found is not None:
            self.log.append((operation.value, path, found.value))
        return found, error

    def _ordered(self, operation: Operation) -> tuple[Fault | None, Callable[[], BaseException]]:
        for order in self._orders:
            if order.operation not in (None, operation) or not fits(order.fault, operation):
                continue
            if order.skip:
                order.skip -= 1
                continue
            order.times -= 1
            if order.times <= 0:
                self._orders.remove(order)
            return order.fault, order.error
        return None, broken


class FaultyBackend(Wrapper):
    """The inner backend, with faults. Nothing can be made of its configuration."""

    type: ClassVar[str] = "faulty"

    def __init__(self, inner: Backend, faults: Faults) -> None:
        super().__init__(inner)
        self.faults = faults
        self._history: deque[tuple[str, Entry | None]] = deque(maxlen=HISTORY_MAX)  # path, what was there before

    def to_config(self) -> dict[str, Any]:
        raise NotSupported("a faulty backend has no configuration", reason="config")

    async def _call(self, operation: Operation, path: str, call: Callable[[], Awaitable[T]]) -> T:
        fault, error = self.faults.meet(operation, path)
        await self._begin(fault, error)
        if operation in (Operation.WRITE, Operation.WRITE_IF, Operation.DELETE, Operation.DELETE_IF, Operation.COPY):
            await self._remember(path)
        answer = await call()
        if fault is Fault.AFTER:
            raise error()
        return answer

    async def _begin(self, fault: Fault | None, error: Callable[[], BaseException]) -> None:
        if fault is Fault.LATENCY:
            await self.faults.sleep(self.faults.random.uniform(0, self.faults.latency_max))
        elif fault is Fault.BEFORE:
            raise error()
        elif fault is Fault.HANG:
            await asyncio.Event().wait()

    async def _remember(self, path: str) -> None:
        try:
            stat = await self.inner.stat(path)
        except OstrakaError:  # no path, or the backend was closed: the call itself will say so
            return
        self._history.append((path, None if stat is None else Entry(path, stat)))

    # -- streams

    @asynccontextmanager
    async def open(
        self, path: str, *, offset: int = 0, size: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[Reading]:
        fault, error = self.faults.meet(Operation.READ, path)
        await self._begin(fault, error)
        async with self.inner.open(path, offset=offset, size=size, if_match=if_match) as reading:
            left = max(0, reading.stat.size - offset)
            left = left if size is None else min(size, left)
            if fault in (Fault.TRUNCATE, Fault.RESET):
                broken_off = self._broken_off(reading.pieces, left, error if fault is Fault.RESET else None)
                yield Reading(reading.stat, broken_off)
            else:
                yield reading

    async def _broken_off(
        self, pieces: AsyncIterator[Buffer], total: int, error: Callable[[], BaseException] | None
    ) -> AsyncIterator[Buffer]:
        left = self.faults.random.randrange(total) if total else 0
        async for piece in pieces:
            view = memoryview(piece).cast("B")[:left]
            left -= len(view)
            if len(view):
                yield view
            if not left:
                break
        if error is not None:
            raise error()

    async def write_stream(self, path: str, source: Source, size: int | None = None) -> str:
        await self._remember(path)
        return await self._sent(Operation.WRITE_STREAM, path, source, lambda s: self.inner.write_stream(path, s, size))

    async def append(self, path: str, token: str, offset: int, source: Source) -> int:
        uploads = require(self.inner, Resumes)
        return await self._sent(Operation.APPEND, path, source, lambda s: uploads.append(path, token, offset, s))

    async def _sent(self, operation: Operation, path: str, source: Source, send: Callable[[Source], Awaitable[T]]) -> T:
        fault, error = self.faults.meet(operation, path)
        await self._begin(fault, error)
        failure = error() if fault is Fault.RESET else None
        answer = await send(_resetting(source, self.faults.random, failure) if failure else source)
        if failure is not None:  # the source was too short to break off within
            raise failure
        if fault is Fault.AFTER:
            raise error()
        return answer

    # -- many paths

    async def delete_batch(self, paths: Iterable[str]) -> Failures:
        batches, these = require(self.inner, DeletesBatches), [*paths]
        fault, error = self.faults.meet(Operation.DELETE_BATCH, "")
        await self._begin(fault, error)
        failing: set[int] = set()
        if fault is Fault.PARTIAL_BATCH:
            failing = {n for n in range(len(these)) if self.faults.random.random() < 0.5}
        for path in these:
            await self._remember(path)
        failures = await batches.delete_batch([p for n, p in enumerate(these) if n not in failing])
        if fault is Fault.AFTER:
            raise error()
        return failures + [DeleteFailure(these[n], broken()) for n in sorted(failing)]

    async def list_entries(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[Entry]:
        fault, error = self.faults.meet(Operation.LIST, prefix)
        await self._begin(fault, error)
        entries = self.inner.list_entries(prefix, start_after=start_after)
        if fault is Fault.STALE_LIST:
            entries = self._stale(entries, prefix, start_after)
        left = self.faults.random.randrange(10) if fault is Fault.RESET else -1
        async with ended(entries) as all_of_them:
            async for entry in all_of_them:
                if left == 0:
                    raise error()
                left -= 1
                yield entry
        if fault is Fault.RESET:
            raise error()

    async def _stale(self, entries: AsyncIterator[Entry], prefix: str, start_after: str) -> AsyncIterator[Entry]:
        """As before some of the last changes: what is new is missing, what was deleted is there."""
        known = {entry.path: entry async for entry in entries}
        for _ in range(self.faults.random.randint(1, max(1, len(self._history)))):
            if self._history:
                path, before = self._history.pop()
                if before is None:
                    known.pop(path, None)
                elif path.startswith(prefix) and path.encode() > start_after.encode():
                    known[path] = before
        for path in sorted(known, key=str.encode):
            yield known[path]

    def list(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[str]:
        return Backend.list(self, prefix, start_after=start_after)

    async def _listing(
        self,
        operation: Operation,
        prefix: str,
        begin: Callable[[str], AsyncIterator[T]],
        key: Callable[[T], str],
        start_after: str = "",
    ) -> AsyncIterator[T]:
        fault, error = self.faults.meet(operation, prefix)
        await self._begin(fault, error)
        async with ended(super()._listing(operation, prefix, begin, key, start_after)) as items:
            async for item in items:
                yield item


def _resetting(source: Source, chance: random.Random, error: BaseException) -> Source:
    """The source, until the store breaks off: after a part of it, which nobody gives twice."""

    async def pieces() -> AsyncIterator[Buffer]:
        left = chance.randrange(4)
        async with ended(aiter(source() if callable(source) else source)) as given:
            async for piece in given:
                if not left:
                    raise error
                left -= 1
                yield piece

    return pieces()
