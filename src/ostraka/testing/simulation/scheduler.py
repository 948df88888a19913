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
    """Strands and virtual time. ``on_turn`` is told whose turn begins."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 1000.0
        self.turns = 0
        self.likely = 0.3  # that a strand is overtaken where it may be
        self.on_turn: Callable[[Strand], None] | None = None
        self._random = rng.random
        self._strands: dict[Strand, None] = {}  # all that have not ended, dropped ones too
        self._ready: list[Strand] = []
        self._timers: list[tuple[float, int, Strand]] = []
        self._tickets = 0
        self._hub = getcurrent()
        self._switch = self._hub.switch

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
        """Let all strands run until that one has ended; what it returned. Raises what it raised, and Stuck."""
        while True:
            strand = self._next()
            self.turns += 1
            if self.turns > STEPS_MAX:
                raise Stuck(f"{self.turns} turns, and {until.name} has not ended")
            if self.on_turn is not None:
                self.on_turn(strand)
            result = strand.switch()
            if strand.dead:
                del self._strands[strand]
                if strand is until:
                    return result

    def _next(self) -> Strand:
        while True:
            ready = self._ready
            if not ready:
                self._leap()
                continue
            at = int(self._random() * len(ready))
            strand = ready[at]
            ready[at] = ready[-1]
            ready.pop()
            if not strand.dropped:
                return strand

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
            self._switch()

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
            self._switch()
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
        self._ready, self._timers = [], []
        for strand in list(self._strands):
            strand.dropped = True
            for _ in range(_EXITS_MAX):  # who waits again while it ends is told again
                if strand.dead or not strand.gr_frame:
                    break
                with contextlib.suppress(BaseException):
                    strand.throw(GreenletExit)
        self._strands.clear()
