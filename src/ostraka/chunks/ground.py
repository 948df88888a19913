"""What the parts of this room stand on: pool, state, bounds, threads, and the tasks that the room owns."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ostraka.chunks.counters import Counters
from ostraka.chunks.rows import named
from ostraka.chunks.sealing import DataKey, Domain, key_of
from ostraka.chunks.types import Entry, Keyring
from ostraka.errors import OstrakaError
from ostraka.host import Host
from ostraka.limits import Limits
from ostraka.pools.types import Owner, Pool, Stripe
from ostraka.state.types import Mutation, State

T = TypeVar("T")


class Tasks:
    """Tasks that outlive the call that began them; their owner waits for all of them when it closes."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def finish(self) -> None:
        """Wait until nothing runs any more."""
        while self._running:
            await asyncio.wait(set(self._running))

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # who waits for it gets it; if nobody does, nothing of ours was promised


@dataclass(frozen=True, slots=True)
class Ground:
    """Given to every part of the room."""

    pool: Pool
    state: State
    secret: bytes  # 32 bytes, the key of chunk ids
    limits: Limits
    host: Host
    executor: Executor
    counters: Counters
    redundant: Callable[[Stripe], bool]  # is that stripe known to have all of its shards?
    on_damage: Callable[[Entry, OstrakaError], None]
    keyring: Keyring
    tasks: Tasks = field(default_factory=Tasks)

    def in_thread(self, function: Callable[..., T], *arguments: object) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)

    def data_key(self, seal: bytes, of: bytes, domain: Domain | None) -> DataKey:
        """The key under a row's seal: of a customer's ``domain`` if it was made in that, else of one of the store's."""
        if domain is not None and (domain.id, domain.version) == key_of(seal):
            return domain.open(seal, of)
        return self.keyring.open(seal, of)

    def settle(self, owner: Owner, owner_id: bytes, stripe: Stripe) -> None:
        """Whoever could commit this stripe has done so, or never will: tell the pool which (`Pool.settle`)."""
        try:
            if named(self.state, owner, owner_id, stripe.write_id):
                self.pool.settle([stripe])
                return
        except OstrakaError:
            pass  # the state is away, or the row damaged: the stripe stays as it is, which is safe
        self.tasks.spawn(self._settle(owner, owner_id, stripe))

    async def _settle(self, owner: Owner, owner_id: bytes, stripe: Stripe) -> None:
        """A commit whose caller was cancelled may still be queued. The state serves one process's commits in order:
        once an empty one is through, what was queued before it has landed or never will."""
        try:
            await self.state.commit(Mutation())
            if named(self.state, owner, owner_id, stripe.write_id):
                self.pool.settle([stripe])
            else:
                await self.pool.release([(owner, owner_id, stripe)])
        except OstrakaError:
            pass  # nobody can tell: compaction leaves it alone while this process lives (ENGINE 19)

    def give_back(self, owner: Owner, owner_id: bytes, stripe: Stripe) -> None:
        """A stripe that the state certainly does not name and never will: its shards are dead bytes."""
        self.tasks.spawn(self.pool.release([(owner, owner_id, stripe)]))
