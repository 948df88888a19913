"""Who may commit: nobody while the store is read-only, and no process before it can be fenced.

A store without a majority of its disks must not change (ENGINE 3): what it accepted could be lost to the other half.
And a process may commit only once the row of its incarnation stands, so that removing that row ends its writes
(ENGINE 19). Both concern every room above the state, so they are seen to here, once, as `EmbeddedState.admit`.
"""

import asyncio
from collections.abc import Awaitable

from ostraka.nodes.membership import Membership
from ostraka.objects.rows import INCARNATION
from ostraka.state import Ensure, Mutation
from ostraka.state.embedded import EmbeddedState


class Admission:
    """Admits commits of one process; registers its incarnation before the first."""

    def __init__(self, state: EmbeddedState, membership: Membership, incarnation: bytes) -> None:
        self._state = state
        self._membership = membership
        self._row = INCARNATION + incarnation
        self._registered = False
        self._turn = asyncio.Lock()

    def admit(self) -> Awaitable[None] | None:
        """None: go ahead. Raises Unavailable while the store is read-only."""
        self._membership.up()
        return None if self._registered else self._register()

    async def _register(self) -> None:
        async with self._turn:
            if not self._registered:
                await asyncio.to_thread(self._state.apply, [Mutation((), [Ensure(self._row, b"")])])
                self._registered = True
