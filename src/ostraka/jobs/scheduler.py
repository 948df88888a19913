"""Background work of a store: which job runs when, and how much of the machine it may take (law 13).

One task runs one job at a time, a short piece each. What makes it run is change: the state's sequence moved, the
membership changed, somebody called `wake`, or a job said when it has to look again. Between two looks it sleeps, twice
as long each time that nothing had happened, up to ``limits.jobs_idle_seconds_max``; a look at an idle store reads two
words of memory. So an idle server is idle.

While requests come in, jobs take at most ``limits.jobs_busy_share`` of the time, by sleeping after each piece in
proportion to what it took. "Requests come in" means: the state's sequence moved by other commits than the jobs' own.
"""

import asyncio
import contextlib
import logging

import msgspec

from ostraka.errors import OstrakaError
from ostraka.jobs.checkpoint import Checkpoint
from ostraka.jobs.collect import Collect
from ostraka.jobs.compact import Compact
from ostraka.jobs.damage import DamageJournal
from ostraka.jobs.ground import Budget, Ground, Job, Progress
from ostraka.jobs.heal import Heal
from ostraka.jobs.rebalance import Rebalance
from ostraka.jobs.report import JobReport, running
from ostraka.jobs.scrub import Scrub
from ostraka.jobs.tier import Tier
from ostraka.nodes.superblock import Epoch

log = logging.getLogger("ostraka.jobs")

_LOOK_SECONDS_MIN = 1.0
_FAILED_SECONDS = 60.0


class _Turn(msgspec.Struct):
    """A job and when it is due."""

    job: Job
    seen: tuple[int, int] | None = None  # (sequence, epoch) when it last found nothing more to do
    at: float | None = None  # monotonic; None: when something changes
    progress: Progress = Progress()
    failures: int = 0


class Scheduler:
    """Runs the jobs of one store, in one process. `start`, `stop`, `wake`; `pause` and `resume` for all of them."""

    def __init__(self, ground: Ground, jobs: list[Job] | None = None) -> None:
        self._ground = ground
        if jobs is None:
            journal = DamageJournal(ground.state)
            jobs = [
                Collect(ground),
                Checkpoint(ground),
                Heal(ground),
                Rebalance(ground),
                Compact(ground, journal.owner),
                Scrub(ground),
                Tier(ground),
            ]
        self._turns = [_Turn(job) for job in jobs]
        self._woken = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.looks = 0  # how often the scheduler looked whether there is something to do
        self.pieces = 0  # how many pieces of work it had done

    # -- for who owns it

    async def start(self) -> None:
        """Begin; every job looks once."""
        assert self._task is None, "a scheduler is started once"
        self._loop = asyncio.get_running_loop()
        self._ground.membership.on_change.append(self._epoch_changed)
        self._task = self._loop.create_task(self._run(), name="jobs")

    async def stop(self) -> None:
        """End after the step under way, which either is finished or had not begun. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        with contextlib.suppress(ValueError):
            self._ground.membership.on_change.remove(self._epoch_changed)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def wake(self) -> None:
        """Look now, whether anything changed or not. On the loop thread."""
        for turn in self._turns:
            turn.seen = None
        self._woken.set()

    def pause(self) -> None:
        """Begin no further piece until `resume`."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def report(self) -> list[JobReport]:
        """What each job is doing."""
        now = self._ground.host.clock.monotonic()
        return [
            running(
                turn.job.name,
                turn.progress,
                failed=turn.failures > 0,
                due_in=None if turn.at is None else turn.at - now,
            )
            for turn in self._turns
        ]

    def progress(self) -> dict[str, Progress]:
        """What each job came to last, by its name."""
        return {turn.job.name: turn.progress for turn in self._turns}

    # -- the loop

    def _epoch_changed(self, epoch: Epoch) -> None:
        """Any thread may change the epoch."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._woken.set)

    def _moment(self) -> tuple[int, int]:
        membership = self._ground.membership
        membership.disk(-1)  # takes over what another process changed
        return self._ground.state.sequence, membership.epoch.number

    async def _run(self) -> None:
        pause = _LOOK_SECONDS_MIN
        before: tuple[int, int] | None = None
        while True:
            await self._running.wait()
            self.looks += 1
            try:
                moment = self._moment()
            except OstrakaError as error:
                log.warning("no background work now: %s", error.message)
                await self._sleep(self._ground.limits.jobs_idle_seconds_max)
                continue
            if self._ground.membership.read_only:  # nothing can be changed: until the membership is
                await self._sleep(self._ground.limits.jobs_idle_seconds_max)
                continue
            worked = await self._look(moment, busy=before is not None and moment[0] != before[0])
            with contextlib.suppress(OstrakaError):
                before = self._moment()
            if worked:
                pause = _LOOK_SECONDS_MIN
                await self._sleep(0 if any(turn.progress.more for turn in self._turns) else pause)
                continue
            await self._sleep(self._until_due(pause))
            pause = min(2 * pause, self._ground.limits.jobs_idle_seconds_max)

    async def _look(self, moment: tuple[int, int], *, busy: bool) -> bool:
        """Give each job that is due one piece; whether any was."""
        worked = False
        for turn in self._turns:
            now = self._ground.host.clock.monotonic()
            if turn.failures and turn.at is not None and now < turn.at:
                continue
            if turn.seen == moment and not turn.progress.more and (turn.at is None or now < turn.at):
                continue
            await self._running.wait()
            worked = True
            await self._piece(turn, moment, busy=busy)
        return worked

    async def _piece(self, turn: _Turn, moment: tuple[int, int], *, busy: bool) -> None:
        limits, clock = self._ground.limits, self._ground.host.clock
        began = clock.monotonic()
        self.pieces += 1
        try:
            turn.progress = await turn.job.run_once(Budget(clock, limits.jobs_piece_seconds, limits.jobs_piece_rows))
            turn.failures = 0
            turn.at = None if turn.progress.again_in is None else clock.monotonic() + turn.progress.again_in
        except (OstrakaError, OSError) as error:
            log.warning("job %s: %s", turn.job.name, error)
            self._failed(turn, error)
        except Exception as error:  # a mistake of ours in one job must not end all of them
            log.exception("job %s", turn.job.name)
            self._failed(turn, error)
        turn.seen = moment
        if busy:
            took = clock.monotonic() - began
            await asyncio.sleep(took * (1 / limits.jobs_busy_share - 1))

    def _failed(self, turn: _Turn, error: Exception) -> None:
        turn.failures += 1
        turn.progress = msgspec.structs.replace(turn.progress, more=False, note=str(error))
        turn.at = self._ground.host.clock.monotonic() + _FAILED_SECONDS

    def _until_due(self, pause: float) -> float:
        now = self._ground.host.clock.monotonic()
        due = [turn.at - now for turn in self._turns if turn.at is not None]
        return max(_LOOK_SECONDS_MIN, min([pause, *due]))

    async def _sleep(self, seconds: float) -> None:
        """Until then, or until somebody wakes us."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()
