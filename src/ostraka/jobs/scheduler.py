"""Background work of a store: which job runs when, and how much of the machine it may take (law 13).

One task runs one job at a time, a short piece each. What makes it run is change: the state's sequence moved, the
membership changed, somebody called `wake`, or a job said when it has to look again. Between two looks it sleeps, twice
as long each time that nothing had happened, up to ``limits.jobs_idle_seconds_max``; a look at an idle store reads two
words of memory. So an idle server is idle.

While requests come in, jobs take at most ``limits.jobs_busy_share`` of the time (more when disks are nearly full), by
sleeping after each piece in proportion to what it took. "Requests come in" means: some were answered, or the state's
sequence moved by other commits than the jobs' own.

A job that is paused (standing.py) begins no further piece. What a job does between two rests is a run, and is put on
record; runs that follow each other closely are told as one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

import msgspec

from ostraka.errors import Absent, OstrakaError, Refused, Unavailable
from ostraka.jobs import standing
from ostraka.jobs.catalogue import JOBS, NAMES
from ostraka.jobs.ground import Budget, Ground, Job, Progress, finish
from ostraka.jobs.records import Run
from ostraka.jobs.report import JobReport, running
from ostraka.nodes.superblock import Epoch

log = logging.getLogger("ostraka.jobs")

_LOOK_SECONDS_MIN = 1.0
_FAILED_SECONDS = 60.0
_RECORD_SECONDS = 60.0  # runs are put on record this seldom, and those that are closer together are one

OnPiece = Callable[[Progress], None]


class _UnderWay(msgspec.Struct):
    """The run that a job is in."""

    began: float  # by the wall clock
    at: float  # monotonic
    first: int  # units that were done before
    did: int = 0
    bytes: int = 0
    errors: int = 0
    pieces: int = 0


class _Turn(msgspec.Struct):
    """A job and when it is due."""

    job: Job
    seen: tuple[int, int] | None = None  # (sequence, epoch) when it last found nothing more to do
    at: float | None = None  # monotonic; None: when something changes
    progress: Progress = Progress()
    failures: int = 0
    paused: bool = False
    run: _UnderWay | None = None
    unsaved: Run | None = None  # the last run, until it is on record
    saved_at: float = -_RECORD_SECONDS
    waiting: list[tuple[OnPiece, asyncio.Future[Run]]] = []  # who asked for a run

    @property
    def due_at_once(self) -> bool:
        return self.progress.more and not self.paused


class Scheduler:
    """Runs the jobs of one store, in one process. `start`, `stop`, `wake`; what an operator says to single jobs."""

    def __init__(self, ground: Ground, jobs: list[Job] | None = None) -> None:
        self._ground = ground
        self._turns = [_Turn(job) for job in (jobs if jobs is not None else [job(ground) for job in JOBS])]
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left_at: tuple[int, int] | None = None  # where the state was when we had done our work
        self.looks = 0  # how often the scheduler looked whether there is something to do
        self.pieces = 0  # how many pieces of work it had done

    # -- for who owns it

    async def start(self) -> None:
        """Begin; every job looks once, but those that are paused."""
        assert self._task is None, "a scheduler is started once"
        self._loop = asyncio.get_running_loop()
        for turn in self._turns:
            self._set_paused(turn, bool(standing.standing(self._ground.state, turn.job.name).paused_since))
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
        for turn in self._turns:
            self._end_run(turn, "stopped")
            turn.job.close()
        await self._save_runs(at_once=True)

    def wake(self) -> None:
        """Look now, whether anything changed or not. On the loop thread."""
        for turn in self._turns:
            turn.seen = None
        self._woken.set()

    # -- what an operator says to jobs

    def job(self, name: str) -> Job:
        """The job of that name. Raises Absent."""
        return self._turn(name).job

    async def pause(self, names: Iterable[str], by: str) -> None:
        """These jobs begin no further piece until `resume`, whoever runs them. Idempotent."""
        now = self._ground.host.clock.time()
        for turn in self._named(names):
            await standing.pause(self._ground.state, turn.job.name, by, now)
            self._set_paused(turn, True)

    async def resume(self, names: Iterable[str]) -> None:
        for turn in self._named(names):
            await standing.resume(self._ground.state, turn.job.name)
            self._set_paused(turn, False)
            turn.seen = None
        self._woken.set()

    async def run(self, name: str, on_piece: OnPiece) -> Run:
        """Have a job do now all that it can do; what it came to. ``on_piece`` hears of each piece.

        Raises Refused while the job is paused, Unavailable while the store is read-only or when the jobs are ended.
        """
        turn = self._turn(name)
        if turn.paused:
            row = standing.standing(self._ground.state, name)
            raise Refused(f"{name} is paused by {row.paused_by}: `ostraka job resume {name}` first", reason="paused")
        if self._ground.membership.read_only:
            raise Unavailable(self._ground.membership.read_only, reason="read-only")
        await turn.job.begin()
        self._left_at = self._moment()  # its commit is none of a client's
        ended: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        turn.waiting = [*turn.waiting, (on_piece, ended)]
        turn.seen, turn.at, turn.failures = None, None, 0
        self._woken.set()
        return await ended

    def _turn(self, name: str) -> _Turn:
        for turn in self._turns:
            if turn.job.name == name:
                return turn
        raise Absent(f"there is no job {name!r}: there are {', '.join(NAMES)}", reason="job")

    def _named(self, names: Iterable[str]) -> list[_Turn]:
        wanted = set(names)
        return [turn for turn in self._turns if turn.job.name in wanted]

    def report(self) -> list[JobReport]:
        """What each job is doing."""
        now = self._ground.host.clock.monotonic()
        return [
            running(
                turn.job,
                standing.standing(self._ground.state, turn.job.name),
                turn.progress,
                failed=turn.failures > 0,
                due_in=None if turn.at is None else turn.at - now,
                left=self._seconds_left(turn, now),
                last=turn.unsaved,
            )
            for turn in self._turns
        ]

    def _seconds_left(self, turn: _Turn, now: float) -> float | None:
        """How long the pass will take at the pace that it had in this run; None: nobody can say."""
        progress, run = turn.progress, turn.run
        if run is None or progress.total is None or progress.done <= run.first or now <= run.at:
            return None
        return max(0.0, (progress.total - progress.done) * (now - run.at) / (progress.done - run.first))

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
        asked = self._ground.requests()
        while True:
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
            before, asked = asked, self._ground.requests()
            busy = asked != before or (self._left_at is not None and moment[0] != self._left_at[0])
            worked = await self._look(moment, busy=busy)
            await self._save_runs()
            with contextlib.suppress(OstrakaError):
                self._left_at = self._moment()
            if worked:
                pause = _LOOK_SECONDS_MIN
                await self._sleep(0 if any(turn.due_at_once for turn in self._turns) else pause)
                continue
            await self._sleep(self._until_due(pause))
            pause = min(2 * pause, self._ground.limits.jobs_idle_seconds_max)

    async def _look(self, moment: tuple[int, int], *, busy: bool) -> bool:
        """Give each job that is due one piece; whether any was."""
        worked = False
        for turn in self._turns:
            now = self._ground.host.clock.monotonic()
            if turn.paused:
                self._end_run(turn, "paused")
                continue
            if turn.failures and turn.at is not None and now < turn.at:
                continue
            if turn.seen == moment and not turn.progress.more and (turn.at is None or now < turn.at):
                continue
            worked = True
            await self._piece(turn, moment, busy=busy)
        return worked

    async def _piece(self, turn: _Turn, moment: tuple[int, int], *, busy: bool) -> None:
        limits, clock = self._ground.limits, self._ground.host.clock
        began = clock.monotonic()
        self.pieces += 1
        if turn.run is None:
            turn.run = _UnderWay(clock.time(), began, turn.progress.done)
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
        took = clock.monotonic() - began
        self._count(turn, took)
        self._account(turn)
        if busy:
            share = max(limits.jobs_busy_share, self._ground.pressure())
            await asyncio.sleep(took * (1 / share - 1))

    def _failed(self, turn: _Turn, error: Exception) -> None:
        turn.failures += 1
        turn.progress = Progress(turn.progress.done, turn.progress.total, note=str(error))
        turn.at = self._ground.host.clock.monotonic() + _FAILED_SECONDS

    def _count(self, turn: _Turn, took: float) -> None:
        board, name = self._ground.board, turn.job.name
        if name not in NAMES:  # a job of a test: nothing is declared for it
            return
        board.add(board.cell("ostraka_job_seconds_total", name), took)
        board.add(board.cell("ostraka_job_units_total", name), turn.progress.did)
        board.add(board.cell("ostraka_job_bytes_total", name), turn.progress.bytes)
        board.add(board.cell("ostraka_job_failures_total", name), float(turn.failures > 0))

    def _set_paused(self, turn: _Turn, paused: bool) -> None:
        board = self._ground.board
        turn.paused = paused
        if turn.job.name in NAMES:
            board.set(board.cell("ostraka_job_paused", turn.job.name), float(paused))

    # -- runs

    def _account(self, turn: _Turn) -> None:
        """Add the last piece to the run that it belongs to, which may be over now."""
        run, progress = turn.run, turn.progress
        assert run is not None, "a piece is a part of a run"
        run.pieces += 1
        run.did += progress.did
        run.bytes += progress.bytes
        run.errors += turn.failures > 0
        for on_piece, _ in turn.waiting:
            on_piece(progress)
        if not progress.working:
            self._end_run(turn, "failed" if turn.failures else "done")

    def _end_run(self, turn: _Turn, outcome: str) -> None:
        run, turn.run = turn.run, None
        if run is None:
            return
        ended = self._ground.host.clock.time()
        found = Run(run.began, ended, outcome, run.did, run.bytes, run.errors, turn.progress.note)
        waiting, turn.waiting = turn.waiting, []
        for _, asked in waiting:
            if not asked.done():
                asked.set_result(found)
        if waiting or run.did or run.bytes or run.errors:  # else it has only looked
            turn.unsaved = found if turn.unsaved is None else _one(turn.unsaved, found)

    async def _save_runs(self, *, at_once: bool = False) -> None:
        """Put runs on record that have been over for a while: each is a commit, which must wake nobody."""
        now = self._ground.host.clock.monotonic()
        for turn in self._turns:
            run = turn.unsaved
            if run is None or not (at_once or now >= turn.saved_at + _RECORD_SECONDS):
                continue
            turn.saved_at = now
            try:
                before = self._moment()
                await finish(standing.note(self._ground.state, turn.job.name, [run]))
                turn.unsaved = None
                after = self._moment()
            except OstrakaError as error:
                log.warning("the last run of job %s cannot be put on record: %s", turn.job.name, error.message)
                return
            except asyncio.CancelledError:
                turn.unsaved = None  # it was seen to its end
                raise
            if after == (before[0] + 1, before[1]):
                for other in self._turns:
                    other.seen = after if other.seen == before else other.seen

    def _until_due(self, pause: float) -> float:
        now = self._ground.host.clock.monotonic()
        due = [turn.at - now for turn in self._turns if turn.at is not None and not turn.paused]
        due += [turn.saved_at + _RECORD_SECONDS - now for turn in self._turns if turn.unsaved is not None]
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


def _one(first: Run, second: Run) -> Run:
    """Two runs, told as one."""
    return Run(
        first.began,
        second.ended,
        second.outcome,
        first.done + second.done,
        first.bytes + second.bytes,
        first.errors + second.errors,
        second.note or first.note,
    )
