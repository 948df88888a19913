"""Chunks that a program holds by their id, beside what objects refer to.

A hold is a reference like any other: it is counted by the chunk's counter, and the row that holds it is ``H`` and the
chunk's id, whose value is how many holds there are (docs/format/object-rows.md). So a chunk that is held is collected
by nobody, and fsck counts holds as it counts the slices of objects.
"""

from ostraka.chunks.rows import chunk_key, decode_chunk
from ostraka.chunks.types import RECIPE, Entry, Kind, Placed, Recipe
from ostraka.errors import Absent, Conflict, Invalid, TooLarge
from ostraka.host import Buffer
from ostraka.objects import rows
from ostraka.objects.core import CERTAINLY_NOT, Core, contended
from ostraka.state import Add, Equals, Rejected, counter


class Held:
    """Takes and gives up holds."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def write(self, data: Buffer, expected: bytes | None = None) -> Entry:
        """Store a chunk, if it is not there already, and hold it once more; durable when it returns.

        ``expected``: the id that it must have; Invalid("chunk-id"), and nothing is held, when it has another. Raises
        also Invalid for no bytes, TooLarge for more than limits.chunk_size, Full, Unavailable.
        """
        core, size = self._core, len(data)
        if not size:
            raise Invalid("a chunk without bytes", reason="size")
        if size > core.limits.chunk_size:
            raise TooLarge(f"a chunk of {size} bytes; at most {core.limits.chunk_size}", reason="chunk")
        core.room()
        recipe = self._recipe(expected)
        buffer = await core.chunks.buffer(size)
        buffer.view[:size] = data
        placed = await core.chunks.place(buffer, size, recipe)
        if expected is not None and placed.entry.id != expected:
            placed.abandon()
            raise Invalid(
                f"these bytes are chunk {placed.entry.id.hex()}, not {expected.hex()}: nothing was stored",
                reason="chunk-id",
            )
        try:
            await self._hold(placed)
        except CERTAINLY_NOT:
            placed.abandon()
            raise
        except BaseException:
            placed.release()
            raise
        placed.release()
        return placed.entry

    def _recipe(self, expected: bytes | None) -> Recipe:
        """Encrypted once the store has a key, as new buckets are; a chunk that is there already, as it is."""
        core = self._core
        known = None if expected is None else core.state.get(chunk_key(expected))
        plain = decode_chunk(known).seal is None if known is not None else not core.keyring.active
        return RECIPE if plain else Recipe(domain=core.keyring.domain())

    async def _hold(self, placed: Placed) -> None:
        for _ in range(self._core.limits.commit_attempts_max):
            held = Add(rows.HELD + placed.entry.id, 1)
            try:
                await self._core.commit(placed.preconditions, [*placed.operations, held])
                return
            except Rejected:
                placed = await placed.again()
        raise contended()

    def count(self, chunk: bytes) -> int:
        """How often a chunk is held."""
        value = self._core.state.get(rows.HELD + chunk)
        return 0 if value is None else counter(value)

    async def release(self, chunk: bytes) -> None:
        """Give up one hold; the collector deletes the chunk when nothing else refers to it.

        Raises Absent("chunk") when there is no such chunk, Conflict("held") when only objects refer to it.
        """
        core, row = self._core, rows.HELD + chunk
        entry = Entry(Kind.CHUNK.value, chunk, 0, 0)
        for _ in range(core.limits.commit_attempts_max):
            value = core.state.get(row)
            if value is None:
                if core.state.get(chunk_key(chunk)) is None:
                    raise Absent(f"there is no chunk {chunk.hex()}", reason="chunk")
                raise Conflict(
                    f"chunk {chunk.hex()} is not held: objects refer to it, and it goes with the last of them",
                    reason="held",
                )
            preconditions, operations = await core.chunks.dismantle([entry])
            try:
                await core.commit([Equals(row, value), *preconditions], [Add(row, -1, drop_at=0), *operations])
                return
            except Rejected:
                continue
        raise contended()
