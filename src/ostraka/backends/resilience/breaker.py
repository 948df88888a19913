"""A circuit breaker: a store that failed is left alone for a while, and then tried by a few before it is for all.

Closed, every call goes through; so many failures one after the other open it. Open, no call goes through, until a time
has passed. Half-open, a few calls at once do: each leases a place. A place is given back by the call's verdict, by its
end without one (cancelled, or never asked the store), or by the clock, so that none is lost to a call that hangs. One
failure opens it again; enough successes close it. What a call says that was let through before the last change of
state says nothing of the state that is now, and is passed over.
"""

import enum
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from ostraka.backends.resilience.policy import Resilience, Verdict
from ostraka.errors import Unavailable
from ostraka.host import Clock

log = logging.getLogger(__name__)


class BreakerState(enum.Enum):
    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


OnChange = Callable[[BreakerState, BreakerState], None]


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """``failures``: one after the other, up to now. ``last_failure``: seconds since 1970. ``closed_to_all_for``:
    seconds until a call is let through."""

    state: BreakerState
    failures: int
    probes: int  # places leased now
    successes: int  # of probes, since it was half-open
    opened: int  # how often
    rejected: int  # calls
    last_failure: float | None
    closed_to_all_for: float


class Lease:
    """That one call was let through. To be left (as a context) when the call is over, whatever became of it."""

    __slots__ = ("_breaker", "generation", "until")

    def __init__(self, breaker: "Breaker", generation: int, until: float | None) -> None:
        self._breaker = breaker
        self.generation = generation
        self.until = until  # of a probe

    def report(self, verdict: Verdict) -> None:
        """What the call says of the store; the first word counts."""
        self._breaker.judge(self, verdict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._breaker.judge(self, Verdict.NOTHING)


class Breaker:
    """Of one event loop. ``on_change(before, after)`` is called after a change of state, in order; it may call us."""

    def __init__(self, resilience: Resilience, clock: Clock, on_change: OnChange | None = None) -> None:
        self._resilience = resilience
        self._clock = clock
        self._on_change = on_change
        self._state = BreakerState.CLOSED
        self._generation = 0  # grows with each change of state
        self._failures = 0
        self._successes = 0
        self._probes: set[Lease] = set()
        self._opened_at = 0.0
        self._opened = 0
        self._rejected = 0
        self._last_failure: float | None = None
        self._told: deque[tuple[BreakerState, BreakerState]] = deque()
        self._telling = False

    @property
    def state(self) -> BreakerState:
        """As it would be for a call now."""
        return BreakerState.HALF_OPEN if self._state is BreakerState.OPEN and not self._left() else self._state

    def statistics(self) -> BreakerStatistics:
        return BreakerStatistics(
            self.state,
            self._failures,
            len(self._probes),
            self._successes,
            self._opened,
            self._rejected,
            self._last_failure,
            self._left(),
        )

    def reset(self) -> None:
        """Closed, as if nothing had happened; what was let through before is not listened to."""
        self._failures = 0
        self._become(BreakerState.CLOSED)

    def enter(self) -> Lease:
        """Let a call through, or raise Unavailable (reason "circuit")."""
        if self._state is BreakerState.OPEN and not self._left():
            self._become(BreakerState.HALF_OPEN)
        if self._state is BreakerState.CLOSED:
            return Lease(self, self._generation, None)
        now = self._clock.monotonic()
        self._probes = {lease for lease in self._probes if lease.until is not None and lease.until > now}
        if self._state is BreakerState.OPEN or len(self._probes) >= self._resilience.probes_max:
            self._rejected += 1
            tried = f"it is tried in {self._left():.1f} s" if self._left() else "it is being tried"
            raise Unavailable(f"the store failed {self._failures} times in a row; {tried}", reason="circuit")
        lease = Lease(self, self._generation, now + self._resilience.probe_seconds)
        self._probes.add(lease)
        return lease

    def judge(self, lease: Lease, verdict: Verdict) -> None:
        """A call's verdict. NOTHING gives a probe's place back, and no more."""
        listened = lease.generation == self._generation and (lease.until is None or lease in self._probes)
        self._probes.discard(lease)
        if verdict is Verdict.ILL:
            self._last_failure = self._clock.time()
        if not listened:
            return
        if verdict is Verdict.ILL:
            self._failures += 1
            if self._state is not BreakerState.OPEN and (
                lease.until is not None or self._failures >= self._resilience.failures_max
            ):
                self._opened_at = self._clock.monotonic()
                self._opened += 1
                self._become(BreakerState.OPEN)
        elif verdict is Verdict.WELL and lease.until is None:
            self._failures = 0
        elif verdict is Verdict.WELL:
            self._successes += 1
            if self._successes >= self._resilience.probes_needed:
                self._failures = 0
                self._become(BreakerState.CLOSED)

    def trouble(self) -> None:
        """Something broke that was let through and had answered: a reading, in the middle."""
        self.judge(Lease(self, self._generation, None), Verdict.ILL)

    def _left(self) -> float:
        """Seconds until an open circuit is tried."""
        if self._state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._opened_at + self._resilience.open_seconds - self._clock.monotonic())

    def _become(self, state: BreakerState) -> None:
        before, self._state = self._state, state
        self._generation += 1
        self._successes = 0
        self._probes = set()
        if state is before or self._on_change is None:
            return
        self._told.append((before, state))
        if self._telling:
            return  # by whoever is told just now: in order, and one after the other
        self._telling = True
        while self._told:
            try:
                self._on_change(*self._told.popleft())
            except Exception:
                log.exception("whoever is told of a circuit breaker's changes raised an error")
        self._telling = False
