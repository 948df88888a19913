"""The stored form of a pack: a head that names its slots, then the bodies (docs/format/pack.md).

Plain functions over memory. The pack's row in the state repeats the slots, so that one slot is read with a single
read of exactly its bytes; the head is for fsck and for people, who find a pack without the state.
"""

from collections.abc import Sequence
from struct import Struct as Layout
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from ostraka.chunks import frames
from ostraka.chunks.frames import CHECKSUM, KEEP_RATIO
from ostraka.chunks.rows import SLOT, SLOT_CODEC, SLOT_DEAD, SLOT_GONE, PackRow, Slot, slots_of
from ostraka.chunks.sealing import CIPHER_NONE, CIPHERS, PLACE, TAG_SIZE, DataKey, cipher_of
from ostraka.chunks.types import Codec, Recipe
from ostraka.errors import Corrupt, Refused
from ostraka.host import Buffer

MAGIC = b"OSTp"
VERSION = 1
HEADER = Layout(">4sBBHI4x")  # magic, version, cipher, reserved, slots
COMPRESS_FROM = 512  # below, even text saves less than a compression and a decompression cost


class BuiltPack(NamedTuple):
    """A pack as it goes to the pool, and what its row says of its slots."""

    body: bytes
    slots: bytes
    compressed: Sequence[tuple[Codec, int, int]] = ()  # of each slot that shrank: bytes before, and after


def head_size(count: int) -> int:
    return HEADER.size + count * SLOT.size + CHECKSUM.size


def build(bodies: Sequence[tuple[bytes, Recipe]], pack: bytes = b"", key: DataKey | None = None) -> BuiltPack:
    """Checksum each body, compress it by its recipe where that pays, and put them together; each sealed under
    ``key``, if there is one, as a slot of this pack."""
    offset = head_size(len(bodies))
    masks = [0] * len(bodies) if key is None else key.masks(0, len(bodies))
    slots, stored, compressed = [], [], []
    for number, (body, recipe) in enumerate(bodies):
        size, codec, kept = len(body), Codec.RAW, body
        if size >= COMPRESS_FROM and recipe.codec != Codec.RAW:
            packed = frames.compressor(recipe)(body)
            if len(packed) <= KEEP_RATIO * size:
                kept, codec = packed, recipe.codec
                compressed.append((codec, size, len(packed)))
        if key is not None:
            kept = key.seal(number, kept, _bound(pack, number, codec, size))
        slots.append(SLOT.pack(offset, len(kept), size, codec, xxh3_64_intdigest(body) ^ masks[number]))
        stored.append(kept)
        offset += len(kept)
    table = b"".join(slots)
    return BuiltPack(_assemble(table, stored, CIPHER_NONE if key is None else key.cipher), table, compressed)


def _bound(pack: bytes, number: int, codec: int, plain: int) -> bytes:
    """What a sealed slot belongs to. Its pack's number of slots is not part of it: it says nothing of this one."""
    return pack + PLACE.pack(number, 0, codec, plain)


def rebuild(body: memoryview, row: PackRow) -> BuiltPack:
    """The pack without its dead slots. Each live one is verified before it is copied; Corrupt if one is not good.

    Sealed slots are copied as they are: it takes no key, for neither the pack's id nor a slot's number changes.
    """
    old = slots_of(row)
    offset = head_size(len(old))
    slots: list[bytes] = []
    stored: list[Buffer] = []
    for slot in old:
        if slot.flags & (SLOT_DEAD | SLOT_GONE):
            flags = slot.flags | SLOT_DEAD | SLOT_GONE
            slots.append(SLOT.pack(0, 0, slot.length, flags, slot.checksum))
            continue
        piece = body[slot.offset : slot.offset + slot.stored]
        if row.seal is None:
            open_slot(piece, slot)
        elif len(piece) != slot.stored:
            raise _outside()
        slots.append(SLOT.pack(offset, slot.stored, slot.length, slot.flags, slot.checksum))
        stored.append(piece)
        offset += slot.stored
    table = b"".join(slots)
    return BuiltPack(_assemble(table, stored, cipher_of(row.seal)), table)


def _assemble(table: bytes, stored: Sequence[Buffer], cipher: int) -> bytes:
    head = HEADER.pack(MAGIC, VERSION, cipher, 0, len(table) // SLOT.size) + table
    return b"".join([head, CHECKSUM.pack(xxh3_64_intdigest(head)), *stored])


def parse(body: Buffer) -> list[Slot]:
    """The slots as a pack's own head has them. Corrupt if there is no whole head."""
    view = memoryview(body)
    if len(view) < head_size(0) or bytes(view[:4]) != MAGIC:
        raise Corrupt("no pack head where a pack begins", reason="pack-head")
    _, version, cipher, _, count = HEADER.unpack_from(view)
    end = head_size(count) - CHECKSUM.size
    if len(view) < end + CHECKSUM.size or CHECKSUM.unpack_from(view, end)[0] != xxh3_64_intdigest(view[:end]):
        raise Corrupt("a pack head that does not match its checksum", reason="pack-head")
    if version != VERSION or (cipher != CIPHER_NONE and cipher not in CIPHERS):
        raise Refused(f"a pack of version {version}, cipher {cipher}; this program reads {VERSION}", reason="version")
    return [Slot._make(fields) for fields in SLOT.iter_unpack(view[HEADER.size : end])]


def _outside() -> Corrupt:
    return Corrupt("a slot that lies outside of its pack", reason="slot")


def open_sealed(data: memoryview, slot: Slot, number: int, key: DataKey, pack: bytes) -> Buffer:
    """As open_slot, of a pack whose slots are sealed."""
    if len(data) != slot.stored or slot.stored < TAG_SIZE:
        raise _outside()
    kept = key.open(number, data, _bound(pack, number, slot.flags & SLOT_CODEC, slot.length))
    bare = Slot(0, len(kept), slot.length, slot.flags, slot.checksum ^ key.masks(number, 1)[0])
    return open_slot(memoryview(kept), bare)


def open_slot(data: memoryview, slot: Slot) -> Buffer:
    """The plaintext of a slot from its stored bytes, verified over the memory that is returned."""
    if len(data) != slot.stored:
        raise _outside()
    codec = slot.flags & SLOT_CODEC
    plain: Buffer
    if codec == Codec.RAW and slot.stored == slot.length:
        plain = data
    elif codec in (Codec.ZSTD, Codec.LZ4):
        plain = frames.inflate(codec, data, slot.length)
    else:
        raise Corrupt(f"a slot of codec {codec} that cannot be", reason="slot")
    if xxh3_64_intdigest(plain) != slot.checksum:
        raise Corrupt("a slot does not match the checksum that was made when it came in", reason="slot")
    return plain
