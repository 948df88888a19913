"""A lane on which one body is hashed, in order, in a worker thread, while the loop receives and stores.

MD5 is the wall of a single PUT (0.8 GB/s a core): the thread goes on for as long as pieces are waiting and never
returns to the loop in between. What waits of one buffer it hashes in one call: after each it has to have the
interpreter's lock again, and on a busy machine it stood still for nearly as long as MD5 itself took.
"""

import asyncio
import contextlib
from collections import deque
from concurrent.futures import Executor

from ostraka.host import Buffer
from ostraka.objects.types import Digest

NOBODY = 1 << 63


class Stopped(Exception):
    """The body was given up before it was hashed."""


class Lane:
    """Feed pieces from the loop; wait until so many bytes were hashed. A piece must stay unchanged until then."""

    __slots__ = (
        "_digest",
        "_error",
        "_executor",
        "_fed",
        "_hashed",
        "_loop",
        "_queue",
        "_running",
        "_waiters",
        "_want",
    )

    def __init__(self, digest: Digest, executor: Executor | None) -> None:
        self._digest = digest
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[Buffer, int, int]] = deque()  # a buffer, and what of it is to be hashed
        self._fed = 0
        self._hashed = 0  # written by the worker only
        self._running = False
        self._error: BaseException | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._want = NOBODY  # the lowest offset that is waited for; the worker reads it

    def feed(self, buffer: Buffer, start: int, end: int) -> None:
        """The next bytes are ``buffer[start:end]``; of one buffer each piece begins where the one before it ended."""
        self._queue.append((buffer, start, end))
        self._fed += end - start
        if not self._running:
            self._run()

    async def reached(self, offset: int) -> None:
        """Wait until the first ``offset`` bytes are hashed. Raises what the digest raised."""
        while self._hashed < offset and self._error is None:
            await self._wait(offset)
        if self._error is not None:
            raise self._error

    async def drained(self) -> None:
        """Wait until all that was fed is hashed."""
        await self.reached(self._fed)

    async def stop(self) -> None:
        """Forget what waits, and wait until the worker lets go of the last piece. Others who wait here get Stopped."""
        self._queue.clear()
        self._error = self._error or Stopped()
        self._wake(everybody=True)
        while self._running:
            await self._wait(self._fed + 1)

    async def _wait(self, offset: int) -> None:
        turn = self._loop.create_future()
        self._waiters.append((offset, turn))
        self._want = min(self._want, offset)
        if self._hashed >= offset:  # the worker passed it before it could see our wish
            self._wake()
        await turn

    def _run(self) -> None:
        self._running = True
        self._loop.run_in_executor(self._executor, self._drain)

    def _drain(self) -> None:
        queue, update = self._queue, self._digest.update
        try:
            while True:
                try:
                    buffer, start, end = queue.popleft()
                except IndexError:
                    break
                with contextlib.suppress(IndexError):  # that was all, or `stop` cleared it
                    while queue[0][0] is buffer:
                        end = queue.popleft()[2]
                update(memoryview(buffer)[start:end])
                self._hashed += end - start
                del buffer
                if self._hashed >= self._want:
                    self._loop.call_soon_threadsafe(self._wake)
        except BaseException as error:
            self._error = error
            queue.clear()
        self._loop.call_soon_threadsafe(self._paused)

    def _paused(self) -> None:
        self._running = False
        if self._queue and self._error is None:  # fed after the worker saw the queue empty
            self._run()
        else:
            self._wake(everybody=True)

    def _wake(self, everybody: bool = False) -> None:
        """Those who were woken look for themselves."""
        waiting, self._waiters = self._waiters, []
        for offset, turn in waiting:
            if turn.done():
                continue
            if everybody or self._hashed >= offset:
                turn.set_result(None)
            else:
                self._waiters.append((offset, turn))
        self._want = min((offset for offset, _ in self._waiters), default=NOBODY)
