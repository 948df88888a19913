"""One namespace in a replica, whatever keeps it: what can be asked and told of it (`Scope`), and what both disciplines
over a byte store have in common (`SharedScope`).
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import TypeVar

from ostraka.errors import Conflict, Corrupt, Full, Invalid, OstrakaError, Refused, TooLarge, Unavailable
from ostraka.host import Host
from ostraka.limits import Limits
from ostraka.metadatadb.applying import Outcome, misused
from ostraka.metadatadb.copy import Copy
from ostraka.metadatadb.metrics import Counters
from ostraka.metadatadb.operations import Transaction
from ostraka.metadatadb.queries import Question
from ostraka.metadatadb.sharing import Sharing
from ostraka.metadatadb.watching import Touch, Watchers, changes

log = logging.getLogger("ostraka.metadatadb")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a namespace stands in this replica."""

    staleness: float  # seconds since the sync began that queries see; 0.0 where there is nothing to sync with
    pending: int = 0  # operations of ours that are not durable yet
    journal: int = 0  # durable entries that are not settled yet
    stuck: int = 0  # of them that wait for one before them that nobody has seen
    sequence: int = 0  # entries that are settled
    size: int = 0  # bytes of JSON, about
    error: OstrakaError | None = None  # why the last sync failed


class Scope(ABC):
    """One namespace. `apply_now`, `query` and `now` may be called from any thread; the rest belongs to its loop."""

    def __init__(self, name: str, host: Host, limits: Limits, counters: Counters) -> None:
        self.name = name
        self.host = host
        self.limits = limits
        self.counters = counters
        self.copy = Copy()
        self._watchers = Watchers(limits.metadatadb_watched_keys_max)
        self._loop = asyncio.get_running_loop()
        self._told_at = self.now()  # when watchers were last told what had expired

    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self.host.clock.time() * 1000)

    def query(self, query: Question[T]) -> T:
        """The answer as this replica sees it. Invalid (reason "kind") if the name has another kind."""
        return self.copy.query(query, self.now())

    @abstractmethod
    def apply_now(self, transaction: Transaction) -> bool | None:
        """As ``apply``, if nobody has to wait for that; None: ``apply`` must be awaited."""

    @abstractmethod
    async def apply(self, transaction: Transaction) -> bool:
        """Let it take effect, as durably as this discipline says; False if it expected something that is not so.

        Invalid (reason "kind") if it uses a name as another kind than it is, Conflict (reason "kind") if another
        replica was faster to do so; TooLarge, Full; Overloaded if too much waits already; Unavailable: it may have
        happened, or happen yet.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Return when all that was applied here is durable, and all that was durable when this began is seen here."""

    @abstractmethod
    async def refresh(self, max_staleness: float) -> None:
        """Return when queries see all that was durable so many seconds ago."""

    @abstractmethod
    def status(self) -> Status: ...

    @abstractmethod
    async def close(self) -> None:
        """Flush, and end. Raises if something could not be made durable, after having ended."""

    def watch(self, names: Collection[str]) -> AsyncIterator[Touch]:
        """What changes from now on: here at once, elsewhere with the sync that sees it."""
        if not self._watchers:
            self.copy.take_touched()
        return changes(self._watchers, self._watchers.add(names))

    def publish(self) -> None:
        """Tell watchers what has changed."""
        if not self._watchers:
            self.copy.touched = None
            return
        now = self.now()
        self.copy.touch_expired(self._told_at, now)
        self._told_at = now
        self._watchers.tell(self.copy.take_touched())

    def publish_soon(self) -> None:
        """The same, from any thread."""
        if self._watchers:
            self._loop.call_soon_threadsafe(self.publish)

    def end_watching(self) -> None:
        self._watchers.end(Unavailable(f"namespace {self.name!r} was closed", reason="closed"))

    def check(self, transaction: Transaction) -> None:
        """What can be said against a transaction before anybody else is asked. The copy's mutex is held."""
        self.check_bounds(transaction)
        if misused(self.copy.view, transaction) is not None:
            raise self.misuse(transaction)

    def misuse(self, transaction: Transaction) -> Invalid:
        """The error for one that uses a name as another kind than it is."""
        name, kind = misused(self.copy.view, transaction) or ("", "")
        return Invalid(f"{name!r} is of kind {kind}: a name has one kind, until it is dropped", reason="kind")

    def check_bounds(self, transaction: Transaction) -> None:
        """Raises TooLarge or Full for what does not fit. The copy's mutex is held."""
        if len(transaction.ops) > self.limits.metadatadb_transaction_ops_max:
            raise TooLarge(
                f"{len(transaction.ops)} operations at once: at most {self.limits.metadatadb_transaction_ops_max}",
                reason="batch",
            )
        if len(transaction.ops) > 1 and transaction.size > self.limits.metadatadb_group_bytes_max:
            raise TooLarge(
                f"operations of {transaction.size} bytes at once: at most {self.limits.metadatadb_group_bytes_max}",
                reason="batch",
            )
        if self.copy.view.size > self.limits.metadatadb_state_bytes_max:
            self._refuse_growth(transaction)

    def _refuse_growth(self, transaction: Transaction) -> None:
        if any(hasattr(op, "value") or hasattr(op, "delta") for op in transaction.ops):
            raise Full(
                f"namespace {self.name!r} holds {self.copy.view.size} bytes: at most "
                f"{self.limits.metadatadb_state_bytes_max} are kept in every replica's memory; delete, or use another",
                reason="namespace",
            )


@dataclass(slots=True)
class Waiting:
    """A transaction on its way to become durable, and who waits for it."""

    transaction: Transaction
    done: asyncio.Future[bool]
    asks: bool
    size: int

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            ours = isinstance(error, OstrakaError)
            self.done.set_exception(error if ours else Unavailable(f"the write ended: {error!r}", reason="closed"))


class SharedScope(Scope):
    """A namespace over a byte store: synced on an interval."""

    def __init__(self, name: str, sharing: Sharing, host: Host, limits: Limits, counters: Counters) -> None:
        super().__init__(name, host, limits, counters)
        self.sharing = sharing
        self.copy = sharing.copy
        self.closed = False
        self.error: OstrakaError | None = None
        self._syncing = asyncio.Lock()
        self._ticker: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()  # the next tick is due

    async def open(self, interval: float, seconds: float) -> None:
        """See what is there, and begin to sync. Raises what the first sync does."""
        patience = self.sharing.patience(seconds)
        while True:
            try:
                await self.sharing.sync()
                break
            except Unavailable as e:
                await patience.pause(e)
        self._ticker = self._loop.create_task(self._tick(interval), name=f"metadatadb {self.name}")

    async def refresh(self, max_staleness: float) -> None:
        if self.host.clock.monotonic() - self.sharing.synced_at > max_staleness or max_staleness <= 0:
            await self.catch_up(self.sharing.begun)

    async def catch_up(self, before: int) -> None:
        """Sync, unless one has succeeded that began after so many others: who waits together syncs together."""
        async with self._syncing:
            if self.sharing.synced <= before:
                await self.step()

    async def step(self) -> None:
        """One sync. ``_syncing`` is held."""
        try:
            await self.exchange()
        except OstrakaError as e:
            self._note(e)
            raise
        self._note(None)
        self.publish()

    @abstractmethod
    async def exchange(self) -> None:
        """See what others did, and let them see what we did."""

    def hurry(self) -> None:
        """Tick now, and settle all that is loose."""
        self._hurry.set()

    async def _tend(self, *, hurried: bool) -> None:
        """What else is done on each tick: settle what is long, and tidy up."""
        await self.sharing.compact(all=hurried)
        await self.sharing.sweep()

    async def _tick(self, interval: float) -> None:
        while True:
            hurried = await self._wait_for_tick(interval)
            try:
                async with self._syncing:
                    await self.step()
                    await self._tend(hurried=hurried)
            except OstrakaError as e:
                self._note(e)
            except Exception:
                log.exception("%s: a sync failed", self.sharing.objects.head_path)

    async def _wait_for_tick(self, interval: float) -> bool:
        """Until it is time; whether somebody was in a hurry."""
        try:
            async with asyncio.timeout(self.sharing.jitter(interval)):
                await self._hurry.wait()
        except TimeoutError:
            return False
        self._hurry.clear()
        return True

    def _note(self, error: OstrakaError | None) -> None:
        if error is not None and (self.error is None or self.error.message != error.message):
            log.warning("%s", error)
        self.error = error

    def check_open(self) -> None:
        """Raises if nothing may be written: closed, or what is shared is known to be damaged."""
        if self.closed:
            raise Unavailable(f"namespace {self.name!r} was closed", reason="closed")
        if isinstance(self.error, Corrupt | Refused):
            raise self.error

    def status(self) -> Status:
        with self.copy.mutex:
            size = self.copy.view.size
        return Status(
            staleness=self.host.clock.monotonic() - self.sharing.synced_at,
            pending=self.waiting(),
            journal=len(self.copy.loose),
            stuck=self.copy.stuck(),
            sequence=self.copy.sequence,
            size=size,
            error=self.error,
        )

    @abstractmethod
    def waiting(self) -> int:
        """Operations that are not durable yet."""

    def expect(self, transaction: Transaction) -> Waiting:
        """A place in the queue, after all that can be said against it at once."""
        self.check_open()
        with self.copy.mutex:
            self.check(transaction)
        return Waiting(transaction, self._loop.create_future(), transaction.asks, transaction.size)

    def answer(self, waiting: Waiting, outcome: Outcome) -> None:
        """Tell who waits what became of it."""
        if outcome is Outcome.DONE:
            self.counters.count("operations", len(waiting.transaction.ops))
        if outcome is Outcome.REFUSED:
            self.counters.count("refused")
            error = Conflict(
                "another replica used a name as another kind at the same time, and was first", reason="kind"
            )
            waiting.fail(error)
        elif not waiting.done.done():
            waiting.done.set_result(outcome is Outcome.DONE)

    def count_group(self, began: float) -> None:
        """A group became durable."""
        self.counters.count("groups")
        self.counters.observe("commit", self.host.clock.monotonic() - began)

    async def stop(self) -> None:
        """No more ticks."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
            self._ticker = None
