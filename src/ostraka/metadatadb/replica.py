"""Replicas: what a store keeps its namespaces in. `Memory` is alone; `Journal` and `Periodic` share theirs with every
other replica over the same byte store and prefix, whichever of the two those are.

                        Journal                             Periodic
    ``apply`` returns   when it is durable                  at once: *not durable yet*
    others see it       with their next sync                with their next sync after ours
    a crash loses       nothing that was acknowledged       what was not synced yet
    requests            1 PUT for each group of writes      1 LIST and 1 PUT for each interval with writes
    idle                1 LIST for each interval            1 LIST for each interval
    for                 what must not be lost; claims       counters and hints that are written all the time

In both, queries are local and never wait, a transaction that expects something answers when it is settled between all
replicas, and ``flush`` is a barrier: what was applied here is durable, what was durable is seen.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

from ostraka.backends import Backend
from ostraka.backends.paths import check_path
from ostraka.errors import Invalid, Unavailable
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits
from ostraka.metadatadb.journal import JournalScope
from ostraka.metadatadb.memory import MemoryScope
from ostraka.metadatadb.metrics import Counters
from ostraka.metadatadb.objects import Listing, Objects
from ostraka.metadatadb.operations import Clear, Op, Transaction
from ostraka.metadatadb.periodic import PeriodicScope
from ostraka.metadatadb.queries import Question
from ostraka.metadatadb.scope import Scope, SharedScope
from ostraka.metadatadb.sharing import Sharing, all_of

T = TypeVar("T")

PREFIX = "metadatadb/"
JOURNAL_SYNC_SECONDS = 15.0
PERIODIC_SYNC_SECONDS = 30.0
LOCK_SECONDS = 30.0


def check_name(name: str, what: str, limits: Limits) -> str:
    """A name of a namespace, or one in it. Invalid (reason "name") if it is none."""
    if not name or not isinstance(name, str):
        raise Invalid(f"{name!r} is no name of {what}: give it at least one character", reason="name")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise Invalid(f"{name!r} is no name of {what}: it is no Unicode text", reason="name") from None
    if size > limits.metadatadb_name_bytes_max:
        raise Invalid(
            f"a name of {what} of {size} bytes: at most {limits.metadatadb_name_bytes_max} are taken", reason="name"
        )
    return name


def check_namespace(name: str, limits: Limits) -> str:
    """The same of a namespace: it is a part of a path, also where it is kept in memory only."""
    check_name(name, "a namespace", limits)
    if "/" in name:
        raise Invalid(f"{name!r} is no name of a namespace: it holds a '/'", reason="name")
    try:
        return check_path(name)
    except Invalid as e:
        raise Invalid(f"{name!r} is no name of a namespace: {e.message}", reason="name") from None


class Replica(ABC):
    """What keeps namespaces. Belongs to the event loop that uses it first; queries may come from any thread."""

    type: ClassVar[str]

    def __init__(self, *, host: Host | None = None, limits: Limits = LIMITS) -> None:
        self.host = host or Host()
        self.limits = limits
        self.counters = Counters()
        self.counters.board.before_render.append(self._refresh_gauges)
        self._scopes: dict[str, Scope] = {}
        self._opening = asyncio.Lock()
        self._closed = False

    async def scope(self, namespace: str) -> Scope:
        """The namespace, which need not exist: what is there has been read when this returns."""
        if found := self._scopes.get(namespace):
            return found
        check_namespace(namespace, self.limits)
        async with self._opening:
            if self._closed:
                raise Unavailable("the replica was closed", reason="closed")
            if namespace not in self._scopes:
                self._scopes[namespace] = await self.open_scope(namespace)
            return self._scopes[namespace]

    @abstractmethod
    async def open_scope(self, namespace: str) -> Scope:
        """Open what is not open yet."""

    async def apply(self, namespace: str, *ops: Op) -> bool:
        """Let these operations take effect, together. As `Scope.apply`."""
        scope = await self.scope(namespace)
        return await scope.apply(Transaction(scope.now(), ops))

    async def query(self, namespace: str, query: Question[T]) -> T:
        """The answer as this replica sees it; waits only for the namespace to be opened."""
        return (await self.scope(namespace)).query(query)

    async def flush(self, namespace: str) -> None:
        """What was applied here is durable, and what was durable when this began is seen."""
        await (await self.scope(namespace)).flush()

    @abstractmethod
    async def namespaces(self) -> list[str]:
        """Those that hold something, in order."""

    async def delete_namespace(self, namespace: str) -> None:
        """Nothing is held there any more, for anybody, when this returns; what is written later is kept."""
        await self.apply(namespace, Clear())

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """What ``create`` makes an equal replica of."""

    async def close(self) -> None:
        """Flush every namespace, and end. Raises the first failure, once all have ended. May be called twice."""
        self._closed = True
        async with self._opening:
            await all_of(scope.close() for scope in self._scopes.values())

    def metrics(self) -> bytes:
        """What was counted, in Prometheus' text format."""
        return self.counters.board.render()

    def _refresh_gauges(self) -> None:
        states = [scope.status() for scope in self._scopes.values()]
        self.counters.show("pending_operations", sum(s.pending for s in states))
        self.counters.show("staleness_seconds", max((s.staleness for s in states), default=0.0))


class Memory(Replica):
    """Namespaces in this process's memory."""

    type = "memory"

    async def open_scope(self, namespace: str) -> Scope:
        return MemoryScope(namespace, self.host, self.limits, self.counters)

    async def namespaces(self) -> list[str]:
        return sorted(name for name, scope in self._scopes.items() if scope.copy.view.names)

    def to_config(self) -> dict[str, Any]:
        return {"type": self.type}


class Shared(Replica):
    """Namespaces that replicas share through a byte store. ``sync_interval``: seconds between two syncs; ``lock_ttl``:
    how long a replica may hold the lock that lowers contention; ``owned``: close the byte store, too, at the end.

    NotSupported if the byte store cannot write conditionally.
    """

    sync_seconds: ClassVar[float]
    kind: ClassVar[type[JournalScope] | type[PeriodicScope]]

    def __init__(
        self,
        backend: Backend,
        *,
        prefix: str = PREFIX,
        sync_interval: float | None = None,
        lock_ttl: float = LOCK_SECONDS,
        owned: bool = False,
        host: Host | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        super().__init__(host=host, limits=limits)
        if not isinstance(backend, Backend):
            raise Invalid(f"{backend!r} is no byte store: give a backend, such as LocalBackend(path)", reason="config")
        self.backend = backend
        self.prefix = prefix
        self.sync_interval = self.sync_seconds if sync_interval is None else sync_interval
        self.lock_ttl = lock_ttl
        self._owned = owned
        self._chance = random.Random(self.host.random(16))
        if not (self.sync_interval > 0 and lock_ttl > 0):
            raise Invalid("sync_interval and lock_ttl are seconds, more than 0", reason="config")
        self._objects("namespace")

    def _objects(self, namespace: str) -> Objects:
        check_path(f"{self.prefix}{namespace}/snapshot-{'0' * 54}")
        return Objects(self.backend, f"{self.prefix}{namespace}", self.limits)

    async def open_scope(self, namespace: str) -> Scope:
        objects = self._objects(namespace)
        sharing = Sharing(objects, self.host, self.limits, self.counters, self._chance, self.lock_ttl)
        scope = self.kind(namespace, sharing, self.host, self.limits, self.counters)
        await scope.open(self.sync_interval, self.limits.metadatadb_commit_seconds_max)
        return scope

    async def delete_namespace(self, namespace: str) -> None:
        await super().delete_namespace(namespace)
        scope = await self.scope(namespace)
        assert isinstance(scope, SharedScope)
        await scope.refresh(0.0)
        await scope.sharing.sweep(all=True)

    async def namespaces(self) -> list[str]:
        found: dict[str, Listing] = {}
        async for entry in self.backend.list_entries(self.prefix):
            namespace, slash, name = entry.path.removeprefix(self.prefix).partition("/")
            if slash and "/" not in name:
                found.setdefault(namespace, Listing()).add(name, entry.stat.etag)
        return [name for name, listing in sorted(found.items()) if await self._holds(name, listing)]

    async def _holds(self, namespace: str, listing: Listing) -> bool:
        """Whether something is held there. What was deleted has left an empty snapshot: its writers are remembered."""
        if listing.void:
            found = await self._objects(namespace).read_head()
            snapshot = found and found[0].about.snapshot
            return not (found and snapshot and snapshot.sequence == found[0].about.sequence)
        return bool(listing.entries) or listing.head is not None

    def to_config(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "backend": self.backend.to_config(),
            "prefix": self.prefix,
            "sync_interval": self.sync_interval,
            "lock_ttl": self.lock_ttl,
        }

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            if self._owned:
                await self.backend.close()


class Journal(Shared):
    """``apply`` returns when it is durable."""

    type = "journal"
    sync_seconds = JOURNAL_SYNC_SECONDS
    kind = JournalScope


class Periodic(Shared):
    """``apply`` returns at once, and is *not durable* before the next sync or ``flush``."""

    type = "periodic"
    sync_seconds = PERIODIC_SYNC_SECONDS
    kind = PeriodicScope
