"""What all parts of the object core share: the doors below, the fence, and the debts of requests that failed.

Every commit of a process carries a precondition on the row of its incarnation: once that row is removed, a process
that was declared dead and lives on can change nothing (ENGINE 19).
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any

from ostraka.chunks.keyring import Keyring
from ostraka.chunks.types import KEY_TAG, Chunks, Entry, Kind
from ostraka.errors import Conflict, Corrupt, Full, Invalid, OstrakaError, Overloaded, Unavailable
from ostraka.host import Host
from ostraka.limits import Limits
from ostraka.objects import rows
from ostraka.objects.identity import Identity
from ostraka.objects.locks import KeyLocks
from ostraka.objects.pins import Pins
from ostraka.state import Delete, Mutation, Operation, Precondition, Present, Put, Rejected, State

FENCE = "fence"


class Rotated(Unavailable):
    """The key that a write sealed under was rotated away while it was under way; nothing was committed."""


# after one of these a mutation was certainly not applied; after any other failure nobody knows
CERTAINLY_NOT = (Conflict, Corrupt, Invalid, Overloaded, Full, Rotated)


def fenced() -> Unavailable:
    return Unavailable("this process was declared dead, and may write no more; restart it", reason="fenced")


def rotated() -> Rotated:
    return Rotated("the key that this was encrypted under was rotated away meanwhile; try again", reason="key")


def contended() -> Conflict:
    return Conflict("others kept changing the same key; try again", reason="contention")


class Core:
    """State, chunks and seams of one process, and the tasks and debts that outlive a request."""

    def __init__(
        self,
        state: State,
        chunks: Chunks,
        *,
        limits: Limits,
        host: Host,
        identity: Identity,
        incarnation: bytes,
        pins: Pins,
        executor: Executor | None,
        keyring: Keyring,
    ) -> None:
        assert len(incarnation) == rows.ID_SIZE
        self.state = state
        self.chunks = chunks
        self.limits = limits
        self.host = host
        self.identity = identity
        self.incarnation = incarnation
        self.pins = pins
        self.executor = executor
        self.keyring = keyring
        self.locks = KeyLocks()
        self.room: Callable[[], None] = lambda: None  # raises Full while clients may write nothing more (ENGINE 22)
        self.pressure: Callable[[], float] = lambda: 0.0  # 0 to 1: how near the disks are to that
        self.fence = Present(rows.INCARNATION + incarnation, FENCE)
        self.copies = asyncio.Semaphore(limits.copies_anew_max)  # whose holder reads and writes bodies at once
        self.ahead_bytes = 0  # memory that readers may hold for what comes after what they read now
        self.aside_bytes = 0  # of bodies, held without a buffer by those who wait for one
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed: dict[bytes, None] = {}  # manifests that are ours to give up, once the state lets us

    async def commit(self, preconditions: Sequence[Precondition], operations: Sequence[Operation]) -> int:
        """Commit one mutation under the fence; returns its sequence. Raises Rejected for the caller's own tags."""
        try:
            return (await self.state.commit(Mutation((self.fence, *preconditions), operations))).sequence
        except Rejected as refusal:
            if refusal.tag == FENCE:
                raise fenced() from refusal
            if refusal.tag == KEY_TAG:
                raise rotated() from refusal
            raise

    async def throttle(self) -> None:
        """Have a writer wait while disks are nearly full, so that compaction keeps up."""
        pressure = self.pressure()
        if pressure:
            await asyncio.sleep(pressure * self.limits.near_full_delay_seconds_max)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run clean-up that must not hold back an answer; `settle` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait for all clean-up, then try once more to give up what could not be given up."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pay()

    async def pay(self) -> None:
        """Try once more to give up what could not be given up."""
        for manifest in list(self._owed):
            await self.give_up(manifest)

    async def give_up(self, manifest: bytes) -> None:
        """Queue a pending manifest of ours as dead, unless it was made visible or never was there."""
        key = rows.pending_key(self.incarnation, manifest)
        dead = rows.DeadRecord((Entry(Kind.MANIFEST, manifest, 0, 0),))
        if len(self._owed) < self.limits.owed_manifests_max:
            self._owed[manifest] = None
        try:
            await self.commit(
                [Present(key, "pending")], [Delete(key), Put(rows.DEAD, rows.encode(dead), stamp_key=True)]
            )
        except Rejected:
            pass
        except OstrakaError:
            return  # stays owed; and if this process ends before, its incarnation's rows are found by the collector
        self._owed.pop(manifest, None)
