"""One writer at a time per key within a process: fewer lost races, and nothing more (law 8).

Correctness is the preconditions of each commit; another process never sees these locks.
"""

import asyncio
from collections import deque


class KeyLocks:
    """Locks by key, first come, first served. A key that nobody wants costs no memory."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[asyncio.Future[None]] | None] = {}

    def try_acquire(self, key: bytes) -> bool:
        """Take the lock if it is free: the way without waiting."""
        if key in self._waiting:
            return False
        self._waiting[key] = None
        return True

    async def acquire(self, key: bytes) -> None:
        if self.try_acquire(key):
            return
        queue = self._waiting[key]
        if queue is None:
            queue = self._waiting[key] = deque()
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(key)  # it was handed to us as we were cancelled
            raise

    def release(self, key: bytes) -> None:
        queue = self._waiting[key]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[key]

    def __len__(self) -> int:
        return len(self._waiting)
