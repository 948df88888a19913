"""Chunks in memory, with honest counts: what `ostraka.objects` is tested over when no pool is wanted.

Bytes live in a dictionary and are gone with the object; what is known of them, and how many references each has, lives
in the state as with real chunks (table prefixes c, n and z, not in the format of real ones). A read of bytes that were
swept raises Corrupt, so that a reference given up too early is seen.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from blake3 import blake3

from ostraka.chunks.sealing import Domain
from ostraka.chunks.types import RECIPE, ChunkBuffer, Entry, Kind, Placed, Recipe
from ostraka.errors import Corrupt
from ostraka.host import Buffer, Host
from ostraka.limits import LIMITS, Limits
from ostraka.state import (
    Absent,
    Add,
    Delete,
    Ensure,
    Equals,
    Mutation,
    Operation,
    Precondition,
    Present,
    Put,
    Rejected,
    State,
    counter,
    prefix_end,
)

Target = tuple[int, bytes]  # kind, and the id (of a slot: with its number)


def target(entry: Entry) -> Target:
    return entry.kind, entry.id if entry.kind == Kind.CHUNK else entry.id + entry.slot.to_bytes(4, "big")


def _row(table: bytes, of: Target) -> bytes:
    return table + bytes([of[0]]) + of[1]


class MemoryBuffer:
    """A receive buffer that is counted while it is out."""

    def __init__(self, size: int, out: list[int]) -> None:
        self.view = memoryview(bytearray(size))
        self._out = out
        self._held = True
        out[0] += 1

    def release(self) -> None:
        if self._held:
            self._held = False
            self._out[0] -= 1


class MemoryPlaced:
    """Bytes that are kept, and what a commit needs to reference them."""

    def __init__(self, chunks: "MemoryChunks", entry: Entry, body: bytes, buffer: ChunkBuffer | None) -> None:
        self._chunks = chunks
        self._body = body
        self._buffer = buffer
        self.entry = entry
        of = target(entry)
        known = _row(b"c", of)
        self.preconditions: Sequence[Precondition] = ()
        self.operations: Sequence[Operation] = (Ensure(known, b""), Add(_row(b"n", of), 1))
        if chunks.state.get(known) is not None:  # a hit counts only while the chunk stands
            self.preconditions = (Present(known, "chunk"),)
        else:
            chunks.bodies[of] = body

    async def again(self) -> Placed:
        await asyncio.sleep(0)
        return MemoryPlaced(self._chunks, self.entry, self._body, self._buffer)

    def release(self) -> None:
        if self._buffer is not None:
            self._buffer.release()

    def abandon(self) -> None:
        self.release()


class MemoryChunks:
    """`chunks.types.Chunks` over a dictionary. ``buffers_out``: buffers that nobody gave back."""

    def __init__(self, state: State, host: Host | None = None, limits: Limits = LIMITS) -> None:
        self.state = state
        self.bodies: dict[Target, bytes] = {}
        self._host = host or Host()
        self._limits = limits
        self._out = [0]
        self._readers = 0

    @property
    def buffers_out(self) -> int:
        return self._out[0]

    @property
    def readers(self) -> int:
        """Reads that were begun and not ended."""
        return self._readers

    async def buffer(self, size: int | None = None) -> ChunkBuffer:
        await asyncio.sleep(0)
        return MemoryBuffer(self._limits.chunk_size if size is None else size, self._out)

    def scarce(self, size: int | None = None) -> bool:
        return False

    async def place(self, buffer: ChunkBuffer, length: int, recipe: Recipe = RECIPE) -> Placed:
        try:
            body = bytes(buffer.view[:length])
            buffer.view[length:] = b"\xee" * (len(buffer.view) - length)  # as a pool pads and encodes there
            await asyncio.sleep(0)
            hashed = blake3(body) if recipe.domain is None else blake3(body, key=recipe.domain.secret)
            entry = Entry(Kind.CHUNK, hashed.digest(), 0, length)
            return MemoryPlaced(self, entry, body, buffer)
        except BaseException:
            buffer.release()
            raise

    async def place_small(self, body: Buffer, recipe: Recipe = RECIPE) -> Placed:
        assert 0 < len(body) <= self._limits.pack_size_max
        await asyncio.sleep(0)
        entry = Entry(Kind.SLOT, self._host.random(16), 0, len(body), 7)
        return MemoryPlaced(self, entry, bytes(body), None)

    async def read(self, entry: Entry, offset: int, length: int, domain: Domain | None = None) -> AsyncIterator[Buffer]:
        """In pieces of a quarter chunk."""
        self._readers += 1
        try:
            piece = max(1, self._limits.chunk_size // 4)
            for at in range(offset, offset + length, piece):
                await asyncio.sleep(0)
                yield self._bytes(entry, at, min(piece, offset + length - at))
        finally:
            self._readers -= 1

    def read_now(self, entry: Entry, offset: int, length: int, domain: Domain | None = None) -> Buffer | None:
        return self._bytes(entry, offset, length)

    def _bytes(self, entry: Entry, offset: int, length: int) -> bytes:
        body = self.bodies.get(target(entry))
        start = entry.offset + offset
        if body is None or start + length > len(body) or offset + length > entry.length:
            raise Corrupt("these bytes were swept, or never were", reason="chunk")
        return body[start : start + length]

    def reference(self, entries: Sequence[Entry]) -> tuple[list[Precondition], list[Operation]]:
        return [], [Add(_row(b"n", target(entry)), 1) for entry in entries]

    async def dismantle(self, entries: Sequence[Entry]) -> tuple[list[Precondition], list[Operation]]:
        preconditions: list[Precondition] = []
        operations: list[Operation] = []
        for of, less in Counter(map(target, entries)).items():
            key = _row(b"n", of)
            value = self.state.get(key)
            preconditions.append(Equals(key, value, "count"))
            operations.append(Add(key, -less, drop_at=0))
            if value is not None and counter(value) == less:
                operations.append(Put(_row(b"z", of), b""))
        await asyncio.sleep(0)
        return preconditions, operations

    async def sweep(self, limit: int) -> int:
        swept = 0
        for zero, _ in self.state.scan(b"z", prefix_end(b"z"), limit):
            of = (zero[1], zero[2:])
            unreferenced = Absent(_row(b"n", of), "count")
            try:
                await self.state.commit(Mutation([unreferenced], [Delete(_row(b"c", of)), Delete(zero)]))
            except Rejected:
                await self.state.commit(Mutation((), [Delete(zero)]))
                continue
            self.bodies.pop(of, None)
            swept += 1
        return swept

    def counts(self) -> dict[Target, int]:
        """References per target, as the state counts them."""
        rows = self.state.scan(b"n", prefix_end(b"n"), self._limits.scan_rows_max)
        return {(key[1], key[2:]): counter(value) for key, value in rows}
