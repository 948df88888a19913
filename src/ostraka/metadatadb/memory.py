"""A namespace in this process's memory and nowhere else: for tests, and for what need not outlive the process."""

from ostraka.errors import Unavailable
from ostraka.host import Host
from ostraka.limits import Limits
from ostraka.metadatadb.applying import Outcome
from ostraka.metadatadb.metrics import Counters
from ostraka.metadatadb.operations import Transaction
from ostraka.metadatadb.scope import Scope, Status


class MemoryScope(Scope):
    """One namespace."""

    def __init__(self, name: str, host: Host, limits: Limits, counters: Counters) -> None:
        super().__init__(name, host, limits, counters)
        self._closed = False

    def apply_now(self, transaction: Transaction) -> bool:
        if self._closed:
            raise Unavailable(f"namespace {self.name!r} was closed", reason="closed")
        with self.copy.mutex:
            self.check_bounds(transaction)
            outcome = self.copy.take(transaction)
            if outcome is Outcome.REFUSED:
                raise self.misuse(transaction)
            done = outcome is Outcome.DONE
            if done:
                self.counters.count("operations", len(transaction.ops))
        self.publish_soon()
        return done

    async def apply(self, transaction: Transaction) -> bool:
        return self.apply_now(transaction)

    async def flush(self) -> None:
        self.publish()

    async def refresh(self, max_staleness: float) -> None:
        self.publish()

    def status(self) -> Status:
        return Status(staleness=0.0, size=self.copy.view.size)

    async def close(self) -> None:
        self._closed = True
        self.end_watching()
