"""Threads that wait for disks, a few for each disk, so that a disk that hangs holds up only itself.

A lane's calls answer on the event loop. Small writes that arrive while a thread is busy are taken together by the
next one: one append, one sync, one wake-up of the loop for all of them. A call that takes longer than
``limits.disk_seconds_max`` is answered with TimeoutError (an OSError, like every other failure of a device). If a
thread has it, that thread is left to its fate, and so is the memory; if none has, it is taken back. While all threads
of a lane hang, nothing more is queued behind them. Time that this process did not run (it was stopped, or its machine
was) is not held against a disk.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from ostraka.host import Clock, Host
from ostraka.limits import Limits
from ostraka.nodes.types import Disk, ShardWrite
from ostraka.pools.buffers import PooledBuffer

T = TypeVar("T")

_BATCH_SHARDS_MAX: Final = 256
_BATCH_BYTES_MAX: Final = 1 << 20
_TEND_SECONDS: Final = 10.0
_TICKS: Final = 8  # how often, in the time that a call may take, it is looked whether one has taken too long


class Hung(TimeoutError):
    """A call took too long, and nothing else that the disk was asked was answered meanwhile: it hangs."""


class _Call:
    """One call on its way: what to do, or which shard to write, and who waits for it."""

    __slots__ = ("asked", "done", "future", "hangs", "leads", "run", "shard", "size", "started", "token")

    def __init__(
        self,
        future: "asyncio.Future[Any]",
        started: float,
        asked: float,
        run: Callable[[], Any] | None,
        shard: ShardWrite | None,
        size: int,
        done: Callable[[], None] | None,
    ) -> None:
        self.future = future
        self.started = started  # by the time that was observed
        self.asked = asked  # by the clock
        self.run = run
        self.shard = shard
        self.size = size
        self.done = done  # on the loop, when the thread has let go of the caller's memory
        self.token = [None]  # who pops it decides: a thread (it runs) or the loop (it never will)
        self.leads = False  # the first of those that a thread took together
        self.hangs = False  # a thread has it, and for too long

    def claim(self) -> bool:
        try:
            self.token.pop()
        except IndexError:
            return False
        return True


class Lane:
    """The threads of one disk (or of none, to compute) for one kind of call. Used from one event loop."""

    def __init__(
        self,
        name: str,
        disk: Disk | None,
        threads_max: int,
        clock: Clock,
        seconds_max: float,
        on_answer: Callable[[float], None] | None = None,
    ) -> None:
        self._name = name
        self._on_answer = on_answer  # hears how long a call took
        self._spoke = clock.monotonic()  # when a call was answered last
        self.disk = disk
        self._threads_max = threads_max
        self._clock = clock
        self._seconds_max = seconds_max
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: dict[_Call, None] = {}  # in the order they came
        self._watch: asyncio.TimerHandle | None = None
        self._period = seconds_max / _TICKS
        self._observed = 0.0  # seconds that this process saw pass while calls were under way
        self._ticked = 0.0
        self._answered = -1.0  # by that count, when the last call was
        self._hanging = 0  # threads in a call that took too long

    def call(self, run: Callable[[], T], done: Callable[[], None] | None = None) -> "asyncio.Future[T]":
        """Run in a thread. ``done`` is called when the thread has finished, even if nobody waits any more."""
        return self._submit(run, None, 0, done)

    def write(self, shard: ShardWrite, size: int, done: Callable[[], None] | None = None) -> "asyncio.Future[None]":
        """Write a shard to the lane's disk, together with other small ones if there are any."""
        return self._submit(None, shard, size, done)

    def silent(self, seconds: float) -> bool:
        """Whether something is asked for, and nothing was answered for so long."""
        if self._hanging:
            return True
        if not self._pending:
            return False
        oldest = next(iter(self._pending)).asked
        return self._clock.monotonic() - max(oldest, self._spoke) > seconds

    def _submit(
        self, run: Callable[[], Any] | None, shard: ShardWrite | None, size: int, done: Callable[[], None] | None
    ) -> "asyncio.Future[Any]":
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if len(self._threads) < self._threads_max:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        future: asyncio.Future[Any] = loop.create_future()
        if self._hanging >= self._threads_max:
            future.set_exception(Hung(f"{self._name}: hangs"))
            if done is not None:
                done()
            return future
        call = _Call(future, self._observed + self._period, self._clock.monotonic(), run, shard, size, done)
        self._pending[call] = None
        self._queue.put(call)
        if self._watch is None:
            self._ticked = self._clock.monotonic()
            self._watch = loop.call_later(self._period, self._look)
        return future

    def _work(self) -> None:
        queue = self._queue
        loop = self._loop
        assert loop is not None, "threads start with the first call"
        held: _Call | None = None
        while True:
            call = held or queue.get()
            held = None
            if call is None:
                return
            if not call.claim():
                continue
            call.leads = True
            batch, ended = [call], False
            if call.shard is not None:
                held, ended = self._gather(batch)
            answer, error = self._run(batch)
            try:
                loop.call_soon_threadsafe(self._answer, batch, answer, error)
            except RuntimeError:  # the loop is closed
                return
            # nothing of the last call may live on while we wait for the next: its memory is the caller's
            del call, batch, answer, error
            if ended:
                return

    def _gather(self, batch: list[_Call]) -> tuple[_Call | None, bool]:
        """Add the small writes that wait already. The call that came next if it is no write: it has its own turn,
        and the next one, lest those that keep coming pass it by; and whether the lane was told to end."""
        size = batch[0].size
        while size < _BATCH_BYTES_MAX and len(batch) < _BATCH_SHARDS_MAX:
            try:
                more = self._queue.get_nowait()
            except Empty:
                break
            if more is None:
                return None, True
            if more.shard is None:
                return more, False
            if more.claim():
                batch.append(more)
                size += more.size
        return None, False

    def _run(self, batch: Sequence[_Call]) -> tuple[Any, BaseException | None]:
        try:
            run = batch[0].run
            if run is not None:
                return run(), None
            assert self.disk is not None, "shards are written to a disk"
            self.disk.write([call.shard for call in batch if call.shard is not None])
            return None, None
        except BaseException as e:
            return None, e

    def _answer(self, batch: Sequence[_Call], answer: Any, error: BaseException | None) -> None:
        self._answered = self._observed
        self._spoke = self._clock.monotonic()
        if self._on_answer is not None:
            self._on_answer(self._spoke - batch[0].asked)
        for call in batch:
            self._pending.pop(call, None)
            self._hanging -= call.hangs
            if not call.future.done():
                if error is None:
                    call.future.set_result(answer)
                else:
                    call.future.set_exception(error)
            if call.done is not None:
                call.done()

    def _look(self) -> None:
        """Answer what has taken too long; come again only while something is under way."""
        self._watch = None
        now = self._clock.monotonic()
        self._observed += min(now - self._ticked, 1.5 * self._period)
        self._ticked = now
        for call in list(self._pending):
            if call.started + self._seconds_max > self._observed:
                break
            self._too_late(call)
        if self._pending and self._loop is not None:
            self._watch = self._loop.call_later(self._period, self._look)

    def _too_late(self, call: _Call) -> None:
        del self._pending[call]
        if not call.future.done():
            silent = self._answered < call.started  # else there is a long queue, or one bad place on it
            kind = Hung if silent else TimeoutError
            call.future.set_exception(kind(f"{self._name}: no answer in {self._seconds_max} seconds"))
        if not call.claim():
            call.hangs = call.leads
            self._hanging += call.hangs
            return
        call.run = call.shard = None  # no thread will have it: what it holds is the caller's again
        if call.done is not None:
            call.done()

    def close(self, seconds: float = 5.0) -> None:
        """End the threads after what is queued; one that hangs is not waited for longer than told."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(seconds)
        self._threads.clear()


OnCall = Callable[[str, int, float], None]  # ("read" or "write", disk, seconds)


class _Threads:
    """The lanes of one disk."""

    __slots__ = ("disk", "reads", "writes")

    def __init__(self, disk: Disk, host: Host, limits: Limits, on_call: OnCall | None) -> None:
        self.disk = disk

        def lane(kind: str, threads: int) -> Lane:
            told = None if on_call is None else partial(on_call, kind, disk.number)
            return Lane(f"disk-{disk.number}-{kind[0]}", disk, threads, host.clock, limits.disk_seconds_max, told)

        self.writes = lane("write", limits.disk_write_threads)
        self.reads = lane("read", limits.disk_read_threads)

    def close(self, seconds: float = 5.0) -> None:
        self.writes.close(seconds)
        self.reads.close(seconds)


class Lanes:
    """The threads of a pool: those of each disk, and where large computations run."""

    def __init__(self, host: Host, limits: Limits, executor: Executor | None) -> None:
        self._host = host
        self._limits = limits
        self._executor = executor
        self._cpu = Lane("encode", None, 2, host.clock, limits.disk_seconds_max)
        self._disks: dict[int, _Threads] = {}
        self.on_call: OnCall | None = None  # hears of each call to a disk that comes later
        self._tending: asyncio.TimerHandle | None = None

    def of(self, disk: Disk) -> _Threads:
        threads = self._disks.get(disk.number)
        if threads is None or threads.disk is not disk:
            if threads is not None:
                threads.close(0)  # the disk was opened anew: the old threads end by themselves
            threads = self._disks[disk.number] = _Threads(disk, self._host, self._limits, self.on_call)
        return threads

    async def compute(self, run: Callable[[], None], body: object = None) -> None:
        """Run C code in a thread; a pooled body stays pinned until the thread is done."""
        done = None
        if isinstance(body, PooledBuffer):
            body.pin()
            done = body.unpin
        if self._executor is None:
            await self._cpu.call(run, done)
            return
        future = asyncio.get_running_loop().run_in_executor(self._executor, run)
        if done is not None:
            future.add_done_callback(lambda _: done())
        await asyncio.shield(future)

    def tend_soon(self) -> None:
        """Something was read: in a while, let disks close the files that are not used any more."""
        if self._tending is None:
            self._tending = asyncio.get_running_loop().call_later(_TEND_SECONDS, self._tend)

    def _tend(self) -> None:
        """Comes again only while some files are open, so that an idle process has no timer."""
        self._tending = None
        more = False
        for threads in self._disks.values():
            try:
                more = threads.disk.tend() or more
            except OSError:
                continue
        if more:
            self.tend_soon()

    async def close(self) -> None:
        if self._tending is not None:
            self._tending.cancel()
            self._tending = None
        loop = asyncio.get_running_loop()
        while self._disks:  # what is given up meanwhile may still begin a disk's threads
            _, threads = self._disks.popitem()
            await loop.run_in_executor(None, threads.close)
        await loop.run_in_executor(None, self._cpu.close)
