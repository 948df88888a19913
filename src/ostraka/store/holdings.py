"""What a store holds, in one read for each number: the totals that every commit keeps (state/totals.py)."""

import msgspec

from ostraka.chunks.rows import CHUNK_TOTAL, PACK_TOTAL
from ostraka.metrics import Board, Metric
from ostraka.objects.rows import LIVE
from ostraka.state import State, rows_under, totals


class ChunkTotals(msgspec.Struct, frozen=True):
    """Chunks, or packs: how many; bytes of plaintext in them; bytes as they are stored, compressed; bytes on disks,
    parity and padding included. ``slots``: live bodies, of packs only."""

    count: int = 0
    bytes: int = 0
    stored_bytes: int = 0
    disk_bytes: int = 0
    slots: int = 0


class Holdings(msgspec.Struct, frozen=True):
    """``objects`` and their ``bytes``: current versions only, in all buckets."""

    objects: int
    bytes: int
    chunks: ChunkTotals
    packs: ChunkTotals


def chunk_totals(state: State) -> ChunkTotals | None:
    """Of all pools. None: nothing was counted yet (a store of an older program that nobody has opened for writing
    since)."""
    found = _over_pools(state, CHUNK_TOTAL, 4)
    return None if found is None else ChunkTotals(*found)


def pack_totals(state: State) -> ChunkTotals | None:
    found = _over_pools(state, PACK_TOTAL, 5)
    if found is None:
        return None
    count, slots, size, stored, on_disks = found
    return ChunkTotals(count, size, stored, on_disks, slots)


def _over_pools(state: State, total: bytes, width: int) -> totals.Amounts | None:
    if state.get(totals.READY) is None:
        return None
    rows = [totals.amounts(value, width) for _, value in rows_under(state, totals.TOTALS + total)]
    return tuple(map(sum, zip(*rows, strict=True))) if rows else (0,) * width


METRICS = (
    Metric("ostraka_objects", "gauge", "current objects of all buckets"),
    Metric("ostraka_object_bytes", "gauge", "their bytes"),
    Metric("ostraka_chunks_held", "gauge", "chunks that the state names"),
    Metric("ostraka_chunks_held_bytes", "gauge", "their bytes of plaintext, each once however often it is referred to"),
    Metric("ostraka_packs_held", "gauge", "packs that the state names"),
    Metric("ostraka_packs_held_bytes", "gauge", "bytes of plaintext of live bodies in packs"),
    Metric("ostraka_stored_bytes", "gauge", "bytes of chunks and packs as they are stored, compressed"),
    Metric("ostraka_disk_bytes", "gauge", "bytes of their shards, parity and padding included"),
)


def show(state: State, board: Board) -> None:
    """Bring the gauges up to date."""
    held = holdings(state)
    if held is None:
        return
    chunks, packs = held.chunks, held.packs
    board.show("ostraka_objects", held.objects)
    board.show("ostraka_object_bytes", held.bytes)
    board.show("ostraka_chunks_held", chunks.count)
    board.show("ostraka_chunks_held_bytes", chunks.bytes)
    board.show("ostraka_packs_held", packs.count)
    board.show("ostraka_packs_held_bytes", packs.bytes)
    board.show("ostraka_stored_bytes", chunks.stored_bytes + packs.stored_bytes)
    board.show("ostraka_disk_bytes", chunks.disk_bytes + packs.disk_bytes)


def holdings(state: State) -> Holdings | None:
    """Everything; one row for each bucket is read."""
    chunks, packs = chunk_totals(state), pack_totals(state)
    if chunks is None or packs is None:
        return None
    objects = size = 0
    for _, value in rows_under(state, totals.TOTALS + LIVE):
        count, held = totals.amounts(value, 2)
        objects += count
        size += held
    return Holdings(objects, size, chunks, packs)
