"""Receiving a body: its hash, its storage and the next bytes from the network overlap, and memory stays bounded.

A body that is small and already here is hashed and placed at once. A large one is received straight into chunk
buffers; pieces go to the hashing lane as they come; chunks are stored up to limits.in_flight_bytes_max at a time; at
most as much lies in memory as is in flight, waits for one increment, and waits to be hashed.

Where content decides about cuts, more was received than a chunk when its end is found. What lies behind it is copied
to the front of the next buffer before the chunk is stored, and hashed there; when there is no room for another buffer,
it is set aside meanwhile, for a request that holds buffers never waits for more.
"""

import asyncio
from collections import deque
from typing import NamedTuple

from ostraka.chunks.cutting import cutter
from ostraka.chunks.types import ChunkBuffer, Placed, Recipe
from ostraka.errors import Overloaded, TooLarge, Truncated
from ostraka.host import Buffer
from ostraka.limits import KIB
from ostraka.objects.core import Core
from ostraka.objects.hashing import Lane
from ostraka.objects.intake import Intake
from ostraka.objects.types import Digest, Source

HASH_ON_LOOP_MAX = 16 << 10  # hashing this much (20 us) is cheaper than the way to a worker thread (50 us) and back
CUT_ON_LOOP_MAX = 128 * KIB  # looking through this much takes 40 us


async def receive(core: Core, source: Source, digest: Digest, recipe: Recipe, *, inline_max: int) -> Intake:
    """Store the whole body and feed all of it to the digest, which the caller finishes.

    ``inline_max``: -1 when the body must not ride inline. Raises Truncated, TooLarge, Full and what chunks raise;
    nothing is left behind then, except what `Core.settle` still gives up.
    """
    limits = core.limits
    core.room()
    await core.throttle()
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


class _Placing(NamedTuple):
    """A chunk that is being stored."""

    task: asyncio.Task[Placed]
    memory: int  # of its buffer


class _Stream:
    """One large body. Tasks: placements of up to in_flight_bytes_max and one increment, all ended by `run`."""

    def __init__(self, core: Core, source: Source, digest: Digest, recipe: Recipe, length: int | None) -> None:
        self.small: bytes | None = None
        self._core = core
        self._source = source
        self._recipe = recipe
        self._cutter = cutter(recipe.cut, core.limits)
        self._length = length
        self._size_max = core.limits.put_size_max if length is None else length
        self._intake = Intake(core)
        self._lane = Lane(digest, core.executor)
        self._placing: deque[_Placing] = deque()
        self._placing_memory = 0
        self._placed_memory = 0  # of what waits for an increment
        self._increment: asyncio.Task[None] | None = None
        self._filling: ChunkBuffer | None = None
        self._filled = 0
        self._fed = 0  # bytes of the buffer that the lane has: never any behind the cut
        self._ended = False
        self._paged = length is not None and length > core.limits.embedded_bytes_max

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
        intake, lane, limits = self._intake, self._lane, self._core.limits
        while intake.size != self._length:
            if intake.size:
                await self._core.throttle()
            await lane.reached(intake.size - limits.in_flight_bytes_max)
            if self._filling is None:
                if self._core.chunks.scarce(self._room()):
                    await self._let_go()
                self._filling = await self._core.chunks.buffer(self._room())
            size = await self._next_cut()
            if self._length is None and self._ended and not intake.size and self._filled <= limits.pack_size_max:
                self._feed(self._filled)
                await lane.drained()
                self.small = bytes(self._filling.view[: self._filled])
                self._release_filling()
                return False
            if not size:
                self._release_filling()
                break
            await self._place(size)
        if self._length is not None:
            if intake.size != self._length:
                raise Truncated(f"the body ended after {intake.size} of {self._length} bytes", reason="body")
            await _expect_end(self._source)
        return True

    def _room(self) -> int:
        """Bytes of a buffer for what follows what was placed."""
        most = self._cutter.stops[-1]
        return most if self._length is None else min(most, self._length - self._intake.size)

    async def _next_cut(self) -> int:
        """Receive until it is known where the chunk that is being filled ends; 0: nothing was left."""
        for stop in self._cutter.stops:
            await self._fill(min(stop, self._room()))
            size = await self._cut(self._ended or self._intake.size + self._filled == self._length)
            if size or not self._filled:
                break
        return size

    async def _fill(self, target: int) -> None:
        """Receive until the buffer holds so much, or the source has ended."""
        assert self._filling is not None
        view = self._filling.view
        while self._filled < target and not self._ended:
            count = await self._source.read_into(view[self._filled : target])
            if not count:
                self._ended = True
                return
            self._filled += count
            self._feed(min(self._filled, self._cutter.minimum))
            if self._intake.size + self._filled > self._size_max:
                raise TooLarge(f"a body of more than {self._core.limits.put_size_max} bytes", reason="entity")

    def _feed(self, end: int) -> None:
        """Give the lane the buffer's bytes up to there."""
        assert self._filling is not None
        if end > self._fed:
            self._lane.feed(self._filling.view, self._fed, end)
            self._fed = end

    async def _cut(self, last: bool) -> int:
        assert self._filling is not None
        data = self._filling.view[: self._filled]
        if len(data) - self._cutter.minimum <= CUT_ON_LOOP_MAX:
            return self._cutter.cut(data, last)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._core.executor, self._cutter.cut, data, last)

    def _release_filling(self) -> None:
        assert self._filling is not None
        self._filling.release()
        self._filling, self._filled, self._fed = None, 0, 0

    async def _place(self, size: int) -> None:
        """Begin to store the first ``size`` bytes of the buffer; what follows them goes into the next one."""
        limits, buffer = self._core.limits, self._filling
        assert buffer is not None
        memory, rest = len(buffer.view), buffer.view[size : self._filled]
        while self._placing and (
            len(self._placing) >= limits.chunks_in_flight_max
            or self._placing_memory + memory > limits.in_flight_bytes_max
        ):
            await self._next_placed()
        self._feed(size)
        self._intake.size += size
        aside: bytes | None = None
        if not rest:
            self._filling, self._filled, self._fed = None, 0, 0
        elif not self._core.chunks.scarce(self._room()):
            self._go_on_in(await self._core.chunks.buffer(self._room()), rest)
        else:
            aside = self._set_aside(rest)
        storing = self._core.chunks.place(buffer, size, self._recipe)
        self._placing.append(_Placing(asyncio.get_running_loop().create_task(storing), memory))
        self._placing_memory += memory
        if aside is not None:
            await self._wait_with(aside)
        while self._placing and self._placing[0].task.done():
            await self._next_placed()
        await self._increment_when_due()

    def _go_on_in(self, buffer: ChunkBuffer, rest: Buffer) -> None:
        size = len(rest)
        buffer.view[:size] = rest
        self._filling, self._filled, self._fed = buffer, size, 0
        self._feed(min(size, self._cutter.minimum))

    def _set_aside(self, rest: memoryview) -> bytes:
        core, limits = self._core, self._core.limits
        if core.aside_bytes + len(rest) > limits.aside_bytes_max:
            raise Overloaded("no room for what follows a chunk: limits.aside_bytes_max", reason="buffers")
        self._filling, self._filled, self._fed = None, 0, 0
        return bytes(rest)

    async def _wait_with(self, aside: bytes) -> None:
        """Go on in a new buffer, once there is room for one; meanwhile only these bytes are held."""
        core = self._core
        core.aside_bytes += len(aside)
        try:
            await self._let_go()
            self._go_on_in(await core.chunks.buffer(self._room()), aside)
        finally:
            core.aside_bytes -= len(aside)

    async def _increment_when_due(self) -> None:
        intake, limits = self._intake, self._core.limits
        count = len(intake.placed)
        if not self._paged:
            self._paged = (
                intake.size > limits.embedded_bytes_max or count + len(self._placing) > limits.slices_embedded_max
            )
        full = self._placed_memory >= limits.increment_bytes_max or count >= limits.chunks_per_commit_max
        if self._paged and full:
            await self._begin_increment()

    async def _begin_increment(self) -> None:
        if self._increment is not None:
            await self._increment
        batch, self._intake.placed, self._placed_memory = self._intake.placed, [], 0
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
        placing = self._placing[0]
        await asyncio.wait([placing.task])  # not the task itself: if we are cancelled, it goes on, and _undo sees to it
        self._placing.popleft()
        self._placing_memory -= placing.memory
        self._intake.placed.append(placing.task.result())
        self._placed_memory += placing.memory

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
        for placing in self._placing:
            placing.task.cancel()
        for outcome in await asyncio.gather(*(p.task for p in self._placing), return_exceptions=True):
            if not isinstance(outcome, BaseException):
                self._intake.placed.append(outcome)
        if self._increment is not None:
            await asyncio.gather(self._increment, return_exceptions=True)
        if self._filling is not None:
            self._release_filling()
        self._intake.discard()
