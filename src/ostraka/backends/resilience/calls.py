"""One call to a store: under the breaker, bounded in time, and counted."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from ostraka.backends.resilience.breaker import Breaker, BreakerStatistics
from ostraka.backends.resilience.policy import Resilience, Verdict, verdict_of
from ostraka.backends.wrapper import Operation
from ostraka.errors import OstrakaError, Unavailable

T = TypeVar("T")
GRACE_SECONDS = 1.0  # for what was cancelled to end, before we go on without it


@dataclass(slots=True)
class Statistics:
    """Since it was made. ``errors``: of attempts, by kind and reason."""

    breaker: BreakerStatistics
    calls: int = 0
    attempts: int = 0
    retries: int = 0
    timeouts: int = 0
    hedges: int = 0
    hedges_won: int = 0
    resumed: int = 0  # readings and listings that broke off and went on
    unknown: int = 0  # conditional calls of which it cannot be told whether they happened
    errors: Counter[str] = field(default_factory=Counter)


class Calls:
    """Makes calls to one store."""

    def __init__(self, resilience: Resilience, breaker: Breaker) -> None:
        self.resilience = resilience
        self.breaker = breaker
        self.statistics = Statistics(breaker.statistics())
        self._stragglers: set[asyncio.Future[Any]] = set()

    def timeout_of(self, operation: Operation) -> float | None:
        return self.resilience.timeouts.get(operation.value, self.resilience.timeout_seconds)

    async def attempt(
        self, operation: Operation, call: Callable[[], Awaitable[T]], moves: Callable[[], object] | None = None
    ) -> T:
        """Make the call once. Unavailable: "circuit" if it is not let through, "timeout" if it takes too long."""
        with self.breaker.enter() as lease:
            self.statistics.attempts += 1
            try:
                answer = await self.bounded(operation, call(), moves)
            except OstrakaError as error:
                self.count(error)
                lease.report(verdict_of(error))
                raise
            lease.report(Verdict.WELL)
            return answer

    def trouble(self, error: OstrakaError) -> None:
        """What had answered broke off."""
        self.count(error)
        self.breaker.trouble()

    def count(self, error: OstrakaError) -> None:
        self.statistics.errors[f"{type(error).__name__}/{error.reason}"] += 1
        self.statistics.timeouts += error.reason == "timeout"

    async def bounded(self, operation: Operation, call: Awaitable[T], moves: Callable[[], object] | None = None) -> T:
        """The call's answer, or Unavailable (reason "timeout") if there is none in time; of a call that ``moves``
        says something else of each time, if it stands still for so long."""
        seconds = self.timeout_of(operation)
        if seconds is None:
            return await call
        if isinstance(call, asyncio.Future) and not isinstance(call, asyncio.Task):
            return await _in_time(cast("asyncio.Future[T]", call), seconds, _late(operation, seconds))
        task: asyncio.Future[T] = asyncio.ensure_future(call)
        try:
            before = moves and moves()
            while not (await asyncio.wait([task], timeout=seconds))[0]:
                now = moves and moves()
                if now == before:
                    await self.give_up(task)
                    break
                before = now
        except asyncio.CancelledError:
            await self.give_up(task)
            raise
        if task.done() and not task.cancelled():
            return task.result()
        raise _late(operation, seconds)

    async def hedged(self, begin: Callable[[], Awaitable[T]], undo: Callable[[T], object] = lambda _: None) -> T:
        """The first good answer of two, of which the second is asked only when the first one is late. ``undo`` gets
        an answer that came second."""
        racers = [asyncio.ensure_future(begin())]
        try:
            done, _ = await asyncio.wait(racers, timeout=self.resilience.hedge_seconds)
            if done:
                return racers.pop().result()
            self.statistics.hedges += 1
            racers.append(asyncio.ensure_future(begin()))
            left = set(racers)
            while True:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                good = [task for task in done if task.exception() is None]
                if good or not left:
                    winner = good[0] if good else racers[0]
                    self.statistics.hedges_won += bool(good) and winner is racers[1]
                    racers.remove(winner)
                    return winner.result()
        finally:
            for task in racers:
                task.add_done_callback(lambda late: late.cancelled() or late.exception() or undo(late.result()))
                self.let_go(task)

    def let_go(self, task: "asyncio.Future[Any]") -> None:
        """Cancel it, and look after it until it ends."""
        task.cancel()
        if not task.done():
            self._stragglers.add(task)
            task.add_done_callback(self._stragglers.discard)
        task.add_done_callback(_look_away)

    async def give_up(self, task: "asyncio.Future[Any]") -> None:
        """Cancel it, and wait a moment for its end: what does not end by then is looked after until it does."""
        self.let_go(task)
        if not task.done():
            await asyncio.wait([task], timeout=GRACE_SECONDS)

    async def close(self) -> None:
        if self._stragglers:
            await asyncio.wait(self._stragglers, timeout=GRACE_SECONDS)


def _late(operation: Operation, seconds: float) -> Unavailable:
    return Unavailable(f"no answer to {operation.value} within {seconds:g} s", reason="timeout")


async def _in_time(future: "asyncio.Future[T]", seconds: float, late: Unavailable) -> T:
    """A future that somebody else is to set: nothing is cancelled, it is only not waited for any longer."""

    def give_up() -> None:
        if not future.done():
            future.set_exception(late)

    timer = asyncio.get_running_loop().call_later(seconds, give_up)
    try:
        return await future
    finally:
        timer.cancel()


def _look_away(task: "asyncio.Future[Any]") -> None:
    """Nobody wants the outcome: have no warning about an error that was never seen."""
    if not task.cancelled():
        task.exception()
