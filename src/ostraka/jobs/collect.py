"""The collector, in pieces: what nothing names any more is given up, and what holds no reference is deleted.

The rules (pins, grace, the re-check inside the commit) are those of objects/collector.py and chunks/sweeping.py; here
is only the rhythm. What waits for its grace or for a reader is asked for again from time to time; when the queues are
empty there is nothing to ask for until something changes.
"""

from itertools import chain, islice
from typing import Any, Final

import msgspec

from ostraka.chunks.rows import ZERO
from ostraka.errors import OstrakaError
from ostraka.jobs.foresight import foresee
from ostraka.jobs.ground import Budget, Ground, Job, Progress, Tell, in_thread
from ostraka.objects.rows import DEAD, REPLAY
from ostraka.state.tables import rows_under

_COUNTED_MAX: Final = 5000


class Collect(Job):
    name = "collect"
    purpose = "frees what nothing refers to any more"
    paused_means = "what is deleted or overwritten keeps its room"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._collector = ground.objects.collector(lambda incarnation: incarnation in ground.live_incarnations())
        self._done = 0

    async def run_once(self, budget: Budget) -> Progress:
        limits, before = self._ground.limits, self._done
        try:
            while budget.left:
                settled = await self._collector.collect(limits.collect_batch_rows_max)
                if not settled:
                    return Progress(self._done, again_in=self._waiting(), did=self._done - before)
                budget.rows -= settled
                self._done += settled
        except OstrakaError as error:
            if not error.retry:
                raise
            again_in = limits.collect_grace_seconds
            return Progress(self._done, again_in=again_in, note=error.message, did=self._done - before)
        return Progress(self._done, self._total(), more=True, did=self._done - before)

    def _total(self) -> int | None:
        """Rows that are done and that are queued; None: too many to be counted now and then."""
        state = self._ground.state
        queued = sum(1 for _ in islice(chain(rows_under(state, DEAD), rows_under(state, ZERO)), _COUNTED_MAX))
        return self._done + queued if queued < _COUNTED_MAX else None

    async def preview(self, tell: Tell) -> dict[str, Any]:
        found = await in_thread(foresee, self._ground.state, self._ground.limits.compact_live_ratio)
        return {"would": found.lines(), "freed_bytes": found.freed, **msgspec.to_builtins(found)}

    def details(self) -> dict[str, Any]:
        limits = self._ground.limits
        return {
            **super().details(),
            "batch_rows": limits.collect_batch_rows_max,
            "grace_seconds": limits.collect_grace_seconds,
            "incarnations_alive": len(self._ground.live_incarnations()),
        }

    def _waiting(self) -> float | None:
        """When to look again although nothing changed."""
        limits, state = self._ground.limits, self._ground.state
        if state.first(ZERO) is not None or state.first(DEAD) is not None:
            return limits.collect_grace_seconds / 4
        return limits.replay_seconds if state.first(REPLAY) is not None else None
