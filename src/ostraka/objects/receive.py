"""Receiving a body: its hash, its storage and the next bytes from the network overlap, and memory stays bounded.

A body that is small and already here is hashed and placed at once. A large one is received straight into chunk
buffers; pieces go to the hashing lane as they come; chunks are stored up to limits.chunks_in_flight_max at a time; at
most as many chunks lie in memory as are in flight, wait for one increment, and wait to be hashed.
"""

import asyncio
from collections import deque

from ostraka.chunks.types import ChunkBuffer, Placed, Recipe
from ostraka.errors import TooLarge, Truncated
from ostraka.host import Buffer
from ostraka.objects.core import Core
from ostraka.objects.hashing import Lane
from ostraka.objects.intake import Intake, embedded_size_max
from ostraka.objects.types import Digest, Source

HASH_ON_LOOP_MAX = 16 << 10  # hashing this much (20 us) is cheaper than the way to a worker thread (50 us) and back


async def receive(core: Core, source: Source, digest: Digest, recipe: Recipe, *, inline_max: int) -> Intake:
    """Store the whole body and feed all of it to the digest, which the caller finishes.

    ``inline_max``: -1 when the body must not ride inline. Raises Truncated, TooLarge, Full and what chunks raise;
    nothing is left behind then, except what `Core.settle` still gives up.
    """
    limits = core.limits
    core.room()
    body = source.read_now()
    if body is not None:
        if len(body) > limits.pack_size_max:
            return await _Stream(core, _Here(body), digest, recipe, len(body)).run()
        return await whole(core, body, digest, recipe, inline_max)
    length = source.length
    if length is not None:
        if length > limits.put_size_max:
            raise TooLarge(f"a body of {length} bytes; at most {limits.put_size_max} in one request", reason="entity")
        if length <= limits.pack_size_max:
            small = bytearray(length)
            await _fill(source, small)
            return await whole(core, small, digest, recipe, inline_max)
    stream = _Stream(core, source, digest, recipe, length)
    intake = await stream.run()
    if stream.small is not None:  # of unknown length, and it ended early: hashed already
        return await whole(core, stream.small, None, recipe, inline_max)
    return intake


async def whole(core: Core, body: Buffer, digest: Digest | None, recipe: Recipe, inline_max: int) -> Intake:
    """Store a body that is all here and small. ``digest`` None: it was hashed."""
    size = len(body)
    if size <= inline_max:
        if digest is not None:
            digest.update(body)
        return Intake(core, size, bytes(body))
    intake = Intake(core, size)
    if not size:
        return intake
    if digest is None or size <= HASH_ON_LOOP_MAX:
        if digest is not None:
            digest.update(body)
        intake.placed.append(await core.chunks.place_small(body, recipe))
        return intake
    lane = Lane(digest, core.executor)
    lane.feed(body, 0, size)
    try:
        intake.placed.append(await core.chunks.place_small(body, recipe))
        await lane.drained()
    except BaseException:
        intake.discard()
        core.spawn(lane.stop())
        raise
    return intake


async def _fill(source: Source, body: bytearray) -> None:
    view, have = memoryview(body), 0
    while have < len(body):
        count = await source.read_into(view[have:])
        if not count:
            raise Truncated(f"the body ended after {have} of {len(body)} bytes", reason="body")
        have += count
    await _expect_end(source)


async def _expect_end(source: Source) -> None:
    """The source has its last word (trailers, a signature) after the last byte; one more byte is a lie."""
    if await source.read_into(memoryview(bytearray(1))):
        raise Truncated("the body is longer than declared", reason="body")


class _Here:
    """A body that came as one buffer, too large for a pack."""

    def __init__(self, body: Buffer) -> None:
        self._body = memoryview(body)
        self.length: int | None = len(body)

    async def read_into(self, view: memoryview) -> int:
        piece = self._body[: len(view)]
        view[: len(piece)] = piece
        self._body = self._body[len(piece) :]
        return len(piece)

    def read_now(self) -> Buffer | None:
        return None


class _Stream:
    """One large body. Tasks: up to chunks_in_flight_max placements and one increment, all ended by `run`."""

    def __init__(self, core: Core, source: Source, digest: Digest, recipe: Recipe, length: int | None) -> None:
        self.small: bytes | None = None
        self._core = core
        self._source = source
        self._recipe = recipe
        self._length = length
        self._intake = Intake(core)
        self._lane = Lane(digest, core.executor)
        self._placing: deque[asyncio.Task[Placed]] = deque()
        self._increment: asyncio.Task[None] | None = None
        self._filling: ChunkBuffer | None = None
        self._paged = length is not None and length > embedded_size_max(core)

    async def run(self) -> Intake:
        try:
            if await self._receive():
                while self._placing:
                    await self._next_placed()
                if self._increment is not None:
                    await self._increment
                if self._paged and self._intake.draft is None:
                    self._intake.new_draft()
            await self._lane.drained()
        except BaseException:
            self._core.spawn(self._undo())
            raise
        return self._intake

    async def _receive(self) -> bool:
        """Take in the whole body; False when it turned out to be small, and is in ``small``."""
        core, limits, lane = self._core, self._core.limits, self._lane
        chunk_size, intake = limits.chunk_size, self._intake
        backlog = chunk_size * limits.chunks_in_flight_max
        size_max = limits.put_size_max if self._length is None else self._length
        ended = False
        while not ended:
            await lane.reached(intake.size - backlog)
            room = chunk_size if self._length is None else min(chunk_size, self._length - intake.size)
            if core.chunks.scarce(room):
                await self._let_go()
            self._filling = await core.chunks.buffer(room)
            filled, ended = await self._fill(self._filling.view[:room], size_max - intake.size)
            if ended and not intake.size and filled <= limits.pack_size_max:
                await lane.drained()
                self.small = bytes(self._filling.view[:filled])
                self._release_filling()
                return False
            intake.size += filled
            if not filled:
                self._release_filling()
                break
            await self._place(filled)
            if intake.size == self._length:
                await _expect_end(self._source)
                break
        if self._length is not None and intake.size != self._length:
            raise Truncated(f"the body ended after {intake.size} of {self._length} bytes", reason="body")
        return True

    async def _fill(self, view: memoryview, size_max: int) -> tuple[int, bool]:
        """Fill view from the source; returns the bytes, and whether the source ended."""
        filled, room = 0, len(view)
        while filled < room:
            count = await self._source.read_into(view[filled:])
            if not count:
                return filled, True
            self._lane.feed(view, filled, filled + count)
            filled += count
            if filled > size_max:
                raise TooLarge(f"a body of more than {self._core.limits.put_size_max} bytes", reason="entity")
        return filled, False

    def _release_filling(self) -> None:
        assert self._filling is not None
        self._filling.release()
        self._filling = None

    async def _place(self, length: int) -> None:
        core, intake, limits = self._core, self._intake, self._core.limits
        while len(self._placing) >= limits.chunks_in_flight_max:
            await self._next_placed()
        buffer, self._filling = self._filling, None
        assert buffer is not None
        self._placing.append(asyncio.get_running_loop().create_task(core.chunks.place(buffer, length, self._recipe)))
        while self._placing and self._placing[0].done():
            await self._next_placed()
        count = len(intake.placed)
        if not self._paged:
            self._paged = count + len(self._placing) > limits.slices_embedded_max
        if self._paged and count >= limits.chunks_per_commit_max:
            await self._begin_increment()

    async def _begin_increment(self) -> None:
        if self._increment is not None:
            await self._increment
        batch, self._intake.placed = self._intake.placed, []
        if self._intake.draft is None:
            self._intake.new_draft()
        self._increment = asyncio.get_running_loop().create_task(self._reference(batch))

    async def _let_go(self) -> None:
        """We will have to wait for memory: hold none meanwhile, lest requests wait for one another."""
        while self._placing:
            await self._next_placed()
        if self._intake.placed:
            self._paged = True
            await self._begin_increment()
        if self._increment is not None:
            await self._increment

    async def _next_placed(self) -> None:
        task = self._placing[0]
        await asyncio.wait([task])  # not the task itself: if we are cancelled, it goes on, and _undo sees to it
        self._placing.popleft()
        self._intake.placed.append(task.result())

    async def _reference(self, batch: list[Placed]) -> None:
        """Commit an increment; its memory may go when it is hashed too."""
        await self._intake.commit_increment(batch)
        assert self._intake.draft is not None
        try:
            await self._lane.reached(self._intake.draft.size)
        finally:
            for placed in batch:
                placed.release()

    async def _undo(self) -> None:
        """After a failure: end what runs, then give back all that was stored."""
        await self._lane.stop()
        for task in self._placing:
            task.cancel()
        for outcome in await asyncio.gather(*self._placing, return_exceptions=True):
            if not isinstance(outcome, BaseException):
                self._intake.placed.append(outcome)
        if self._increment is not None:
            await asyncio.gather(self._increment, return_exceptions=True)
        if self._filling is not None:
            self._release_filling()
        self._intake.discard()
