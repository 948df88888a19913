"""One thread that plays all of them: which strand of a simulated machine runs next, and what the clock says.

A *strand* is what a thread would be: a greenlet that runs until it waits, or until it reaches a point where the real
one might be overtaken (`Scheduler.pause`): a system call, a lock, a queue. Who goes on then is drawn by seed. Time is
virtual: it stands still while anybody can run, and leaps to the next timer when nobody can. So a schedule is a function
of its seed, and hours of waiting cost nothing.

Strands belong to an owner (a simulated process). `drop` takes all strands of an owner away in the midst of whatever
they do, as SIGKILL does; none of their ``finally`` blocks runs before the schedule is over.
"""

import contextlib
import heapq
import random
from asyncio.events import _set_running_loop
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

STEPS_MAX = 200_000  # turns of one schedule; more is a livelock
_EXITS_MAX = 50


class Stuck(Exception):
    """Nobody can run and nobody waits for a moment, or everybody runs and nothing comes of it."""


class Strand(greenlet):  # type: ignore[misc]
    """A greenlet with an owner."""

    owner: object
    name: str
    dropped: bool
    ticket: int  # of what it waits for; 0: it is ready, or runs
    woken: bool  # how its last wait ended: by somebody, not by the clock
    loop: Any = None  # the event loop that runs in it


class Scheduler:
    """Strands and virtual time."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 1000.0
        self.turns = 0
        self.likely = 0.3  # that a strand is overtaken where it may be
        self._random = rng.random
        self._strands: dict[Strand, None] = {}  # all that have not ended, dropped ones too
        self._ready: list[Strand] = []
        self._timers: list[tuple[float, int, Strand]] = []
        self._tickets = 0
        self._closed = False
        self._hub = getcurrent()
        self._running: Strand | None = None
        self._loop: Any = None  # that asyncio believes to be running

    # -- strands

    def spawn(self, owner: object, name: str, run: Callable[[], Any]) -> Strand:
        """A new strand, ready to run."""
        strand = Strand(run, self._hub)
        strand.owner, strand.name, strand.dropped, strand.ticket, strand.woken = owner, name, False, 0, False
        self._strands[strand] = None
        self._ready.append(strand)
        return strand

    def current(self) -> Strand:
        """The strand that runs; only strands take part in a schedule."""
        strand: Strand = getcurrent()
        return strand

    def drop(self, owner: object, but: Strand | None = None) -> None:
        """Nothing of that owner runs ever again, ``but`` one strand perhaps. It does not return to who is dropped."""
        for strand in self._strands:
            if strand.owner is owner and strand is not but:
                strand.dropped = True
        here = getcurrent()
        if isinstance(here, Strand) and here.dropped:
            self._hub.switch()

    def run(self, until: Strand) -> Any:
        """Let all strands run until that one has ended; what it returned. Raises what it raised, and Stuck.

        A strand that waits hands over to the next one itself; whoever ends comes back to here.
        """
        self._hub = getcurrent()
        self.begin_loop(None)
        while True:
            result = self._next().switch()
            ended = self._running
            assert ended is not None
            if ended.dead:
                del self._strands[ended]
                if ended is until:
                    return result

    def begin_loop(self, loop: Any) -> None:
        """The strand that runs is an event loop from now on."""
        self._loop = loop
        _set_running_loop(loop)

    def _next(self) -> Strand:
        """Whose turn begins now."""
        ready = self._ready
        while True:
            if not ready:
                self._leap()
                continue
            at = int(self._random() * len(ready))
            strand = ready[at]
            ready[at] = ready[-1]
            ready.pop()
            if not strand.dropped:
                break
        self.turns += 1
        if self.turns > STEPS_MAX:
            raise Stuck(f"there have been {self.turns} turns, and no end is seen")
        if strand.loop is not self._loop:
            self.begin_loop(strand.loop)
        self._running = strand
        return strand

    def _hand_over(self) -> None:
        """Let others run; returns when this strand has its turn again."""
        if self._closed:
            self._hub.switch()
            return
        try:
            strand = self._next()
        except Stuck as error:
            self._hub.throw(error)
            raise
        if strand is not getcurrent():
            strand.switch()

    def _leap(self) -> None:
        """To the next moment at which somebody wants to be woken."""
        while self._timers:
            when, ticket, strand = heapq.heappop(self._timers)
            if strand.ticket == ticket and not strand.dropped:
                self.now = max(self.now, when)
                self._wake(strand, by_somebody=False)
                return
        raise Stuck("nobody can run, and nobody waits for a moment")

    # -- what a strand can do

    def pause(self) -> None:
        """Here the strand may be overtaken."""
        if self._ready and self._random() < self.likely:
            self._ready.append(getcurrent())
            self._hand_over()

    def take_ticket(self) -> int:
        """Announce that this strand is about to `wait`; whoever wakes it shows the ticket."""
        self._tickets += 1
        self.current().ticket = self._tickets
        return self._tickets

    def wait(self, seconds: float | None = None) -> bool:
        """Until somebody wakes this strand, or so many seconds. False when the time was up."""
        strand: Strand = getcurrent()
        if strand.ticket:
            if seconds is not None:
                heapq.heappush(self._timers, (self.now + max(0.0, seconds), strand.ticket, strand))
            self._hand_over()
        return strand.woken

    def wake(self, strand: Strand, ticket: int) -> bool:
        """End a wait; False if it has ended already."""
        if strand.ticket != ticket or strand.dropped:
            return False
        self._wake(strand, by_somebody=True)
        return True

    def _wake(self, strand: Strand, *, by_somebody: bool) -> None:
        strand.ticket, strand.woken = 0, by_somebody
        self._ready.append(strand)

    def sleep(self, seconds: float) -> None:
        self.take_ticket()
        self.wait(seconds)

    # -- the end

    def close(self) -> None:
        """End the strands that are left. What they do in their ``finally`` blocks concerns nobody any more."""
        self._closed = True
        self._ready.clear()
        for strand in list(self._strands):
            strand.dropped = True
            for _ in range(_EXITS_MAX):  # who waits again while it ends is told again
                if strand.dead or not strand.gr_frame:
                    break
                with contextlib.suppress(BaseException):
                    strand.throw(GreenletExit)
        self._strands.clear()
