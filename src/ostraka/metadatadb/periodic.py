"""The periodic discipline: an operation takes effect here at once, and is *not durable yet*. It becomes so, and others
see it, with the next sync: on an interval, by ``flush``, or by ``close``. A crash before that loses it.

A sync sees what others did, and then settles what waits, in as few entries as its size allows, one PUT each
(sharing.py). If that fails, what was tried stays frozen as it is and is tried again with the next sync, so that it
takes effect once however often an answer was lost. A transaction that expects something goes the same way, at once, and
takes effect here only when it is settled.
"""

import asyncio

from ostraka.errors import Conflict, OstrakaError, Overloaded, Unavailable
from ostraka.host import Host
from ostraka.limits import Limits
from ostraka.metadatadb.applying import Outcome
from ostraka.metadatadb.format import Entry
from ostraka.metadatadb.metrics import Counters
from ostraka.metadatadb.operations import Transaction
from ostraka.metadatadb.scope import SharedScope, Waiting
from ostraka.metadatadb.sharing import Sharing


class PeriodicScope(SharedScope):
    """One namespace."""

    def __init__(self, name: str, sharing: Sharing, host: Host, limits: Limits, counters: Counters) -> None:
        super().__init__(name, sharing, host, limits, counters)
        self._frozen: Entry | None = None  # what is being settled
        self._ops = 0  # that are not durable: pending, or frozen
        self._bytes = 0
        self._refused = 0  # transactions that nobody has been told of
        self._asked: list[Waiting] = []

    def apply_now(self, transaction: Transaction) -> bool | None:
        self.check_open()
        if transaction.asks:
            return None
        ops, size = len(transaction.ops), transaction.size
        with self.copy.mutex:
            self.check_bounds(transaction)
            if (
                self._ops + ops > self.limits.metadatadb_pending_ops_max
                or self._bytes + size > self.limits.metadatadb_pending_bytes_max
            ):
                return None
            if self.copy.pend(transaction) is Outcome.REFUSED:
                raise self.misuse(transaction)
            self._ops += ops
            self._bytes += size
            self.counters.count("operations", ops)
        self.publish_soon()
        return True

    async def apply(self, transaction: Transaction) -> bool:
        if transaction.asks:
            return await self._ask(transaction)
        if self.apply_now(transaction) is None:
            await self._wait_for_room(transaction)
        return True

    async def _wait_for_room(self, transaction: Transaction) -> None:
        """Sync until it fits."""
        try:
            async with asyncio.timeout(self.limits.metadatadb_pending_seconds_max):
                while self.apply_now(transaction) is None:
                    await self.flush()
        except TimeoutError:
            raise Overloaded(
                f"{self._ops} operations wait to become durable, and none did in time", reason="pending"
            ) from None

    async def _ask(self, transaction: Transaction) -> bool:
        waiting = self.expect(transaction)
        self._asked.append(waiting)
        async with self._syncing:
            if not waiting.done.done():  # by one who asked at the same time
                await self._settle_asked()
        return await waiting.done

    async def _settle_asked(self) -> None:
        """Settle what waits, and then what was asked, all of it together."""
        asked, self._asked = self._asked, []
        try:
            await self.step()
            try:
                entry = self.sharing.entry(w.transaction for w in asked)
                outcomes = await self._commit(entry)
            except BaseException:
                self.sharing.rename()
                raise
        except BaseException as e:
            for waiting in asked:
                waiting.fail(e)
            if not isinstance(e, Exception):
                raise
            return
        self.publish()
        for waiting, outcome in zip(asked, outcomes, strict=True):
            self.answer(waiting, outcome)

    async def _commit(self, entry: Entry) -> list[Outcome]:
        began = self.host.clock.monotonic()
        outcomes = await self.sharing.commit(entry, self.limits.metadatadb_commit_seconds_max)
        self.count_group(began)
        return outcomes

    async def exchange(self) -> None:
        await self.sharing.sync()
        left = len(self.copy.pending)
        await self._settle_frozen()
        while left > 0:
            group = self._group()
            left -= len(group)
            self._frozen = self.sharing.entry(group)
            self.copy.freeze(self._frozen)
            await self._settle_frozen()

    def _group(self) -> list[Transaction]:
        """The first of what is pending, as much as one entry may hold."""
        ops = size = 0
        group: list[Transaction] = []
        for transaction in self.copy.pending:
            ops += len(transaction.ops)
            size += transaction.size
            if group and (ops > self.limits.metadatadb_group_ops_max or size > self.limits.metadatadb_group_bytes_max):
                break
            group.append(transaction)
        return group

    async def _settle_frozen(self) -> None:
        entry = self._frozen
        if entry is None:
            return
        if self.copy.frozen is entry:
            outcomes = await self._commit(entry)
            self._refused += outcomes.count(Outcome.REFUSED)
            self.counters.count("refused", outcomes.count(Outcome.REFUSED))
        else:
            self.sharing.wrote(entry)  # the sync found that it had been settled when we thought that it failed
        self._frozen = None
        with self.copy.mutex:
            self._ops -= sum(len(transaction.ops) for transaction in entry.transactions)
            self._bytes -= sum(transaction.size for transaction in entry.transactions)

    async def flush(self) -> None:
        before = self.sharing.begun
        async with self._syncing:
            if self._ops or self.sharing.synced <= before:
                await self.step()
        self._tell_refused()

    def _tell_refused(self) -> None:
        refused, self._refused = self._refused, 0
        if refused:
            raise Conflict(
                f"{refused} transactions of namespace {self.name!r} had no effect: another replica used a name as "
                "another kind at the same time, and was first",
                reason="kind",
            )

    def waiting(self) -> int:
        return self._ops

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        await self.stop()
        patience = self.sharing.patience(self.limits.metadatadb_commit_seconds_max)
        try:
            while self._ops:
                try:
                    async with self._syncing:
                        await self.step()
                except Unavailable as e:
                    await patience.pause(e)
        except OstrakaError as e:
            raise Unavailable(
                f"namespace {self.name!r} was closed, and {self._ops} operations may not be durable: {e}", reason="lost"
            ) from e
        finally:
            self.end_watching()
        self._tell_refused()
