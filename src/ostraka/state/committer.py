"""The asyncio side of commits: a bounded queue, one thread that serves it, and one wake-up of the loop per batch.

Group commit comes by itself: what arrives while a batch is being synced, or while another process has its turn, waits,
and is the next batch: calls are taken when the turn has come, not when it is asked for. A call that was cancelled, or
waited too long, before the thread took it, was never begun; one that the thread took is finished.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

from ostraka.errors import OstrakaError, Overloaded, TooLarge, Unavailable
from ostraka.host import Clock
from ostraka.limits import Limits
from ostraka.state.batch import Gather, measure
from ostraka.state.types import Mutation, Outcome

_SWEEP_SECONDS = 0.5  # how often calls that wait are checked against the deadline, while any waits

Apply = Callable[[Gather], list[Outcome]]


class _Call:
    """Mutations of one caller that go together, and who waits for them."""

    __slots__ = ("count", "deadline", "future", "mutations", "size", "token")

    def __init__(self, mutations: Sequence[Mutation], size: int, future: "asyncio.Future[list[Outcome]]") -> None:
        self.mutations = mutations
        self.count = len(mutations)
        self.size = size
        self.future = future
        self.deadline = 0.0
        self.token = [None]  # who pops it decides: the thread (taken) or the loop (given up)

    def claim(self) -> bool:
        try:
            self.token.pop()
        except IndexError:
            return False
        return True


class Committer:
    """Runs ``apply`` in a thread of its own, on batches within the limits."""

    def __init__(self, apply: Apply, limits: Limits, clock: Clock) -> None:
        self._apply = apply
        self._limits = limits
        self._clock = clock
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outstanding = 0  # mutations in the queue or in the thread; the loop's own
        self._room: deque[asyncio.Future[None]] = deque()
        self._waiting: deque[_Call] = deque()  # calls not known to be taken, oldest first
        self._sweep: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._held: _Call | None = None  # the thread's own: out of the queue, and not taken yet
        self._ended = False  # the thread's own: nothing comes any more
        self._closed = False

    async def commit(self, mutations: Sequence[Mutation]) -> list[Outcome]:
        """Outcomes in order. TooLarge, Invalid, Overloaded, Unavailable, Full."""
        size = 0
        for mutation in mutations:
            size += measure(mutation, self._limits)
        if len(mutations) > self._limits.commit_queue_max:
            raise TooLarge(f"{len(mutations)} mutations at once", reason="state_mutations")
        loop = asyncio.get_running_loop()
        self._start(loop)
        call = _Call(mutations, size, loop.create_future())
        call.deadline = self._clock.monotonic() + self._limits.commit_wait_seconds_max
        if self._outstanding + call.count > self._limits.commit_queue_max or self._room:
            await self._wait_for_room(call)
        self._outstanding += call.count
        self._waiting.append(call)
        if self._sweep is None:
            self._sweep = loop.call_later(_SWEEP_SECONDS, self._give_up_late)
        self._queue.put(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            if call.claim():
                self._outstanding -= call.count
                self._wake()
            raise

    async def close(self) -> None:
        """Finish what is queued, and end the thread."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for waiter in self._room:
            if not waiter.done():
                waiter.set_exception(Unavailable("the state is closing", reason="closed"))
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            raise Unavailable("the state is closed", reason="closed")
        if self._thread is None:
            self._loop = loop
            self._thread = threading.Thread(target=self._serve, name="ostraka-state-commit", daemon=True)
            self._thread.start()
        elif self._loop is not loop:
            raise RuntimeError("a state belongs to the event loop of its first commit")

    # -- on the loop

    async def _wait_for_room(self, call: _Call) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._room.append(waiter)
        timer = loop.call_later(self._limits.commit_wait_seconds_max, _overload, waiter)
        try:
            while True:
                await waiter
                if self._outstanding + call.count <= self._limits.commit_queue_max:
                    return
                self._room.remove(waiter)
                waiter = loop.create_future()
                self._room.appendleft(waiter)
                timer.cancel()
                timer = loop.call_later(max(0.0, call.deadline - self._clock.monotonic()), _overload, waiter)
        finally:
            timer.cancel()
            self._room.remove(waiter)
            self._wake()

    def _wake(self) -> None:
        """Let the first that waits for room look again."""
        if self._room and not self._room[0].done() and self._outstanding < self._limits.commit_queue_max:
            self._room[0].set_result(None)

    def _give_up_late(self) -> None:
        assert self._loop is not None
        now = self._clock.monotonic()
        waiting = self._waiting
        while waiting and (waiting[0].future.done() or not waiting[0].token or waiting[0].deadline <= now):
            call = waiting.popleft()
            if not call.future.done() and call.claim():
                self._outstanding -= call.count
                call.future.set_exception(Overloaded("the state did not serve the commit in time", reason="state"))
        self._wake()
        self._sweep = self._loop.call_later(_SWEEP_SECONDS, self._give_up_late) if waiting else None

    def _finish(self, calls: list[_Call], outcomes: list[Outcome], error: OstrakaError | None) -> None:
        at = 0
        for call in calls:
            self._outstanding -= call.count
            if not call.future.done():
                if error is not None:
                    call.future.set_exception(error)
                else:
                    call.future.set_result(outcomes[at : at + call.count])
            at += call.count
        waiting = self._waiting
        while waiting and waiting[0].future.done():
            waiting.popleft()
        self._wake()

    # -- in the thread

    def _serve(self) -> None:
        loop = self._loop
        assert loop is not None
        while not self._ended:
            if self._held is None:
                self._held = self._queue.get()
                if self._held is None:
                    return
            if not self._held.token:  # given up: no reason to ask for a turn
                self._held = None
                continue
            taken: list[_Call] = []
            outcomes, error = self._run_large(taken) if self._is_large(self._held) else self._run(taken)
            if taken:
                try:
                    loop.call_soon_threadsafe(self._finish, taken, outcomes, error)
                except RuntimeError:
                    return  # the loop is gone, and with it everybody who waited

    def _is_large(self, call: _Call) -> bool:
        """Whether it is more than a batch holds."""
        return self._exceeds(call.count, call.size)

    def _exceeds(self, count: int, size: int) -> bool:
        return count > self._limits.batch_mutations_max or size > self._limits.batch_bytes_max

    def _take(self) -> list[_Call]:
        """As many of the calls that wait as a batch holds, without those that gave up."""
        calls: list[_Call] = []
        count = size = 0
        call, self._held = self._held, None
        while call is not None:
            if self._exceeds(count + call.count, size + call.size):
                self._held = call
                break
            if call.claim():
                calls.append(call)
                count += call.count
                size += call.size
            if self._queue.empty():
                break
            call = self._queue.get_nowait()
            self._ended = call is None
        return calls

    def _run(self, taken: list[_Call]) -> tuple[list[Outcome], OstrakaError | None]:
        """One batch of what waits once its turn has come; ``taken`` gets the calls."""

        def gather() -> list[Mutation]:
            taken.extend(self._take())
            return [mutation for call in taken for mutation in call.mutations]

        outcomes, error = self._try(gather)
        if error is not None and not taken:
            taken.extend(self._take())  # the turn never came: who waits for it is told
        return outcomes, error

    def _run_large(self, taken: list[_Call]) -> tuple[list[Outcome], OstrakaError | None]:
        """One caller's mutations, more than a batch holds."""
        call, self._held = self._held, None
        assert call is not None
        if not call.claim():
            return [], None
        taken.append(call)
        outcomes: list[Outcome] = []
        for part in self._parts(call.mutations):
            done, error = self._try(lambda part=part: part)  # type: ignore[misc]
            if error is not None:
                return outcomes, error
            outcomes += done
        return outcomes, None

    def _parts(self, mutations: Sequence[Mutation]) -> Iterator[list[Mutation]]:
        part: list[Mutation] = []
        size = 0
        for mutation in mutations:
            more = measure(mutation, self._limits)
            if part and self._exceeds(len(part) + 1, size + more):
                yield part
                part, size = [], 0
            part.append(mutation)
            size += more
        yield part

    def _try(self, gather: Gather) -> tuple[list[Outcome], OstrakaError | None]:
        try:
            return self._apply(gather), None
        except OstrakaError as error:
            return [], error
        except Exception as error:
            return [], Unavailable(f"the state cannot commit: {error!r}", reason="state")


def _overload(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(Overloaded("the commit queue of the state stayed full", reason="state"))
