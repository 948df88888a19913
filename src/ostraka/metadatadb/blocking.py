"""`Store` and `Namespace`: the shared metadata database in a program without asyncio. The same names as in aio.py.

An event loop in a thread does what waits; what does not wait - reading, and writing where that needs nobody - is done
by the thread that asks. Methods may be called from any thread.
"""

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from ostraka.backends import Backend
from ostraka.loop_thread import LoopThread
from ostraka.metadatadb.aio import Change, change_of
from ostraka.metadatadb.naming import Naming
from ostraka.metadatadb.operations import Op
from ostraka.metadatadb.replica import Journal, Replica
from ostraka.metadatadb.scope import Scope


class Namespace(Naming[None, bool]):
    """A namespace. Made by `Store.namespace`."""

    def __init__(self, scope: Scope, loop: LoopThread) -> None:
        super().__init__(scope)
        self._loop = loop

    def change(self, *ops: Op) -> None:
        if not self.gathered(ops):
            self._apply(ops)

    def ask(self, *ops: Op) -> bool:
        return self.gathered(ops) or self._apply(ops)

    def _apply(self, ops: tuple[Op, ...]) -> bool:
        transaction = self.transaction(ops)
        done = self._scope.apply_now(transaction)
        return self._loop.run(self._scope.apply(transaction)) if done is None else done

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """As `AsyncNamespace.batch`, for this thread."""
        with self.gathering() as ops:
            yield
        if ops and not self._apply(tuple(ops)):
            raise self.unmet()

    def flush(self) -> None:
        """As `AsyncNamespace.flush`."""
        self._loop.run(self._scope.flush())

    def refresh(self, max_staleness: float = 0.0) -> None:
        """As `AsyncNamespace.refresh`."""
        self._loop.run(self._scope.refresh(max_staleness))

    def watch(self, *names: str) -> Iterator[Change]:
        """As `AsyncNamespace.watch`, waiting for each."""

        async def begin() -> Iterator[Change]:
            touches = self._scope.watch(names)
            return (change_of(touch, self._handles.get(touch.name)) for touch in self._loop.iterate(touches))

        return self._loop.run(begin())


class Store:
    """A store of namespaces. ``Store(backend)`` is `Journal`; `Periodic` and `Memory` are named.

    >>> from ostraka.backends import MemoryBackend
    >>> with Store(MemoryBackend()) as store:
    ...     builds = store.namespace("builds")
    ...     done = builds.set("done", int)
    ...     with builds.batch():
    ...         done.add(17)
    ...         builds.scalar("last", int).set(17)
    ...     17 in done, builds.scalar("last", int).get()
    (True, 17)

    The byte store belongs to it while it is open: it is used by the thread of its loop.
    """

    def __init__(self, backend: Backend | Replica) -> None:
        self._loop = LoopThread()
        self._namespaces: dict[str, Namespace] = {}
        self._closed = False
        try:
            self.replica = backend if isinstance(backend, Replica) else Journal(backend)
        except BaseException:
            self._loop.close()
            raise

    def namespace(self, name: str) -> Namespace:
        """As `AsyncStore.namespace`."""
        found = self._namespaces.get(name)
        if found is None:
            scope = self._loop.run(self.replica.scope(name))
            found = self._namespaces.setdefault(name, Namespace(scope, self._loop))
        return found

    def namespaces(self) -> list[str]:
        """As `AsyncStore.namespaces`."""
        return self._loop.run(self.replica.namespaces())

    def delete_namespace(self, name: str) -> None:
        """As `AsyncStore.delete_namespace`."""
        self._loop.run(self.replica.delete_namespace(name))

    def metrics(self) -> bytes:
        """As `AsyncStore.metrics`."""
        return self.replica.metrics()

    def close(self) -> None:
        """As `AsyncStore.close`. May be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._loop.run(self.replica.close())
        finally:
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
