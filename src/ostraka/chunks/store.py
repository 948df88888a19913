"""The face of this room: `ChunkStore` is `types.Chunks`, put together from its parts."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import msgspec

from ostraka.chunks import references
from ostraka.chunks.counters import Counters
from ostraka.chunks.ground import Ground
from ostraka.chunks.packing import Packer, PlacedSlot
from ostraka.chunks.placing import ChunkWriter, PlacedChunk, ReceiveBuffer
from ostraka.chunks.reading import Reader
from ostraka.chunks.rows import Health, chunk_key, decode_chunk, encode
from ostraka.chunks.sealing import Domain
from ostraka.chunks.sweeping import Sweeper
from ostraka.chunks.types import RECIPE, ChunkBuffer, Entry, Keyring, Kind, NoKeys, Recipe
from ostraka.errors import OstrakaError
from ostraka.host import Buffer, Host
from ostraka.limits import LIMITS, Limits
from ostraka.metrics import Board
from ostraka.pools.types import Pool, Stripe
from ostraka.state.types import SEQUENCE_MAX, Equals, Mutation, Operation, Precondition, Put, Rejected, State

SECRET_SIZE = 32


def _nobody_reads() -> int:
    return SEQUENCE_MAX


class ChunkStore:
    """Chunks and packs of one store, in one process.

    ``secret``: 32 bytes, the store's key of chunk ids. ``pinned_before``: the state's
    sequence at the start of the oldest reader in flight, in any process (SEQUENCE_MAX: nobody reads).
    ``redundant``: whether a stripe is known to have all its shards, for deduplication to count on it. ``on_damage``
    hears of reads that no shard could answer; such a chunk is also marked, so that uploading it again repairs it.
    ``executor``: worker threads, our own if none is given. ``board``: one on which `METRICS` are declared. ``keyring``:
    what opens bodies that are sealed under the store's own keys.
    """

    def __init__(
        self,
        pool: Pool,
        state: State,
        secret: bytes,
        *,
        host: Host | None = None,
        limits: Limits = LIMITS,
        executor: Executor | None = None,
        pinned_before: Callable[[], int] = _nobody_reads,
        redundant: Callable[[Stripe], bool] = lambda stripe: True,
        on_damage: Callable[[Entry, OstrakaError], None] | None = None,
        board: Board | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        assert len(secret) == SECRET_SIZE, "the key of chunk ids is 32 bytes"
        self._own_executor = None if executor else ThreadPoolExecutor(os.cpu_count() or 2, "chunks")
        self._told = on_damage
        self._marking: set[bytes] = set()
        self.counters = Counters(board)
        self._ground = Ground(
            pool=pool,
            state=state,
            secret=secret,
            limits=limits,
            host=host or Host(),
            executor=executor or self._own_executor,  # type: ignore[arg-type]
            counters=self.counters,
            redundant=redundant,
            on_damage=self._damaged,
            keyring=keyring or NoKeys(),
        )
        self._writer = ChunkWriter(self._ground)
        self._packer = Packer(self._ground)
        self._reader = Reader(self._ground)
        self._sweeper = Sweeper(self._ground, pinned_before)

    async def close(self) -> None:
        """Finish what was begun: writes in flight, stripes to be given back."""
        await self._ground.tasks.finish()
        if self._own_executor is not None:
            self._own_executor.shutdown(wait=False)

    async def settled(self) -> None:
        """Wait until nothing runs in the background (abandoned placements are given back there)."""
        await self._ground.tasks.finish()

    # -- writing

    async def buffer(self, size: int | None = None) -> ReceiveBuffer:
        return await self._writer.buffer(size)

    def scarce(self, size: int | None = None) -> bool:
        return self._writer.scarce(size)

    async def place(self, buffer: ChunkBuffer, length: int, recipe: Recipe = RECIPE) -> PlacedChunk:
        return await self._writer.place(buffer, length, recipe)

    async def place_small(self, body: Buffer, recipe: Recipe = RECIPE) -> PlacedSlot:
        return await self._packer.place(body, recipe)

    # -- reading

    def read(self, entry: Entry, offset: int, length: int, domain: Domain | None = None) -> AsyncIterator[Buffer]:
        return self._reader.read(entry, offset, length, domain)

    def read_now(self, entry: Entry, offset: int, length: int, domain: Domain | None = None) -> Buffer | None:
        return self._reader.read_now(entry, offset, length, domain)

    # -- references

    def reference(self, entries: Sequence[Entry]) -> tuple[list[Precondition], list[Operation]]:
        return references.reference(entries)

    async def dismantle(self, entries: Sequence[Entry]) -> tuple[list[Precondition], list[Operation]]:
        return references.dismantle(self._ground.state, entries, self._ground.limits)

    async def sweep(self, limit: int) -> int:
        return await self._sweeper.sweep(limit)

    # -- health

    async def mark(self, chunk: bytes, health: Health) -> bool:
        """Record what is known against a chunk (GOOD: nothing), so that deduplication counts on it or does not.

        Returns False when there is no such chunk.
        """
        key = chunk_key(chunk)
        while True:
            value = self._ground.state.get(key)
            if value is None:
                return False
            row = decode_chunk(value)
            if row.health == health:
                return True
            marked = encode(msgspec.structs.replace(row, health=health))
            try:
                await self._ground.state.commit(Mutation([Equals(key, value)], [Put(key, marked)]))
                return True
            except Rejected:
                continue

    def _damaged(self, entry: Entry, error: OstrakaError) -> None:
        if self._told is not None:
            self._told(entry, error)
        if entry.kind == Kind.CHUNK and entry.id not in self._marking:
            self._marking.add(entry.id)
            self._ground.tasks.spawn(self._mark_damaged(entry.id))

    async def _mark_damaged(self, chunk: bytes) -> None:
        try:
            await self.mark(chunk, Health.DAMAGED)
        except OstrakaError:
            pass  # the state is away or its row is damaged: the next read tells again
        finally:
            self._marking.discard(chunk)
