"""What an error says of the store, and what follows from it: whether to ask again, when, and what is then known.

Three questions, three answers. Is the store in trouble (then it counts against its health)? Can asking again help?
May it have happened all the same (then a condition that fails the next time may be our own doing)?
"""

import enum
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec

from ostraka.backends.wrapper import Operation
from ostraka.errors import Absent, Conflict, Exists, Invalid, PreconditionFailed, Truncated, Unavailable
from ostraka.host import Clock

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Resilience(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much is tried. Seconds; of a stream, they are counted anew whenever a piece has passed."""

    attempts_max: Positive = 4  # of one call, the first included
    seconds_max: Seconds = 60.0  # after so long no attempt of a call is begun any more
    delay_seconds: Seconds = 0.1  # before the second attempt at most; doubled each time
    delay_seconds_max: Seconds = 5.0
    timeout_seconds: Seconds | None = 60.0  # of one attempt, or of a stream's standing still
    timeouts: dict[str, Seconds] = {}  # by operation ("stat": 5.0), instead of that
    hedge_seconds: Seconds | None = None  # a read without an answer after so long is asked a second time beside it
    failures_max: Positive = 5  # one after the other, and the circuit opens
    open_seconds: Seconds = 30.0  # it stays open, and is then tried
    probes_max: Positive = 1  # calls at once that try it
    probes_needed: Positive = 3  # that must succeed before it closes
    probe_seconds: Seconds = 120.0  # a call that tries it gives its place back after so long, whatever became of it


def checked(resilience: Resilience) -> Resilience:
    """The same; Invalid (reason "config") if a bound is none, or an operation is unknown."""
    try:
        for operation in resilience.timeouts:
            Operation(operation)
        return msgspec.convert(msgspec.to_builtins(resilience), Resilience)
    except ValueError as error:  # msgspec's ValidationError is one
        raise Invalid(f"resilience: {error}", reason="config") from None


class Verdict(enum.Enum):
    """What an attempt says of the store's health."""

    WELL = "well"
    ILL = "ill"
    NOTHING = "nothing"  # it may never have been asked


def verdict_of(error: BaseException) -> Verdict:
    if is_trouble(error):
        return Verdict.ILL
    if isinstance(error, Absent | PreconditionFailed | Conflict | Exists):
        return Verdict.WELL
    return Verdict.NOTHING


def is_trouble(error: BaseException) -> bool:
    """Whether the store, or the way to it, is in trouble."""
    return isinstance(error, Unavailable) and error.reason not in ("closed", "circuit")


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed in a moment. A store that told two rivals apart did nothing for one of them."""
    if isinstance(error, Conflict):
        return error.reason == "rival"
    return is_trouble(error) and getattr(error, "reason", "") != "unknown"


def is_doubtful(error: BaseException) -> bool:
    """Whether what was asked may have happened, or happen yet. A store that throttles has not begun."""
    return isinstance(error, Unavailable) and error.reason not in ("closed", "circuit", "throttled")


def is_break(error: BaseException) -> bool:
    """Whether a reading broke off and may go on where it was."""
    return is_passing(error) or (isinstance(error, Truncated) and error.reason == "body")


class Budget:
    """The attempts and the time that are left to one call."""

    def __init__(
        self,
        resilience: Resilience,
        clock: Clock,
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._resilience = resilience
        self._clock = clock
        self._random = random
        self._sleep = sleep
        self.progress()

    def progress(self) -> None:
        """Something passed: the next trouble is counted from here."""
        self._attempts = 1
        self._begun = self._clock.monotonic()

    async def allows_another(self) -> bool:
        """After a wait that grows, and differs from that of others who were refused at the same moment; False at once
        if attempts or time are used up."""
        r = self._resilience
        if self._attempts >= r.attempts_max:
            return False
        longest = min(r.delay_seconds * 2 ** (self._attempts - 1), r.delay_seconds_max)
        delay = longest * self._random()
        if self._clock.monotonic() - self._begun + delay > r.seconds_max:
            return False
        self._attempts += 1
        await self._sleep(delay)
        return True
