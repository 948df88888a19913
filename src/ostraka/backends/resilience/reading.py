"""A reading that goes on where it broke off, as long as what is read is still there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from ostraka.backends.backend import Backend, Reading, Stat
from ostraka.backends.resilience.calls import Calls
from ostraka.backends.resilience.feed import Feed
from ostraka.backends.resilience.policy import Budget, is_break, is_passing
from ostraka.backends.wrapper import Operation
from ostraka.errors import OstrakaError, PreconditionFailed, Truncated
from ostraka.host import Buffer


class ResumedReading:
    """The bytes of one version from ``offset``, ``size`` of them or all, over as many readings as it takes."""

    stat: Stat

    def __init__(self, calls: Calls, budget: Budget, inner: Backend, path: str, offset: int, size: int | None) -> None:
        self._calls = calls
        self._budget = budget
        self._inner = inner
        self._path = path
        self._offset = offset
        self._size = size
        self._end = 0
        self._feed: Feed | None = None
        self.replaced = False  # by another version, while it was read

    async def begin(self, if_match: str | None) -> None:
        """Open it; asked again like any call that reads."""
        while True:
            try:
                await self._open(self._size, if_match)
                break
            except OstrakaError as error:
                if not is_passing(error) or not await self._budget.allows_another():
                    raise
                self._calls.statistics.retries += 1
        end = self.stat.size if self._size is None else min(self.stat.size, self._offset + self._size)
        self._end = max(end, self._offset)

    async def _open(self, size: int | None, if_match: str | None) -> None:
        offset = self._offset

        def opening() -> AbstractAsyncContextManager[Reading]:
            return self._inner.open(self._path, offset=offset, size=size, if_match=if_match)

        def begin() -> "asyncio.Future[Stat]":
            self._feed = Feed(opening)
            return self._feed.opened

        if self._calls.resilience.hedge_seconds is None:
            try:
                self.stat = await self._calls.attempt(Operation.READ, begin)
            except BaseException:
                self._let_go()
                raise
            return

        async def one() -> Feed:
            feed = Feed(opening)
            try:
                await feed.opened
            except BaseException:
                self._calls.let_go(feed.task)
                raise
            return feed

        def undo(feed: Feed) -> None:
            self._calls.let_go(feed.task)

        self._feed = await self._calls.attempt(Operation.READ, lambda: self._calls.hedged(one, undo))
        self.stat = self._feed.opened.result()

    async def pieces(self) -> AsyncIterator[Buffer]:
        while self._offset < self._end:
            try:
                piece = await self._next()
            except OstrakaError as error:
                if not is_break(error):
                    raise
                await self._resume(error)
                continue
            self._budget.progress()
            self._offset += len(memoryview(piece).cast("B"))
            yield piece

    async def _next(self) -> Buffer:
        assert self._feed is not None
        piece = await self._calls.bounded(Operation.READ, self._feed.next())
        if piece is None:
            message = f"{self._path}: the store ended at {self._offset} of {self._end} bytes"
            raise Truncated(message, reason="body")
        return piece

    async def _resume(self, error: OstrakaError) -> None:
        """Open it anew where it broke off, the same version; the error if there is no more to be tried."""
        self._calls.trouble(error)
        while await self._budget.allows_another():
            await self.close()
            try:
                await self._open(self._end - self._offset, self.stat.etag)
            except PreconditionFailed:
                self.replaced = True
                message = f"{self._path}: it was replaced while it was read, after {self._offset} bytes"
                raise PreconditionFailed(message, reason="changed") from error
            except OstrakaError as again:
                if not is_passing(again):
                    raise
                error = again
                continue
            self._calls.statistics.resumed += 1
            return
        raise error

    def _let_go(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            self._calls.let_go(feed.task)

    async def close(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            await self._calls.give_up(feed.task)
