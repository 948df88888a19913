"""The journal discipline: an operation is durable when ``apply`` returns.

What waits is written together, one entry at a time, by one PUT under a name of its own: nobody is asked, and no replica
waits for another. A transaction that expects something is settled instead (sharing.py), as is what it came with.
"""

import asyncio
from collections import deque
from typing import Final

from ostraka.errors import OstrakaError, Overloaded
from ostraka.host import Host
from ostraka.limits import Limits
from ostraka.metadatadb.applying import Outcome
from ostraka.metadatadb.metrics import Counters
from ostraka.metadatadb.operations import Transaction
from ostraka.metadatadb.scope import SharedScope, Waiting
from ostraka.metadatadb.sharing import Sharing

BLIND_SECONDS_MAX: Final = 120.0
"""Who has not synced for longer does so before writing: its entry comes after what it could have seen, and so many
writers cannot have come meanwhile that it is forgotten (stamps.py)."""


class JournalScope(SharedScope):
    """One namespace."""

    def __init__(self, name: str, sharing: Sharing, host: Host, limits: Limits, counters: Counters) -> None:
        super().__init__(name, sharing, host, limits, counters)
        self._queue: deque[Waiting] = deque()
        self._writing: list[Waiting] = []
        self._ops = 0  # that wait or are being written
        self._bytes = 0
        self._work = asyncio.Event()
        self._room = asyncio.Condition()
        self._writer: asyncio.Task[None] | None = None
        self._settled_at = 0  # how many entries were loose when we were in a hurry last, or settled

    async def open(self, interval: float, seconds: float) -> None:
        await super().open(interval, seconds)
        self._writer = self._loop.create_task(self._write(), name=f"metadatadb {self.name} journal")

    def apply_now(self, transaction: Transaction) -> None:
        return None

    async def apply(self, transaction: Transaction) -> bool:
        waiting = self.expect(transaction)
        if not self._fits(waiting):
            await self._wait_for_room(waiting)
        self._ops += len(transaction.ops)
        self._bytes += waiting.size
        self._queue.append(waiting)
        self._work.set()
        return await waiting.done

    def _fits(self, waiting: Waiting) -> bool:
        return (
            self._ops + len(waiting.transaction.ops) <= self.limits.metadatadb_pending_ops_max
            and self._bytes + waiting.size <= self.limits.metadatadb_pending_bytes_max
        )

    async def _wait_for_room(self, waiting: Waiting) -> None:
        try:
            async with asyncio.timeout(self.limits.metadatadb_pending_seconds_max), self._room:
                await self._room.wait_for(lambda: self.closed or self._fits(waiting))
        except TimeoutError:
            raise Overloaded(
                f"{self._ops} operations wait to become durable, and none did in time", reason="pending"
            ) from None
        self.check_open()

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._queue:
                group = self._writing = self._group()
                await self._make_durable(group)
                self._writing = []
                self._ops -= sum(len(w.transaction.ops) for w in group)
                self._bytes -= sum(w.size for w in group)
                async with self._room:
                    self._room.notify_all()

    def _group(self) -> list[Waiting]:
        """What waits, up to where it becomes too much or of the other way."""
        group = [self._queue.popleft()]
        ops, size = len(group[0].transaction.ops), group[0].size
        while self._queue and self._queue[0].asks == group[0].asks:
            ops += len(self._queue[0].transaction.ops)
            size += self._queue[0].size
            if ops > self.limits.metadatadb_group_ops_max or size > self.limits.metadatadb_group_bytes_max:
                break
            group.append(self._queue.popleft())
        return group

    async def _make_durable(self, group: list[Waiting]) -> None:
        began = self.host.clock.monotonic()
        try:
            if began - self.sharing.synced_at > BLIND_SECONDS_MAX:
                await self.catch_up(self.sharing.begun)
            entry = self.sharing.entry(w.transaction for w in group)
            way = self.sharing.commit if group[0].asks else self.sharing.journal
            outcomes = await way(entry, self.limits.metadatadb_commit_seconds_max)
        except BaseException as e:
            self.sharing.rename()
            for waiting in group:
                waiting.fail(e)
            if self.closed:  # who waits for the end does not wait for each of them to fail
                while self._queue:
                    self._drop(self._queue.popleft(), e)
            if not isinstance(e, Exception):
                raise
            return
        self.count_group(began)
        self.publish()
        self._settle_in_time()
        for number, waiting in enumerate(group):
            # settled by another replica before we heard that it is durable: nobody told us more
            self.answer(waiting, outcomes[number] if outcomes else Outcome.DONE)

    def _settle_in_time(self) -> None:
        """Who writes more than a tick should bring settles between ticks: others fetch each entry that is loose."""
        loose = len(self.copy.loose)
        if loose < self._settled_at:
            self._settled_at = loose
        if loose - self._settled_at >= self.limits.metadatadb_entries_unsettled_max:
            self._settled_at = loose
            self.hurry()

    def _drop(self, waiting: Waiting, error: BaseException) -> None:
        waiting.fail(error)
        self._ops -= len(waiting.transaction.ops)
        self._bytes -= waiting.size

    async def exchange(self) -> None:
        await self.sharing.sync()

    async def flush(self) -> None:
        before = [asyncio.shield(w.done) for w in [*self._writing, *self._queue]]
        await asyncio.gather(*before, return_exceptions=True)  # who applied them hears of it
        await self.catch_up(self.sharing.begun)

    def waiting(self) -> int:
        return self._ops

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        async with self._room:
            self._room.notify_all()
        while self._ops:  # each is written or fails within its time
            async with self._room:
                await self._room.wait_for(lambda: not self._ops)
        await self.stop()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        self.end_watching()
        try:
            await self.sharing.compact(all=True)
            await self.sharing.sweep(all=True)
        except OstrakaError:  # tidiness: others will
            pass
