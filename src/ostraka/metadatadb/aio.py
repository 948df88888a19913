"""`AsyncStore` and `AsyncNamespace`: the shared metadata database in an asyncio program."""

import contextlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ostraka.backends import Backend
from ostraka.backends.iterators import ended
from ostraka.metadatadb.handles import Handle, Keyed
from ostraka.metadatadb.naming import Naming
from ostraka.metadatadb.operations import Op
from ostraka.metadatadb.replica import Journal, Replica
from ostraka.metadatadb.watching import Touch


@dataclass(frozen=True, slots=True)
class Change:
    """A name that may have changed, and which of its keys or members; None: all of it.

    Keys are as the handle of that name has them; without a handle, their canonical JSON text.
    """

    name: str
    keys: frozenset[Any] | None


def change_of(touch: Touch, handle: Handle[Any, Any] | None) -> Change:
    if touch.keys is None or not isinstance(handle, Keyed):
        return Change(touch.name, touch.keys)
    return Change(touch.name, frozenset(map(handle.decode_key, touch.keys)))


class AsyncNamespace(Naming[Awaitable[None], Awaitable[bool]]):
    """A namespace. Made by `AsyncStore.namespace`; writes are awaited, reads are not."""

    async def change(self, *ops: Op) -> None:
        if not self.gathered(ops):
            await self._apply(ops)

    async def ask(self, *ops: Op) -> bool:
        return self.gathered(ops) or await self._apply(ops)

    async def _apply(self, ops: tuple[Op, ...]) -> bool:
        transaction = self.transaction(ops)
        done = self._scope.apply_now(transaction)
        return await self._scope.apply(transaction) if done is None else done

    @contextlib.asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """What this task changes inside takes effect together, at its end; if it raises, nothing does.

        Reads inside see what was before. A comparison inside answers True, and if it does not hold, nothing takes
        effect and the end raises PreconditionFailed (reason "changed").
        """
        with self.gathering() as ops:
            yield
        if ops and not await self._apply(tuple(ops)):
            raise self.unmet()

    async def flush(self) -> None:
        """What was applied here is durable, and what was durable when this began is seen."""
        await self._scope.flush()

    async def refresh(self, max_staleness: float = 0.0) -> None:
        """What was durable so many seconds ago is seen."""
        await self._scope.refresh(max_staleness)

    def watch(self, *names: str) -> AsyncIterator[Change]:
        """What changes from this call on (in all names, or these): here at once, elsewhere with the sync that sees it.

        Changes that were not taken yet are told as one. Ends with Unavailable (reason "closed") when the store does.
        """
        return self._changes(self._scope.watch(names))

    async def _changes(self, touches: AsyncIterator[Touch]) -> AsyncIterator[Change]:
        async with ended(touches):
            async for touch in touches:
                yield change_of(touch, self._handles.get(touch.name))


class AsyncStore:
    """A store of namespaces. ``AsyncStore(backend)`` is `Journal`; `Periodic` and `Memory` are named.

    >>> import asyncio
    >>> from ostraka.backends import MemoryBackend
    >>> async def main():
    ...     async with AsyncStore(MemoryBackend()) as store:
    ...         clones = (await store.namespace("git")).int_map("clones")
    ...         await clones.add("ostraka", 2)
    ...         return clones.entries()
    >>> asyncio.run(main())
    {'ostraka': 2}

    Closing it closes the replica, not the byte store.
    """

    def __init__(self, backend: Backend | Replica) -> None:
        self.replica = backend if isinstance(backend, Replica) else Journal(backend)
        self._namespaces: dict[str, AsyncNamespace] = {}

    async def namespace(self, name: str) -> AsyncNamespace:
        """The namespace of that name, which need not exist; what is there has been read."""
        scope = await self.replica.scope(name)
        return self._namespaces.setdefault(name, AsyncNamespace(scope))

    async def namespaces(self) -> list[str]:
        """Those that hold something, in order."""
        return await self.replica.namespaces()

    async def delete_namespace(self, name: str) -> None:
        """Nothing is held there any more, for anybody, when this returns; what is written later is kept."""
        await self.replica.delete_namespace(name)

    def metrics(self) -> bytes:
        """What was counted, in Prometheus' text format."""
        return self.replica.metrics()

    async def close(self) -> None:
        """Flush every namespace, and end. Raises if something could not be made durable, after having ended."""
        await self.replica.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
