"""A state in memory: the same commits, nothing durable. For tests, and for what is built on a state."""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Sequence

from ostraka.errors import OstrakaError, TooLarge, Unavailable
from ostraka.limits import LIMITS, Limits
from ostraka.state.batch import measure, resolve
from ostraka.state.totals import Weighed, account
from ostraka.state.types import Committed, Mutation, Outcome, prefix_end


class MemoryState:
    """Keeps the contract of `State`; commits are applied at once, in the order of their calls."""

    def __init__(self, limits: Limits = LIMITS, weighed: Weighed | None = None) -> None:
        self._limits = limits
        self._rows: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []  # sorted
        self._sequence = 0
        self._open = True
        self.weighed = weighed or {}

    def get(self, key: bytes) -> bytes | None:
        self._check_open()
        return self._rows.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._check_open()
        self._check_count(len(keys))
        return [self._rows.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes | None, limit: int, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        self._check_open()
        self._check_count(limit)
        low = bisect_left(self._keys, start)
        high = len(self._keys) if end is None else max(low, bisect_left(self._keys, end))
        low, high = (max(low, high - limit), high) if reverse else (low, min(high, low + limit))
        keys = self._keys[low:high]
        if reverse:
            keys.reverse()
        return [(key, self._rows[key]) for key in keys]

    def first(self, prefix: bytes) -> tuple[bytes, bytes] | None:
        return next(iter(self.scan(prefix, prefix_end(prefix), 1)), None)

    async def commit(self, mutation: Mutation) -> Committed:
        outcome = (await self.commit_many([mutation]))[0]
        if isinstance(outcome, OstrakaError):
            raise outcome
        return outcome

    async def commit_many(self, mutations: Sequence[Mutation]) -> list[Outcome]:
        self._check_open()
        for mutation in mutations:
            measure(mutation, self._limits)
        await asyncio.sleep(0)  # as with a real engine, others may run before it is done
        self._check_open()
        batch = resolve(mutations, self._rows.get, self._sequence)
        account(batch, self._rows.get, self.weighed)
        for key, value in batch.rows.items():
            if value is not None:
                if key not in self._rows:
                    insort(self._keys, key)
                self._rows[key] = value
            elif self._rows.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
        self._sequence = batch.sequence
        return batch.outcomes

    @property
    def sequence(self) -> int:
        return self._sequence

    async def close(self) -> None:
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise Unavailable("the state is closed", reason="closed")

    def _check_count(self, count: int) -> None:
        if count > self._limits.scan_rows_max:
            raise TooLarge(f"{count} rows at once; at most {self._limits.scan_rows_max}", reason="state_scan")
