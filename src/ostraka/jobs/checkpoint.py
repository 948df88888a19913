"""The state's checkpoint: when its log has outgrown its bound, a snapshot takes the log's place."""

import logging

from ostraka.errors import Corrupt, Full, InUse, Unavailable
from ostraka.jobs.ground import Budget, Ground, Job, Progress, finish

log = logging.getLogger("ostraka.jobs")

_RETRY_SECONDS = 60.0


class Checkpoint(Job):
    name = "checkpoint"
    purpose = "puts a snapshot in the place of the state's log"
    paused_means = "the state's log grows on every disk that carries it"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._done = 0

    async def run_once(self, budget: Budget) -> Progress:
        state = self._ground.state
        if not state.checkpoint_due:
            return Progress(self._done)
        try:
            await finish(state.checkpoint())
        except InUse:  # somebody makes one, or a copy is being seeded
            return Progress(self._done, again_in=_RETRY_SECONDS)
        except Corrupt as error:
            log.error("the index of the state is damaged and is built anew: %s", error.message)
            await finish(state.rebuild_index())
            return Progress(self._done, more=True)
        except (Full, Unavailable) as error:
            log.warning("no checkpoint now: %s", error.message)
            return Progress(self._done, again_in=_RETRY_SECONDS, note=error.message)
        self._done += 1
        return Progress(self._done, did=1, bytes=state.meta().snapshot_size)
