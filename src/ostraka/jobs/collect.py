"""The collector, in pieces: what nothing names any more is given up, and what holds no reference is deleted.

The rules (pins, grace, the re-check inside the commit) are those of objects/collector.py and chunks/sweeping.py; here
is only the rhythm. What waits for its grace or for a reader is asked for again from time to time; when the queues are
empty there is nothing to ask for until something changes.
"""

from ostraka.chunks.rows import ZERO
from ostraka.errors import OstrakaError
from ostraka.jobs.ground import Budget, Ground, Progress
from ostraka.objects.rows import DEAD, REPLAY


class Collect:
    name = "collect"

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._collector = ground.objects.collector(lambda incarnation: incarnation in ground.live_incarnations())
        self._done = 0

    async def run_once(self, budget: Budget) -> Progress:
        limits = self._ground.limits
        try:
            while budget.left:
                settled = await self._collector.collect(limits.collect_batch_rows_max)
                if not settled:
                    return Progress(self._done, again_in=self._waiting())
                budget.rows -= settled
                self._done += settled
        except OstrakaError as error:
            if not error.retry:
                raise
            return Progress(self._done, again_in=limits.collect_grace_seconds, note=error.message)
        return Progress(self._done, more=True)

    def _waiting(self) -> float | None:
        """When to look again although nothing changed."""
        limits, state = self._ground.limits, self._ground.state
        if state.first(ZERO) is not None or state.first(DEAD) is not None:
            return limits.collect_grace_seconds / 4
        return limits.replay_seconds if state.first(REPLAY) is not None else None
