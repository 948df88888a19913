"""Reading entries: rows to stripes, stripes to frames and slots, every byte verified before it is handed out.

Two checks stand between the disk and the reader: the pool's, over 64 KiB cells of shards, and the checksum of the
plaintext that was made from the receive buffer, verified here over the very memory that is yielded.

A reader holds no lock. What it found may be moved by repair or compaction before it is read: if that fails, the row
is read again, and if it has changed the read goes on from the new place. Only a row that did not change is damage.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from functools import partial

from ostraka.chunks import frames, packs
from ostraka.chunks.frames import FrameTable
from ostraka.chunks.ground import Ground
from ostraka.chunks.rows import ChunkRow, PackRow, Slot, chunk_key, decode_chunk, decode_pack, pack_key, slot_at
from ostraka.chunks.sealing import Domain, cipher_of, of_chunk, of_pack
from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Absent, Corrupt, Invalid, OstrakaError, Unavailable
from ostraka.host import Buffer
from ostraka.limits import KIB

NOW_MAX = 128 * KIB  # plaintext that read_now gives at most, and that is decompressed on the loop
Opener = Callable[[memoryview, FrameTable, int, int, memoryview | None], list[Buffer]]
MOVES_MAX = 4  # how often what is read may move under one reader


class TableCache:
    """Frame tables by write id, the least recently used dropped first; bounded by the bytes they take."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._tables: OrderedDict[bytes, FrameTable] = OrderedDict()
        self.bytes = 0

    def get(self, write_id: bytes) -> FrameTable | None:
        table = self._tables.get(write_id)
        if table is not None:
            self._tables.move_to_end(write_id)
        return table

    def put(self, write_id: bytes, table: FrameTable) -> None:
        if write_id not in self._tables:
            self._tables[write_id] = table
            self.bytes += table.size
            while self.bytes > self._bytes_max:
                self.bytes -= self._tables.popitem(last=False)[1].size


class Reader:
    """Reads CHUNK and SLOT entries."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._tables = TableCache(ground.limits.frame_tables_bytes_max)

    # -- at once

    def read_now(self, entry: Entry, offset: int, length: int, domain: Domain | None) -> Buffer | None:
        """All of it, if that takes no waiting and is small; else None. Damage is left to `read` to report."""
        _check(entry, offset, length)
        if length > NOW_MAX:
            return None
        if not length:
            return b""
        if entry.kind == Kind.SLOT:
            return self._slot_now(entry, offset, length, domain)
        try:
            return self._chunk_now(entry, entry.offset + offset, length, domain)
        except (Corrupt, Absent, Unavailable):
            return None

    def _slot_now(self, entry: Entry, offset: int, length: int, domain: Domain | None) -> Buffer | None:
        ground = self._ground
        value = ground.state.get(pack_key(entry.id))
        if value is None:
            return None
        try:
            row = decode_pack(value)
            slot = slot_at(row, entry.slot)
            data = ground.pool.read_now(row.stripe, slot.offset, slot.stored)
            if data is None:
                return None
            plain = self._open_slot(data, row, slot, entry, domain)
        except (Corrupt, Absent, Unavailable):
            return None
        start = entry.offset + offset
        return _cut(plain, start, start + length) if start + length <= slot.length else None

    def _open_slot(self, data: memoryview, row: PackRow, slot: Slot, entry: Entry, domain: Domain | None) -> Buffer:
        if row.seal is None:
            return packs.open_slot(data, slot)
        key = self._ground.data_key(row.seal, of_pack(entry.id), domain)
        return packs.open_sealed(data, slot, entry.slot, key, entry.id)

    def _chunk_now(self, entry: Entry, start: int, length: int, domain: Domain | None) -> Buffer | None:
        _, row = self._chunk_row(entry)
        pool = self._ground.pool
        table = self._tables.get(row.stripe.write_id)
        if table is None:
            head = pool.read_now(row.stripe, 0, row.table_size)
            if head is None:
                return None
            table = self._keep(row, head)
        first, last = start // table.frame_size, -(-(start + length) // table.frame_size)
        if (last - first) * table.frame_size > 2 * NOW_MAX:
            return None
        at = table.start(first)
        data = pool.read_now(row.stripe, at, table.ends[last - 1] - at)
        if data is None:
            return None
        begin = start - first * table.frame_size
        pieces = self._opener(entry, row, domain)(data, table, first, last, None)
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return _cut(whole, begin, begin + length)

    # -- in pieces

    def read(self, entry: Entry, offset: int, length: int, domain: Domain | None) -> AsyncIterator[Buffer]:
        """Verified pieces of [offset, offset + length) of the entry, in order."""
        _check(entry, offset, length)
        if entry.kind == Kind.SLOT:
            return self._read_slot(entry, offset, length, domain)
        return self._read_chunk(entry, offset, length, domain)

    async def _read_slot(self, entry: Entry, offset: int, length: int, domain: Domain | None) -> AsyncIterator[Buffer]:
        ground, start = self._ground, entry.offset + offset
        seen: bytes | None = None
        failure: OstrakaError = Unavailable("a pack that is moved all the time", reason="moving")
        for _ in range(MOVES_MAX):
            value = self._row(entry)
            if value == seen:
                break
            seen = value
            try:
                row = decode_pack(value)
                slot = slot_at(row, entry.slot)
                if start + length > slot.length:
                    raise Corrupt("a slot that is shorter than what refers to it", reason="slot")
                data = await ground.pool.read(row.stripe, slot.offset, slot.stored)
                plain = self._open_slot(data, row, slot, entry, domain)
            except (Corrupt, Absent, Unavailable) as error:
                failure = error
                continue
            if length:
                yield _cut(plain, start, start + length)
            return
        raise self._failed(entry, failure)

    async def _read_chunk(self, entry: Entry, offset: int, length: int, domain: Domain | None) -> AsyncIterator[Buffer]:
        position, end = entry.offset + offset, entry.offset + offset + length
        seen: bytes | None = None
        ahead: asyncio.Task[list[Buffer]] | None = None
        failure: OstrakaError = Unavailable("a chunk that is moved all the time", reason="moving")
        moves = 0
        try:
            while position < end:
                value, row = self._chunk_row(entry)
                if value == seen or moves == MOVES_MAX:
                    raise self._failed(entry, failure)
                seen, moves = value, moves + 1
                try:
                    table, whole = await self._table(row, end - position)
                    opener = self._opener(entry, row, domain)
                    while position < end:
                        first, last = self._piece(table, position, end)
                        pieces = await (ahead or self._fetch(row, table, first, last, opener, whole))
                        ahead = None
                        following = last * table.frame_size
                        if following < end:
                            piece_after = self._piece(table, following, end)
                            ahead = asyncio.ensure_future(self._fetch(row, table, *piece_after, opener, whole))
                        else:
                            whole = None  # not held while the reader is at work
                        at = first * table.frame_size
                        for piece in pieces:
                            cut = _cut(piece, max(position - at, 0), min(end - at, len(piece)))
                            at += len(piece)
                            if len(cut):
                                position += len(cut)
                                yield cut
                        del pieces, piece, cut  # not held while the next ones are waited for
                except (Corrupt, Absent, Unavailable) as error:
                    failure = error
                    ahead = None
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait([ahead])
                if not ahead.cancelled():
                    ahead.exception()

    def _piece(self, table: FrameTable, position: int, end: int) -> tuple[int, int]:
        """The frames [first, last) from position on that are read together."""
        first = last = position // table.frame_size
        stop = -(-end // table.frame_size)
        room = table.start(first) + self._ground.limits.read_piece_max
        while last < stop and (last == first or table.ends[last] <= room):
            last += 1
            if (last - first) * table.frame_size >= 2 * self._ground.limits.read_piece_max:
                break  # compressed well: what it unfolds to is bounded as well
        return first, last

    def _opener(self, entry: Entry, row: ChunkRow, domain: Domain | None) -> Opener:
        """What turns the stored bytes of frames of this chunk into plaintext."""
        if row.seal is None:
            return frames.open_frames
        key = self._ground.data_key(row.seal, of_chunk(entry.id), domain)
        return partial(frames.open_sealed, key, entry.id)

    async def _fetch(
        self, row: ChunkRow, table: FrameTable, first: int, last: int, opener: Opener, whole: memoryview | None
    ) -> list[Buffer]:
        start, end = table.start(first), table.ends[last - 1]
        if whole is None:
            data = await self._ground.pool.read(row.stripe, start, end - start)
        else:
            data = whole[start:end]
        if (row.seal is not None or any(table.codecs[first:last])) and (last - first) * table.frame_size > NOW_MAX:
            size = min(last * table.frame_size, table.length) - first * table.frame_size
            room = self._ground.pool.scratch(size)
            return await self._ground.in_thread(opener, data, table, first, last, room)
        return opener(data, table, first, last, None)

    # -- rows and tables

    def _row(self, entry: Entry) -> bytes:
        """The entry's row. That a referenced row is missing is damage, never absence (law 3)."""
        value = self._ground.state.get((chunk_key if entry.kind == Kind.CHUNK else pack_key)(entry.id))
        if value is None:
            name = "chunk" if entry.kind == Kind.CHUNK else "pack"
            raise self._failed(entry, Corrupt(f"{name} {entry.id.hex()} is referred to and is not there", reason=name))
        return value

    def _chunk_row(self, entry: Entry) -> tuple[bytes, ChunkRow]:
        value = self._row(entry)
        row = decode_chunk(value)
        if entry.offset + entry.length > row.length:
            raise self._failed(entry, Corrupt("a chunk that is shorter than what refers to it", reason="chunk"))
        return value, row

    async def _table(self, row: ChunkRow, wanted: int) -> tuple[FrameTable, memoryview | None]:
        """The frame table; and the whole stored chunk, where one read of both costs little more than the table's."""
        table = self._tables.get(row.stripe.write_id)
        if table is not None:
            return table, None
        if row.stripe.length > self._ground.limits.read_piece_max or 2 * wanted < row.length:
            return self._keep(row, await self._ground.pool.read(row.stripe, 0, row.table_size)), None
        whole = await self._ground.pool.read(row.stripe, 0, row.stripe.length)
        return self._keep(row, whole[: row.table_size]), whole

    def _keep(self, row: ChunkRow, head: memoryview) -> FrameTable:
        table = frames.parse(head, row.length, row.stripe.length)
        if table.cipher != cipher_of(row.seal):
            raise Corrupt("a frame table whose cipher is not that of its chunk's seal", reason="frame-table")
        self._tables.put(row.stripe.write_id, table)
        return table

    def _failed(self, entry: Entry, error: OstrakaError) -> OstrakaError:
        """What a reader is told: a row that stands and bytes that are not there are damage."""
        if isinstance(error, Absent):
            error = Corrupt(f"the bytes of {entry.id.hex()} are gone: {error}", reason="shards")
        if isinstance(error, Corrupt):
            self._ground.counters.add("chunk_damage")
            self._ground.on_damage(entry, error)
        return error


def _check(entry: Entry, offset: int, length: int) -> None:
    if entry.kind not in (Kind.CHUNK, Kind.SLOT):
        raise Invalid("only chunks and slots are read here")
    if offset < 0 or length < 0 or offset + length > entry.length:
        raise Invalid(f"[{offset}, {offset + length}) lies outside of an entry of {entry.length} bytes")


def _cut(plain: Buffer, start: int, end: int) -> Buffer:
    """A part of a buffer without a copy; the buffer itself when that is all of it."""
    return plain if start == 0 and end == len(plain) else memoryview(plain)[start:end]
