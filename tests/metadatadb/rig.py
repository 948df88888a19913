"""Replicas over a store in memory whose calls are counted and fail on order, on virtual time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from ostraka.backends import MemoryBackend
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits
from ostraka.metadatadb import AsyncNamespace, AsyncStore, Journal, Periodic
from ostraka.metadatadb.scope import SharedScope
from ostraka.testing.backends.faulty import Faults, FaultyBackend
from ostraka.testing.virtual_time import LoopClock, VirtualLoop, run


class Rig:
    """One store in memory, and replicas that reach it through faults of their own."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.common = MemoryBackend(LoopClock(loop))
        self.stores: list[AsyncStore] = []

    def store(
        self,
        kind: type[Journal] | type[Periodic] = Journal,
        *,
        faults: Faults | None = None,
        limits: Limits = LIMITS,
        skew: float = 0.0,
        interval: float = 10.0,
        lock_ttl: float = 30.0,
    ) -> AsyncStore:
        backend = FaultyBackend(self.common, faults or Faults())
        host = Host(clock=LoopClock(self.loop, skew), boot="")
        store = AsyncStore(kind(backend, host=host, limits=limits, sync_interval=interval, lock_ttl=lock_ttl))
        self.stores.append(store)
        return store

    async def names(self) -> list[str]:
        """The objects that lie there, without their directory."""
        return [path.removeprefix("metadatadb/ns/") async for path in self.common.list()]


def scope_of(ns: AsyncNamespace) -> SharedScope:
    assert isinstance(ns._scope, SharedScope)
    return ns._scope


def rigged(test: Callable[[Rig], Awaitable[Any]]) -> Callable[[], None]:
    """A test on virtual time, with a rig; what it opened is closed."""

    def sync_test() -> None:
        async def main(loop: VirtualLoop) -> None:
            rig = Rig(loop)
            await test(rig)
            await asyncio.gather(*(store.close() for store in rig.stores))

        run(main)

    sync_test.__name__, sync_test.__doc__, sync_test.__module__ = test.__name__, test.__doc__, test.__module__
    return sync_test


def spent(faults: Faults, before: Counter[str]) -> dict[str, int]:
    """The calls since then."""
    return dict(faults.calls - before)
