"""Pins: what is being read stays readable (law 6), across all processes of a store.

Whoever opens a version enters first, which records the state's sequence of that moment, and leaves at close. What
died by a commit no later than every recorded sequence, nobody can hold any more: only that is dismantled. A pin costs
no commit and outlives no process.
"""

from typing import Protocol

from ostraka.host import Clock
from ostraka.limits import LIMITS, Limits
from ostraka.state import State
from ostraka.state.types import SEQUENCE_MAX


class Pins(Protocol):
    """Where readers of all processes are seen by the collector of any."""

    def enter(self) -> int:
        """Record the state's sequence, *before* the caller reads the row it wants; returns a token to leave with."""
        ...

    def leave(self, token: int) -> None:
        """The reader is done. Idempotent."""
        ...

    def oldest(self) -> int:
        """The lowest sequence that is recorded; SEQUENCE_MAX when nobody reads."""
        ...


class LocalPins:
    """Pins of a store that one process uses. A pin older than limits.pin_seconds_max no longer counts."""

    __slots__ = ("_active", "_clock", "_limits", "_next", "_state")

    def __init__(self, state: State, clock: Clock, limits: Limits = LIMITS) -> None:
        self._state = state
        self._clock = clock
        self._limits = limits
        self._next = 0
        self._active: dict[int, tuple[int, float]] = {}  # in the order of entering, thus of sequence

    def enter(self) -> int:
        self._next = token = self._next + 1
        self._active[token] = (self._state.sequence, self._clock.monotonic())
        return token

    def leave(self, token: int) -> None:
        self._active.pop(token, None)

    def oldest(self) -> int:
        since = self._clock.monotonic() - self._limits.pin_seconds_max
        for token, (sequence, entered) in list(self._active.items()):
            if entered >= since:
                return sequence
            del self._active[token]
        return SEQUENCE_MAX
