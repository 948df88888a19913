"""`AsyncChunks`: the chunk store beneath the buckets, by itself.

A chunk is a run of bytes (at most 4 MiB) that is kept once, however many objects it is part of, under the keyed BLAKE3
of its bytes: an id means something in its own store only. A program may write chunks and hold them by their ids,
read any chunk or a range of it, and see where and how each is kept. Ranges are exact whatever is done to the bytes
below: frames may be compressed and sealed, shards lost.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from ostraka.chunks.rows import CHUNK_ID_SIZE, CHUNKS, ChunkRow, Health, chunk_counter_key, chunk_key, decode_chunk
from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Absent, Invalid
from ostraka.library import asked
from ostraka.pools.types import Stripe
from ostraka.state import counter, prefix_end
from ostraka.store.holdings import ChunkTotals, chunk_totals
from ostraka.store.store import Store

PAGE = 500

_id = re.compile(rf"[0-9a-f]{{{2 * CHUNK_ID_SIZE}}}").fullmatch


class ShardPlace(msgspec.Struct, frozen=True):
    """One shard. ``path``: the directory of its disk, "" while that is not here. ``parity``: it holds no plain part."""

    index: int
    disk: int
    path: str
    parity: bool


class StripeInfo(msgspec.Struct, frozen=True):
    """The k+m shards of a chunk, any k of which give it back. Sizes in bytes."""

    write_id: str
    k: int
    m: int
    length: int
    shard_size: int
    shards: tuple[ShardPlace, ...]


class ChunkInfo(msgspec.Struct, frozen=True):
    """A chunk. ``length``: its bytes; ``stored_length``: as they are stored, frame table included. ``references``:
    how many slices of objects and holds name it; ``held``: those that are holds. ``health``: "good", or what is known
    against it."""

    id: str
    length: int
    stored_length: int
    references: int
    held: int
    health: str


class Slice(msgspec.Struct, frozen=True):
    """``length`` bytes of an object: those at ``offset`` of a chunk; of a pack if ``chunk`` is "" (small bodies)."""

    chunk: str
    offset: int
    length: int
    pack: str = ""
    slot: int = 0


class AsyncChunks:
    """The chunks of a store. Made by `AsyncStore.chunks`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write(self, data: bytes | bytearray | memoryview, *, id: str = "") -> ChunkInfo:
        """Store a chunk, or find it stored, and hold it until `delete`; durable when it returns.

        ``id``: what it must turn out to be, for who brings back a chunk that he knows: Invalid otherwise, and nothing
        is stored. A chunk that was found damaged is made whole by this. Raises also TooLarge, Full, Unavailable.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise Invalid(f"a chunk is bytes, not {type(data).__name__}", reason="type")
        expected = _bytes(id) if id else None
        entry = await self._store.objects.held.write(memoryview(data).cast("B"), expected)
        return self._info(entry.id, self._row(entry.id))

    async def delete(self, id: str) -> None:
        """Give up one hold. The chunk itself goes, after a grace, when no object and nobody else refers to it.

        Raises Absent, and Conflict for a chunk that is not held.
        """
        await self._store.objects.held.release(_bytes(id))

    async def get(self, id: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes of a chunk, or a range of them. Every byte was verified. Raises Absent, Corrupt, Unavailable."""
        return b"".join([piece async for piece in self.pieces(id, offset=offset, length=length)])

    async def pieces(self, id: str, *, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes]:
        """The same, piece by piece, in order."""
        asked.number("an offset", offset)
        if length is not None:
            asked.number("a length", length)
        name = _bytes(id)
        pins = self._store.pins
        token = pins.enter()
        try:
            size = self._row(name).length
            left = size - offset
            if offset < 0 or left < 0 or (length is not None and length < 0):
                raise Invalid(f"the chunk has {size} bytes: none at {offset}", reason="range")
            wanted = left if length is None else min(length, left)
            entry = Entry(Kind.CHUNK.value, name, 0, size)
            if wanted:
                async for piece in self._store.chunks.read(entry, offset, wanted):
                    yield bytes(piece)
        finally:
            pins.leave(token)

    async def info(self, id: str) -> ChunkInfo:
        """What is known of a chunk. Raises Absent."""
        name = _bytes(id)
        return self._info(name, self._row(name))

    async def exists(self, id: str) -> bool:
        return self._store.state.get(chunk_key(_bytes(id))) is not None

    async def stripe(self, id: str) -> StripeInfo:
        """Where a chunk's shards are. Raises Absent."""
        return self._stripe(self._row(_bytes(id)).stripe)

    async def list(self, *, start_after: str = "") -> AsyncIterator[ChunkInfo]:
        """Every chunk, in the order of ids. What is written or collected meanwhile may be seen or not."""
        start, end = CHUNKS if not start_after else chunk_key(_bytes(start_after)) + b"\0", prefix_end(CHUNKS)
        while True:
            page = self._store.state.scan(start, end, PAGE)
            for key, value in page:
                yield self._info(key[-CHUNK_ID_SIZE:], decode_chunk(value))
            if len(page) < PAGE:
                return
            start = page[-1][0] + b"\0"

    async def statistics(self) -> ChunkTotals:
        """How many chunks there are, and their bytes: one read, however many they are."""
        return chunk_totals(self._store.state) or ChunkTotals()

    async def slices(self, bucket: str, key: str, *, version_id: str | None = None) -> AsyncIterator[Slice]:
        """What an object is made of, in order; nothing for one that is so small that it rides in its own row."""
        asked.text("a key", key)
        asked.version(version_id)
        reader = self._store.objects.open(bucket, key, version_id)
        try:
            for entry in reader.slices():
                if entry.kind == Kind.CHUNK:
                    yield Slice(entry.id.hex(), entry.offset, entry.length)
                else:
                    yield Slice("", entry.offset, entry.length, entry.id.hex(), entry.slot)
        finally:
            reader.close()

    def _row(self, name: bytes) -> ChunkRow:
        value = self._store.state.get(chunk_key(name))
        if value is None:
            raise Absent(f"there is no chunk {name.hex()}", reason="chunk")
        return decode_chunk(value)

    def _info(self, name: bytes, row: ChunkRow) -> ChunkInfo:
        counted = self._store.state.get(chunk_counter_key(name))
        return ChunkInfo(
            name.hex(),
            row.length,
            row.stripe.length,
            counter(counted) if counted is not None else 0,
            self._store.objects.held.count(name),
            " and ".join(flag.name.lower() for flag in Health(row.health) if flag.name) or "good",
        )

    def _stripe(self, stripe: Stripe) -> StripeInfo:
        paths = self._store.membership.paths
        shards = tuple(
            ShardPlace(index, disk, str(paths.get(disk, "")), index >= stripe.k)
            for index, disk in enumerate(stripe.disks)
        )
        return StripeInfo(stripe.write_id.hex(), stripe.k, stripe.m, stripe.length, stripe.shard_size, shards)


def _bytes(id: str) -> bytes:
    asked.text("a chunk's id", id)
    if not _id(id):
        raise Invalid(f"{id!r} is no chunk's id: {2 * CHUNK_ID_SIZE} hexadecimal digits", reason="chunk-id")
    return bytes.fromhex(id)
