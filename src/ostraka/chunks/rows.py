"""The rows that chunks keep in the state: their keys, their values, and how each is read back.

Five tables, named by the first byte of the key::

    c  domain(8) id(32)      ChunkRow   where a chunk's stored bytes are
    n  domain(8) id(32)      counter    how many references a chunk has; absent: none
    p  pack(16)              PackRow    where a pack is, and its slots
    q  pack(16) slot(2)      counter    how many references a slot has; absent: exactly one (or none, if it is dead)
    z  kind(1) name          queue      what fell to no reference, for the collector; ends in its commit's sequence

Values are a msgpack array whose first item is the version of the record (docs/format/chunk.md, pack.md). Only this
module knows how they are made; fsck and the jobs read them with `decode` and `scan`.
"""

from collections.abc import Callable
from enum import IntFlag
from struct import Struct as Layout
from typing import NamedTuple, TypeVar

import msgspec

from ostraka.chunks.sealing import SEAL
from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Corrupt, Refused
from ostraka.pools.types import Owner, Stripe
from ostraka.state.totals import Weighed
from ostraka.state.types import State, counter, value_sequence

CHUNKS = b"c"
CHUNK_COUNTERS = b"n"
PACKS = b"p"
SLOT_COUNTERS = b"q"
ZERO = b"z"
TABLES = (CHUNKS, CHUNK_COUNTERS, PACKS, SLOT_COUNTERS, ZERO)

ROW_VERSION = 1
CHUNK_ID_SIZE = 32
PACK_ID_SIZE = 16
DOMAIN_SIZE = 8
DEFAULT_DOMAIN = 0  # the ids of a key's domain are keyed by a secret of its own, so that none meet (ENGINE 17)

_DOMAIN = DEFAULT_DOMAIN.to_bytes(DOMAIN_SIZE, "big")
_CHUNK_PREFIX = CHUNKS + _DOMAIN
_COUNTER_PREFIX = CHUNK_COUNTERS + _DOMAIN


class Health(IntFlag):
    """What is known against a chunk; any of it, and deduplication does not count on the chunk (ENGINE 16)."""

    GOOD = 0
    DAMAGED = 1
    UNDER_REDUNDANT = 2


class ChunkRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a chunk is. ``table_size`` bytes of frame table stand before the frames. ``seal``: `sealing.SEAL`, the
    wrapped data key; None: not encrypted."""

    version: int
    health: int
    length: int  # plaintext bytes
    frame_size: int
    table_size: int
    stripe: Stripe
    seal: bytes | None = None


class PackRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a pack is. ``slots``: `SLOT` records, one after the other; a slot's number never changes. ``seal``: as in a
    `ChunkRow`, of all slots."""

    version: int
    slots: bytes
    stripe: Stripe
    seal: bytes | None = None


class StripeRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stripe that no row names any more, kept until the readers in flight are done."""

    version: int
    owner: int
    owner_id: bytes
    stripe: Stripe


_Row = TypeVar("_Row", ChunkRow, PackRow, StripeRow)

SLOT = Layout(">IIIBQ")  # offset in the body, stored bytes, plain bytes, flags, XXH3-64 of the plaintext
SLOT_CODEC = 0x0F  # frames.Codec
SLOT_DEAD = 0x40  # no reference is left
SLOT_GONE = 0x80  # and its bytes were dropped by compaction


class Slot(NamedTuple):
    """One body of a pack."""

    offset: int
    stored: int
    length: int
    flags: int
    checksum: int


_decode_chunk = msgspec.msgpack.Decoder(ChunkRow).decode
_decode_pack = msgspec.msgpack.Decoder(PackRow).decode
_decode_stripe = msgspec.msgpack.Decoder(StripeRow).decode
encode = msgspec.msgpack.Encoder().encode


# -- keys


def chunk_key(chunk: bytes) -> bytes:
    """Key of the row of a chunk of the default domain."""
    return _CHUNK_PREFIX + chunk


def chunk_counter_key(chunk: bytes) -> bytes:
    return _COUNTER_PREFIX + chunk


def pack_key(pack: bytes) -> bytes:
    return PACKS + pack


def slot_counter_key(pack: bytes, slot: int) -> bytes:
    return SLOT_COUNTERS + pack + slot.to_bytes(2, "big")


def zero_chunk_key(chunk: bytes) -> bytes:
    return ZERO + CHUNKS + _DOMAIN + chunk


def zero_pack_key(pack: bytes) -> bytes:
    return ZERO + PACKS + pack


def zero_stripe_key(stripe: Stripe) -> bytes:
    return ZERO + b"s" + stripe.write_id


# -- values


def decode_chunk(value: bytes) -> ChunkRow:
    """A chunk's row; Corrupt when it is none, Refused when a newer program wrote it."""
    row = _decoded(_decode_chunk, value, "chunk")
    if not 0 < row.length <= 1 << 32 or row.frame_size <= 0 or not 0 < row.table_size <= row.stripe.length:
        raise Corrupt("a chunk row whose numbers cannot be", reason="row")
    _check_seal(row.seal)
    return row


def decode_pack(value: bytes) -> PackRow:
    """A pack's row; Corrupt when it is none, Refused when a newer program wrote it."""
    row = _decoded(_decode_pack, value, "pack")
    if len(row.slots) % SLOT.size:
        raise Corrupt("a pack row whose slots are cut", reason="row")
    _check_seal(row.seal)
    return row


def _check_seal(seal: bytes | None) -> None:
    if seal is not None and len(seal) != SEAL.size:
        raise Corrupt("a row whose seal is cut", reason="row")


def decode_stripe(value: bytes) -> StripeRow:
    """A stripe row of the zero queue, its sequence included."""
    return _decoded(_decode_stripe, value[:-8], "stripe")


def _decoded(decode: Callable[[bytes], _Row], value: bytes, what: str) -> _Row:
    """Decode, and settle the version: it is the first item of every record."""
    try:
        row = decode(value)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a {what} row that cannot be read: {error}", reason="row") from error
    if row.version != ROW_VERSION:
        raise Refused(f"a {what} row of version {row.version}; this program reads {ROW_VERSION}", reason="version")
    return row


def slot_at(row: PackRow, number: int) -> Slot:
    """One slot of a pack; Corrupt if the pack has no such slot."""
    start = number * SLOT.size
    if number < 0 or start >= len(row.slots):
        raise Corrupt(f"slot {number} of a pack that has {len(row.slots) // SLOT.size}", reason="slot")
    return Slot._make(SLOT.unpack_from(row.slots, start))


def slots_of(row: PackRow) -> list[Slot]:
    return [Slot._make(fields) for fields in SLOT.iter_unpack(row.slots)]


# -- totals

CHUNK_TOTAL = CHUNKS  # chunks, plaintext bytes, stored bytes, bytes on disks
PACK_TOTAL = PACKS  # packs, live slots, their plaintext bytes, stored bytes, bytes on disks


def pool_total(total: bytes, pool: int) -> bytes:
    """The name of that total of what is kept in one pool."""
    return total + pool.to_bytes(2, "big") if pool else total


def _weigh_chunk(key: bytes, value: bytes) -> tuple[bytes, tuple[int, ...]]:
    row = decode_chunk(value)
    stripe = row.stripe
    return pool_total(CHUNK_TOTAL, stripe.pool), (1, row.length, stripe.length, _on_disks(stripe))


def _weigh_pack(key: bytes, value: bytes) -> tuple[bytes, tuple[int, ...]]:
    row = decode_pack(value)
    stripe = row.stripe
    live = [length for _, _, length, flags, _ in SLOT.iter_unpack(row.slots) if not flags & SLOT_DEAD]
    return pool_total(PACK_TOTAL, stripe.pool), (1, len(live), sum(live), stripe.length, _on_disks(stripe))


def _on_disks(stripe: Stripe) -> int:
    return 0 if stripe.pool else (stripe.k + stripe.m) * stripe.shard_size


WEIGHED: Weighed = {CHUNKS[0]: _weigh_chunk, PACKS[0]: _weigh_pack}


# -- for fsck and jobs


class Record(NamedTuple):
    """A row of these tables, decoded. ``number``: a counter's value, or a queue row's sequence."""

    table: bytes
    kind: Kind | None  # of what it is about; None: a stripe
    id: bytes
    slot: int
    row: ChunkRow | PackRow | StripeRow | None
    number: int


def decode(key: bytes, value: bytes) -> Record:
    """A row of any of these tables. Raises Corrupt for what cannot be one, Refused for a newer version's."""
    table, rest = key[:1], key[1:]
    if table == CHUNKS:
        return Record(table, Kind.CHUNK, _chunk_id(rest), 0, decode_chunk(value), 0)
    if table == CHUNK_COUNTERS:
        return Record(table, Kind.CHUNK, _chunk_id(rest), 0, None, counter(value))
    if table == PACKS and len(rest) == PACK_ID_SIZE:
        return Record(table, Kind.SLOT, rest, 0, decode_pack(value), 0)
    if table == SLOT_COUNTERS and len(rest) == PACK_ID_SIZE + 2:
        return Record(table, Kind.SLOT, rest[:-2], int.from_bytes(rest[-2:], "big"), None, counter(value))
    if table == ZERO and len(value) >= 8:
        kind, name = rest[:1], rest[1:]
        if kind == CHUNKS:
            return Record(table, Kind.CHUNK, _chunk_id(name), 0, None, value_sequence(value))
        if kind == PACKS and len(name) == PACK_ID_SIZE:
            return Record(table, Kind.SLOT, name, 0, None, value_sequence(value))
        if kind == b"s":
            return Record(table, None, name, 0, decode_stripe(value), value_sequence(value))
    raise Corrupt(f"a key that is none of the chunk tables': {key[:32].hex()}", reason="row")


def _chunk_id(name: bytes) -> bytes:
    if len(name) != DOMAIN_SIZE + CHUNK_ID_SIZE:
        raise Corrupt("a chunk key of the wrong length", reason="row")
    if name[:DOMAIN_SIZE] != _DOMAIN:
        raise Refused("a chunk of a deduplication domain that this program does not know", reason="version")
    return name[DOMAIN_SIZE:]


def owner_of(entry: Entry) -> tuple[Owner, bytes]:
    """Under whose name a pool keeps what an entry points to."""
    return (Owner.CHUNK if entry.kind == Kind.CHUNK else Owner.PACK), entry.id


def named(state: State, owner: Owner, owner_id: bytes, write_id: bytes) -> bool:
    """Whether the state still names the stripe of this write: compaction keeps its shards, readers may want them."""
    value = state.get(chunk_key(owner_id) if owner == Owner.CHUNK else pack_key(owner_id))
    if value is not None:
        row = decode_chunk(value) if owner == Owner.CHUNK else decode_pack(value)
        if row.stripe.write_id == write_id:
            return True
    return state.get(ZERO + b"s" + write_id) is not None
