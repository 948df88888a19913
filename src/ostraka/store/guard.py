"""The state behind a guard: no commit while the store is read-only, none before this process can be fenced.

A store without a majority of its disks must not change (ENGINE 3): what it accepted could be lost to the other half.
And a process may commit only once the row of its incarnation stands, so that removing that row ends its writes
(ENGINE 19). Both concern every room above, so they are seen to here, once.
"""

import asyncio
from collections.abc import Sequence

from ostraka.nodes.membership import Membership
from ostraka.objects.rows import INCARNATION
from ostraka.state import Committed, Ensure, Mutation, Outcome, State


class GuardedState:
    """A `State` that lets reads through as they are."""

    def __init__(self, inner: State, membership: Membership, incarnation: bytes) -> None:
        self._inner = inner
        self._membership = membership
        self._row = INCARNATION + incarnation
        self._registered = False
        self._registering = asyncio.Lock()
        self.get = inner.get
        self.get_many = inner.get_many
        self.scan = inner.scan
        self.first = inner.first

    @property
    def sequence(self) -> int:
        return self._inner.sequence

    async def commit(self, mutation: Mutation) -> Committed:
        self._membership.up()
        if not self._registered:
            await self._register()
        return await self._inner.commit(mutation)

    async def commit_many(self, mutations: Sequence[Mutation]) -> list[Outcome]:
        self._membership.up()
        if not self._registered:
            await self._register()
        return await self._inner.commit_many(mutations)

    async def close(self) -> None:
        await self._inner.close()

    async def _register(self) -> None:
        async with self._registering:
            if not self._registered:
                await self._inner.commit(Mutation((), [Ensure(self._row, b"")]))
                self._registered = True
