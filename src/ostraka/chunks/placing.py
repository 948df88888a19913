"""Storing chunks: hash, look up, and only if the chunk is new compress and write it.

A placed chunk is durable and not yet referenced: it carries what the caller's one commit must contain. The commit
decides races: of two writers that both missed one lands, the other is rejected and looks again (ENGINE 16); a hit
whose chunk was collected meanwhile is rejected too, and its bytes, still held, are written anew (law 4).
"""

import asyncio
from collections.abc import Sequence

from blake3 import blake3

from ostraka.chunks import frames
from ostraka.chunks.ground import Ground
from ostraka.chunks.rows import (
    ROW_VERSION,
    ChunkRow,
    Health,
    StripeRow,
    chunk_counter_key,
    chunk_key,
    decode_chunk,
    encode,
    zero_stripe_key,
)
from ostraka.chunks.sealing import key_of, of_chunk
from ostraka.chunks.types import ChunkBuffer, Entry, Kind, Recipe
from ostraka.errors import Invalid, TooLarge
from ostraka.limits import KIB
from ostraka.pools.types import Owner, Stripe, StripeBuffer
from ostraka.state.types import Absent, Add, Equals, Operation, Precondition, Put

HASH_ON_LOOP_MAX = 256 * KIB  # hashed in 40 us, which is less than the way to a thread and back costs
CHUNK_TAG = "chunk"  # of the precondition that a race breaks: call `again`


class ReceiveBuffer:
    """A window into a pool's buffer, behind room for the frame table."""

    __slots__ = ("_room", "table_size", "view")

    def __init__(self, room: StripeBuffer, table_size: int) -> None:
        self._room = room
        self.table_size = table_size
        self.view = room.view[table_size:]

    @property
    def room(self) -> StripeBuffer:
        return self._room

    def release(self) -> None:
        self._room.release()


class PlacedChunk:
    """One chunk on stable storage. It holds the receive buffer until `release` or `abandon`."""

    __slots__ = (
        "_busy",
        "_ended",
        "_seal",
        "_stripe",
        "_writer",
        "buffer",
        "entry",
        "operations",
        "preconditions",
        "recipe",
    )

    def __init__(self, writer: "ChunkWriter", buffer: ReceiveBuffer, length: int, recipe: Recipe) -> None:
        self._writer = writer
        self.buffer = buffer
        self.recipe = recipe
        self.entry = Entry(Kind.CHUNK.value, b"", 0, length)
        self.preconditions: Sequence[Precondition] = ()
        self.operations: Sequence[Operation] = ()
        self._stripe: Stripe | None = None  # ours; None while the chunk of the state is good enough
        self._seal: bytes | None = None  # of what we wrote, if that is encrypted
        self._busy = False
        self._ended = ""

    async def again(self) -> "PlacedChunk":
        assert not self._ended, "a placement that ended cannot be tried again"
        await self.run()
        return self

    def release(self) -> None:
        self._end("released")

    def abandon(self) -> None:
        self._end("abandoned")

    async def run(self) -> None:
        """Decide, in a task that a cancelled caller leaves to finish: threads and disks may be reading the buffer."""
        self._busy = True
        task = self._writer.ground.tasks.spawn(self._decide())
        task.add_done_callback(self._idle)
        await asyncio.shield(task)

    async def _decide(self) -> None:
        ground, length = self._writer.ground, self.entry.length
        if not self.entry.id:
            plain = self.buffer.view[:length]
            if length <= HASH_ON_LOOP_MAX:
                chunk = self._writer.identify(plain, self.recipe)
            else:
                chunk = await ground.in_thread(self._writer.identify, plain, self.recipe)
            self.entry = Entry(Kind.CHUNK.value, chunk, 0, length)
        value = ground.state.get(chunk_key(self.entry.id))
        row = decode_chunk(value) if value is not None else None
        if value is not None and row is not None and self._counts(row):
            self._hit(value, row)
            return
        if self._stripe is None:
            self._stripe = await self._write()
        self._miss(value, row)

    def _counts(self, row: ChunkRow) -> bool:
        """Whether deduplication may rely on this chunk."""
        domain = self.recipe.domain
        if (row.seal is None) != (domain is None) or (domain and row.seal and key_of(row.seal)[0] != domain.id):
            return False  # cannot be, for ids of two domains never meet: and if it is, nobody's bytes get mixed
        return (
            row.health == Health.GOOD and row.length == self.entry.length and self._writer.ground.redundant(row.stripe)
        )

    def _hit(self, value: bytes, row: ChunkRow) -> None:
        ground, chunk = self._writer.ground, self.entry.id
        if self._stripe is not None:
            if self._stripe.write_id != row.stripe.write_id:
                ground.give_back(Owner.CHUNK, chunk, self._stripe)  # another writer's commit won: ours is dead
            self._stripe = None
        self.preconditions = (Equals(chunk_key(chunk), value, CHUNK_TAG),)
        self.operations = (Add(chunk_counter_key(chunk), 1),)
        ground.counters.add("dedup_hits")
        ground.counters.add("dedup_saved_bytes", self.entry.length)
        ground.counters.add("placed_bytes", self.entry.length)

    def _miss(self, value: bytes | None, old: ChunkRow | None) -> None:
        chunk, stripe = self.entry.id, self._stripe
        assert stripe is not None
        key, table = chunk_key(chunk), self.buffer.table_size
        frame_size = self._writer.ground.limits.frame_size
        row = ChunkRow(ROW_VERSION, Health.GOOD, self.entry.length, frame_size, table, stripe, self._seal)
        operations: list[Operation] = [Put(key, encode(row)), Add(chunk_counter_key(chunk), 1)]
        gate = self.recipe.gate
        if value is None or old is None:
            self.preconditions = (Absent(key, CHUNK_TAG), *gate)
        else:  # what is there is not to be relied upon: it is replaced, and kept for the readers in flight
            self.preconditions = (Equals(key, value, CHUNK_TAG), *gate)
            dead = encode(StripeRow(ROW_VERSION, Owner.CHUNK, chunk, old.stripe))
            operations.append(Put(zero_stripe_key(old.stripe), dead, stamp_value=True))
        self.operations = operations

    async def _write(self) -> Stripe:
        if self.recipe.domain is not None:
            return await self._write_sealed()
        ground, length, room = self._writer.ground, self.entry.length, self.buffer.room
        stored = await ground.in_thread(
            frames.build, room.view, self.buffer.table_size, length, ground.limits.frame_size, self.recipe
        )
        body = room if stored.body is None else stored.body
        stripe = await ground.pool.write(Owner.CHUNK, self.entry.id, body, stored.length, self.recipe.pool)
        self._count(stored.length, stored.body is not None)
        return stripe

    async def _write_sealed(self) -> Stripe:
        """Sealed bytes need memory of their own, in which they are made and from which they are written."""
        ground, length, table, chunk = self._writer.ground, self.entry.length, self.buffer.table_size, self.entry.id
        assert self.recipe.domain is not None
        self._seal, key = self.recipe.domain.new(of_chunk(chunk), ground.host)
        frame_size, plain = ground.limits.frame_size, self.buffer.room.view
        body = ground.pool.spare(frames.sealed_size(table, length, frame_size))
        try:
            stored = await ground.in_thread(
                frames.build_sealed, plain, table, length, frame_size, self.recipe, key, chunk, body.view
            )
            stripe = await ground.pool.write(Owner.CHUNK, chunk, body, stored, self.recipe.pool)
        finally:
            body.release()
        self._count(stored, stored < table + length)
        ground.counters.add("sealed_bytes", length)
        return stripe

    def _count(self, stored: int, shrank: bool) -> None:
        counters, length = self._writer.ground.counters, self.entry.length
        counters.add("chunks")
        counters.add("chunk_bytes", length)
        counters.add("chunk_stored_bytes", stored)
        counters.add("placed_bytes", length)
        if shrank:
            counters.compressed(self.recipe.codec, length, stored)

    def _end(self, how: str) -> None:
        if not self._ended:
            self._ended = how
            if not self._busy:
                self._free()

    def _idle(self, task: "asyncio.Task[None]") -> None:
        self._busy = False
        if self._ended:
            self._free()

    def _free(self) -> None:
        if self._stripe is not None:
            ground, stripe = self._writer.ground, self._stripe
            if self._ended == "abandoned":
                ground.give_back(Owner.CHUNK, self.entry.id, stripe)
            else:
                ground.settle(Owner.CHUNK, self.entry.id, stripe)
        self._stripe = None
        self.buffer.release()


class ChunkWriter:
    """Makes receive buffers, and places what was received into them."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    async def buffer(self, size: int | None = None) -> ReceiveBuffer:
        size, table = self._sizes(size)
        return ReceiveBuffer(await self.ground.pool.buffer(table + size), table)

    def scarce(self, size: int | None = None) -> bool:
        return self.ground.pool.scarce(sum(self._sizes(size)))

    def _sizes(self, size: int | None) -> tuple[int, int]:
        """(plaintext, frame table) of a buffer."""
        limits = self.ground.limits
        size = limits.chunk_size if size is None else min(max(size, 1), limits.chunk_size)
        return size, frames.table_size(size, limits.frame_size)

    async def place(self, buffer: ChunkBuffer, length: int, recipe: Recipe) -> PlacedChunk:
        assert isinstance(buffer, ReceiveBuffer), "a chunk is placed from a buffer of this store"
        placed = PlacedChunk(self, buffer, length, recipe)
        try:
            if length <= 0:
                raise Invalid("an empty chunk")
            if length > len(buffer.view):
                raise TooLarge(f"a chunk of {length} bytes in a buffer of {len(buffer.view)}")
            await placed.run()
        except BaseException:  # cancelled included: nobody has the placement, so nothing can name it
            placed.abandon()
            raise
        return placed

    def identify(self, plain: memoryview, recipe: Recipe) -> bytes:
        """The chunk's id: BLAKE3 under a secret of the store's, so that ids tell an outsider nothing, or of the domain
        that it is sealed under, so that nothing deduplicates across two (ENGINE 17)."""
        secret = self.ground.secret if recipe.domain is None else recipe.domain.secret
        return blake3(plain, key=secret).digest()
