"""What is lent for a time, a token or temporary keys: fetched once for all who want it, and anew before it expires."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ostraka.errors import OstrakaError
from ostraka.host import Clock

EARLY_SECONDS = 300.0  # before the end, from when on it is fetched anew
AGAIN_SECONDS = 10.0  # after a failure to fetch it anew, while the old one is still good

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Lent(Generic[T_co]):
    """A value, and until when it is good (seconds since 1970; infinite for ever)."""

    value: T_co
    until: float = float("inf")


def always(value: T, clock: Clock) -> "Expiring[T]":
    """What is at hand and stays good."""

    async def lend() -> Lent[T]:
        return Lent(value)

    return Expiring(lend, clock)


class Expiring(Generic[T_co]):
    """The value that is good now. Of one event loop."""

    def __init__(self, fetch: Callable[[], Awaitable[Lent[T_co]]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lent: Lent[T_co] | None = None
        self._fetch_from = 0.0
        self._turn = asyncio.Lock()

    async def get(self) -> T_co:
        """Raises what fetching raised, unless the last value is still good."""
        lent = self._lent
        if lent is not None and self._clock.time() < self._fetch_from:
            return lent.value
        async with self._turn:
            if self._lent is None or self._clock.time() >= self._fetch_from:
                await self._renew()
            assert self._lent is not None
            return self._lent.value

    async def _renew(self) -> None:
        now = self._clock.time()
        try:
            self._lent = await self._fetch()
        except OstrakaError:
            if self._lent is None or now >= self._lent.until:
                raise
            self._fetch_from = now + AGAIN_SECONDS
        else:
            # of a short loan, half is used: asking for each request would be worse
            self._fetch_from = max(self._lent.until - EARLY_SECONDS, (now + self._lent.until) / 2)
