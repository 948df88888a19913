"""A reading in a task of its own, so that it can be waited for with a time limit, raced with another, and let go of.

The task enters and leaves the inner backend's ``open`` itself. A piece is fetched when it is asked for, not before: the
one before is its reader's until then.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from ostraka.backends.backend import Reading, Stat
from ostraka.host import Buffer

Opening = Callable[[], AbstractAsyncContextManager[Reading]]


class Feed:
    """One reading. ``task`` is its owner's to give up when it is not wanted any more."""

    def __init__(self, opening: Opening) -> None:
        self.opened: asyncio.Future[Stat] = asyncio.get_running_loop().create_future()
        self._asked: asyncio.Queue[asyncio.Future[Buffer | None]] = asyncio.Queue()
        self.task = asyncio.create_task(self._run(opening))

    async def _run(self, opening: Opening) -> None:
        waiting: asyncio.Future[Stat] | asyncio.Future[Buffer | None] = self.opened
        try:
            async with opening() as reading:
                if not self.opened.done():
                    self.opened.set_result(reading.stat)
                pieces = aiter(reading.pieces)
                while True:
                    waiting = asked = await self._asked.get()
                    piece = await anext(pieces, None)
                    if not asked.done():
                        asked.set_result(piece)
        except BaseException as error:
            if not waiting.done():
                waiting.set_exception(error if isinstance(error, Exception) else EOFError())
                waiting.exception()  # whoever waited may have gone
            if not isinstance(error, Exception):
                raise

    def next(self) -> "asyncio.Future[Buffer | None]":
        """The next piece, when it is there; None at the end. Not to be asked after an error."""
        asked: asyncio.Future[Buffer | None] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait(asked)
        return asked
