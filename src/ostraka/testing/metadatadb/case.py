"""What a case is, and the place where its replicas meet."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from ostraka.host import Host
from ostraka.metadatadb import AsyncNamespace, AsyncStore, Periodic, Replica


class SetClock:
    """A clock that goes when it is told to; intervals are told by it, too."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@dataclass(frozen=True)
class Place:
    """Where the replicas of a case meet. ``replica`` makes one more of the same data, with the clock of that host.

    ``shared``: they see each other's writes; ``rivals``: also when they write at the same moment.
    """

    replica: Callable[[Host], Replica]
    shared: bool = True
    rivals: bool = True

    @asynccontextmanager
    async def store(self, clock: SetClock | None = None) -> AsyncIterator[AsyncStore]:
        async with AsyncStore(self.replica(Host(clock=clock))) as store:
            yield store

    @asynccontextmanager
    async def namespaces(self, count: int = 1, name: str = "case") -> AsyncIterator[list[AsyncNamespace]]:
        """The same namespace in so many replicas."""
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(self.store()) for _ in range(count)]
            yield [await store.namespace(name) for store in stores]


def durable_at_once(store: AsyncStore) -> bool:
    """Whether what it applied needs no flush to be seen by others."""
    return not isinstance(store.replica, Periodic)


Factory = Callable[[], AbstractAsyncContextManager[Place]]
Run = Callable[[Place], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One thing that a replica must do."""

    name: str
    run: Run
    shared: bool = False
    rivals: bool = False

    async def __call__(self, factory: Factory) -> None:
        async with factory() as place:
            if (place.shared or not self.shared) and (place.rivals or not self.rivals):
                await self.run(place)

    def __str__(self) -> str:
        return self.name


def collector(cases: list[Case], *, shared: bool = False) -> Callable[..., Callable[[Run], Run]]:
    """A decorator that makes the function below it one of the cases, under its own name."""

    def case(*, rivals: bool = False) -> Callable[[Run], Run]:
        def add(run: Run) -> Run:
            cases.append(Case(getattr(run, "__name__", repr(run)), run, shared or rivals, rivals))
            return run

        return add

    return case
