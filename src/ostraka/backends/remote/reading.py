"""A read of any length, made of ranges of bounded size: the first as it comes, the next ones fetched ahead of it.

One connection seldom fills a line; several ranges at once do, and a range that is lost costs no more than itself. All
of them are of the version that the first one met.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

from ostraka.backends.remote.service import Got, Service
from ostraka.errors import Truncated
from ostraka.host import Buffer
from ostraka.limits import Limits


class Ranges:
    """The bytes from ``begin`` to ``end`` of what ``first`` has met; ``first`` brings those up to ``ahead_from``."""

    def __init__(self, service: Service, key: str, first: Got, begin: int, end: int, limits: Limits) -> None:
        self._service = service
        self._key = key
        self._first = first
        self._begin = begin
        self._end = end
        self._limits = limits
        self._next = min(
            end, begin + limits.remote_range_size
        )  # where the first range that is not yet asked for begins
        self._ahead: deque[asyncio.Task[list[Buffer]]] = deque()

    async def pieces(self) -> AsyncGenerator[Buffer, None]:
        first_end = self._next
        self._look_ahead()
        async for piece in _of_length(self._first.pieces, first_end - self._begin, self._key):
            yield piece
        while self._ahead:
            pieces = await self._ahead.popleft()
            self._look_ahead()
            for number, piece in enumerate(pieces):
                pieces[number] = b""  # given back as it is used
                yield piece

    def _look_ahead(self) -> None:
        while self._next < self._end and len(self._ahead) < self._limits.remote_ranges_ahead_max:
            size = min(self._limits.remote_range_size, self._end - self._next)
            self._ahead.append(asyncio.create_task(self._fetched(self._next, size)))
            self._next += size

    async def _fetched(self, offset: int, size: int) -> list[Buffer]:
        async with self._service.get(self._key, offset, size, version=self._first.version) as got:
            return [piece async for piece in _of_length(got.pieces, size, self._key)]

    async def close(self) -> None:
        """Give up what was fetched ahead."""
        if not self._ahead:
            return
        tasks, self._ahead = list(self._ahead), deque()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def whole(pieces: AsyncIterator[Buffer], size: int, key: str) -> bytes:
    """The bytes of one range; Truncated (reason "body") if they are not ``size``."""
    body = b"".join([piece async for piece in pieces])
    if len(body) != size:
        raise Truncated(f"{key}: the store sent {len(body)} of {size} bytes", reason="body")
    return body


async def _of_length(pieces: AsyncIterator[Buffer], size: int, key: str) -> AsyncIterator[Buffer]:
    """The pieces; Truncated (reason "body") if they are not ``size`` bytes."""
    done = 0
    async for piece in pieces:
        done += len(piece)
        if done > size:
            raise Truncated(f"{key}: the store sent more than the {size} bytes that were asked for", reason="body")
        yield piece
    if done < size:
        raise Truncated(f"{key}: the store sent {done} of {size} bytes", reason="body")
