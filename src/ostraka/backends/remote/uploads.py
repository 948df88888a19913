"""What is written to a store: at once if it is small, in parts if it is large or of unknown size.

Parts are gathered in memory and sent several at a time. The bytes that all uploads of a backend hold together are
bounded: who finds no room waits, and gives up after a while. An upload that fails or is cancelled is aborted, also if
that happens while it is being begun.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack
from functools import partial
from typing import Any

from ostraka.backends.remote.room import Room
from ostraka.backends.remote.service import Service
from ostraka.errors import OstrakaError, TooLarge
from ostraka.host import Buffer
from ostraka.limits import MIB, Limits

# Of the parts of an upload of unknown size: up to which of them, as a share of all that there may be, each is how many
# times the first. With S3's 10,000 of 16 MiB that makes 1.2 TiB.
GROWTH = ((0.2, 1), (0.6, 4), (1.0, 16))

_log = logging.getLogger("ostraka.backends")


class Uploads:
    """All uploads of one backend."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._room = Room(limits.remote_upload_bytes_max, limits.remote_answer_seconds_max)
        self._after: set[asyncio.Task[Any]] = set()  # what goes on when its caller was cancelled

    async def store(self, key: str, pieces: AsyncIterator[Buffer], size: int | None) -> str:
        """Keep what the pieces hold, which is ``size`` bytes if that is known; the ETag."""
        source = _Gathered(pieces)
        wanted = self._part_size(1, size)
        with await self._holding(wanted) as holding:
            if not await source.more_than(wanted):
                return await self._service.put(key, source.take(wanted))
            return await self.in_parts(key, partial(self._fill, source, size, holding.pop_all()))

    async def in_parts(self, key: str, fill: Callable[["Parts"], Awaitable[None]], *, if_absent: bool = False) -> str:
        """Publish what ``fill`` adds; the ETag. Whatever goes wrong on the way, the upload is aborted."""
        parts = Parts(key, await self._begun(key), self._limits.remote_parts_at_once_max)
        try:
            await fill(parts)
            await parts.finish()
            return await self._service.complete(key, parts.upload, parts.told, if_absent=if_absent)
        except BaseException:
            await parts.cancel()
            await asyncio.shield(self._kept(self._abort(key, parts.upload)))
            raise

    async def _fill(self, source: "_Gathered", size: int | None, holding: ExitStack, parts: "Parts") -> None:
        more = True
        while more:
            with holding:
                if len(parts.told) == self._service.part_count_max:
                    raise TooLarge(f"{parts.key}: more than can be sent without its size: declare it", reason="size")
                wanted = self._part_size(len(parts.told) + 1, size)
                more = await source.more_than(wanted)
                put = partial(self._service.put_part, parts.key, parts.upload, body=source.take(wanted))
                await parts.add(put, holding.pop_all())
            holding = await self._holding(wanted) if more else holding

    async def _holding(self, size: int) -> ExitStack:
        """Room for so many bytes, given back when the stack closes."""
        held = await self._room.take(size)
        stack = ExitStack()
        stack.callback(self._room.give, held)
        return stack

    def part_size(self, size: int) -> int:
        """Of the parts of so many bytes; 0 if they are sent at once."""
        return 0 if size < self._limits.remote_multipart_size_min else self._part_size(1, size)

    def _part_size(self, number: int, size: int | None) -> int:
        """Of part ``number``; of all that there is if it is sent at once."""
        first, count = self._limits.remote_part_size, self._service.part_count_max
        if size is None:
            return first * next(times for share, times in GROWTH if number <= share * count)
        if size < self._limits.remote_multipart_size_min:
            return size
        return max(first, -(-size // (count * MIB)) * MIB)

    # -- what must be ended even if its caller is

    async def _begun(self, key: str) -> str:
        beginning = self._kept(self._service.begin(key))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            self._kept(self._undo(key, beginning))
            raise

    async def _undo(self, key: str, beginning: asyncio.Task[str]) -> None:
        try:
            upload = await beginning
        except OstrakaError:
            return
        await self._abort(key, upload)

    async def _abort(self, key: str, upload: str) -> None:
        try:
            await self._service.abort(key, upload)
        except OstrakaError as error:
            _log.warning("an upload of %s is left behind in %s: %s", key, self._service.name, error)

    def _kept(self, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(call)
        self._after.add(task)
        task.add_done_callback(self._after.discard)
        return task

    async def close(self) -> None:
        """Wait for what outlived its caller."""
        while self._after:
            await asyncio.gather(*self._after, return_exceptions=True)


class _Gathered:
    """A source's pieces, taken in blocks."""

    def __init__(self, pieces: AsyncIterator[Buffer]) -> None:
        self._pieces = pieces
        self._parts: deque[Buffer] = deque()
        self._held = 0

    async def more_than(self, size: int) -> bool:
        """Gather until there are more bytes than these, or the source has ended; whether there are."""
        while self._held <= size:
            piece = await anext(self._pieces, None)
            if piece is None:
                return False
            self._parts.append(bytes(piece))  # a copy, unless they are bytes: the source may use its buffer again
            self._held += len(self._parts[-1])
        return True

    def take(self, size: int) -> bytes:
        """The first ``size`` bytes that were gathered, or all of them."""
        taken: list[Buffer] = []
        left = min(size, self._held)
        self._held -= left
        while left:
            part = self._parts.popleft()
            if len(part) > left:
                self._parts.appendleft(memoryview(part)[left:])
                part = memoryview(part)[:left]
            left -= len(part)
            taken.append(part)
        return b"".join(taken)


class Parts:
    """The parts of one upload on their way."""

    def __init__(self, key: str, upload: str, at_once_max: int) -> None:
        self.key = key
        self.upload = upload
        self.told: list[str] = []  # what the store said of each, in order; "" while it is on its way
        self._at_once_max = at_once_max
        self._running: set[asyncio.Task[None]] = set()

    async def add(self, send: Callable[[int], Awaitable[str]], holding: ExitStack | None = None) -> None:
        """Begin to send the next part, given its number, once few enough are on their way. What it holds is given back
        when it is sent."""
        with holding or ExitStack() as holding:
            while len(self._running) >= self._at_once_max:
                await self._some()
            self.told.append("")
            self._running.add(asyncio.create_task(self._one(send, len(self.told), holding.pop_all())))

    async def _one(self, send: Callable[[int], Awaitable[str]], number: int, holding: ExitStack) -> None:
        with holding:
            self.told[number - 1] = await send(number)

    async def _some(self) -> None:
        done, self._running = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for error in [task.exception() for task in done]:
            if error is not None:
                raise error

    async def finish(self) -> None:
        while self._running:
            await self._some()

    async def cancel(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
