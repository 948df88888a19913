"""Room for bytes: what may be held at once, handed out first come first served."""

import asyncio
from collections import deque

from ostraka.errors import Overloaded


class Room:
    """So many bytes. Of one event loop."""

    def __init__(self, size: int, wait_seconds_max: float) -> None:
        self._size = size
        self._free = size
        self._wait_seconds_max = wait_seconds_max
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> int:
        """What was taken, to be given back: ``size``, or all that there is. Overloaded if none comes free in time."""
        size = min(size, self._size)
        if not self._waiting and size <= self._free:
            self._free -= size
            return size
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give(size)
            else:
                self._waiting.remove((size, turn))
                self._serve()
            if isinstance(error, TimeoutError):
                raise Overloaded("no room for another part: too many uploads at once", reason="timeout") from None
            raise
        return size

    def give(self, size: int) -> None:
        self._free += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= size
                turn.set_result(None)
