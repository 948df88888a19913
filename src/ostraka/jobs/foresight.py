"""What a collection would take away, told without taking anything: rows, and the bytes that would come free.

It looks at what is queued, and not at who may still hold it: readers, the grace, uploads in flight. So this is what
will have gone once they have ended.
"""

import msgspec

from ostraka.chunks.references import live_share
from ostraka.chunks.rows import (
    SLOT_DEAD,
    SLOT_GONE,
    ZERO,
    PackRow,
    StripeRow,
    chunk_counter_key,
    chunk_key,
    decode_chunk,
    decode_pack,
    pack_key,
    slots_of,
)
from ostraka.chunks.rows import decode as decode_chunks
from ostraka.chunks.types import Kind
from ostraka.errors import Corrupt, Refused
from ostraka.objects.rows import DEAD, dead_of
from ostraka.pools.types import Stripe
from ostraka.state.tables import rows_under
from ostraka.state.types import State


class Foreseen(msgspec.Struct):
    """``*_bytes``: on the disks, parity and all; of bodies: as clients wrote them, shared or not."""

    bodies: int = 0  # versions, parts and uploads that are no more, whose references are to be given up
    body_bytes: int = 0
    chunks: int = 0  # that nothing refers to
    chunk_bytes: int = 0
    packs: int = 0  # all of whose bodies are dead
    pack_bytes: int = 0
    packs_to_rewrite: int = 0  # because most of their bodies are dead
    rewritten_bytes: int = 0
    stripes: int = 0  # that were replaced by others
    stripe_bytes: int = 0
    unreadable: int = 0  # rows that are left to fsck

    @property
    def freed(self) -> int:
        return self.chunk_bytes + self.pack_bytes + self.rewritten_bytes + self.stripe_bytes

    def lines(self) -> list[str]:
        """For people."""
        told = [
            f"take apart {self.bodies} dead bodies ({self.body_bytes} bytes, as far as nobody else refers to them)",
            f"delete {self.chunks} chunks ({self.chunk_bytes} bytes on the disks)",
            f"delete {self.packs} packs ({self.pack_bytes} bytes on the disks)",
            f"rewrite {self.packs_to_rewrite} packs ({self.rewritten_bytes} bytes less on the disks)",
            f"delete {self.stripes} replaced stripes ({self.stripe_bytes} bytes on the disks)",
        ]
        return [*told, f"leave {self.unreadable} rows to fsck"] if self.unreadable else told


def foresee(state: State, live_ratio: float) -> Foreseen:
    """All that is queued. Blocking; memory does not grow with it."""
    found = Foreseen()
    for _, value in rows_under(state, DEAD):
        try:
            record = dead_of(value)
        except (Corrupt, Refused):
            found.unreadable += 1
            continue
        found.bodies += len(record.entries) + len(record.uploads) + len(record.buckets)
        found.body_bytes += sum(entry.length for entry in record.entries)
    for key, value in rows_under(state, ZERO):
        try:
            _queued(found, state, key, value, live_ratio)
        except (Corrupt, Refused):
            found.unreadable += 1
    return found


def _queued(found: Foreseen, state: State, key: bytes, value: bytes, live_ratio: float) -> None:
    record = decode_chunks(key, value)
    if isinstance(record.row, StripeRow):
        found.stripes += 1
        found.stripe_bytes += _size(record.row.stripe)
    elif record.kind == Kind.CHUNK:
        row = state.get(chunk_key(record.id))
        if row is not None and state.get(chunk_counter_key(record.id)) is None:
            found.chunks += 1
            found.chunk_bytes += _size(decode_chunk(row).stripe)
    else:
        row = state.get(pack_key(record.id))
        if row is not None:
            _pack(found, decode_pack(row), live_ratio)


def _pack(found: Foreseen, row: PackRow, live_ratio: float) -> None:
    slots, size = slots_of(row), _size(row.stripe)
    if all(slot.flags & (SLOT_DEAD | SLOT_GONE) for slot in slots):
        found.packs += 1
        found.pack_bytes += size
        return
    live = live_share(row)
    if live < live_ratio:
        found.packs_to_rewrite += 1
        found.rewritten_bytes += int(size * (1 - live))


def _size(stripe: Stripe) -> int:
    return stripe.shard_size * (stripe.k + stripe.m)
