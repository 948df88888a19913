"""The bytes of a segment file: its header, its records and its footer (docs/format/segment.md).

Pure packing and unpacking. A reader that is given bytes from a damaged disk gets None or False, never an exception:
what to do about damage is for others to decide. Only a file that is intact and of a later version is `Refused`.

Two bindings let misplaced bytes be noticed, whatever the disk did: a record's header checksum is seeded with the
segment's identity and the record's place in it, so neither a stale block nor a user's body can pose as a record;
a cell's checksum is seeded with (write id, index, cell number), and so stays true when compaction moves the record.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

from ostraka.errors import Refused
from ostraka.host import Buffer

SegmentId = bytes  # 16 bytes of the incarnation that wrote it, 4 bytes big-endian sequence

SEGMENT_ID_SIZE: Final = 20
SEGMENT_SUFFIX: Final = ".segment"
SEGMENT_VERSION: Final = 1
SEGMENT_MAGIC: Final = b"OstrSeg\n"
SEGMENT_HEADER: Final = struct.Struct("<8sHHII16s16sIQ")  # the last 8 bytes are the checksum
SEGMENT_HEADER_SIZE: Final = 64

RECORD_VERSION: Final = 1
RECORD_MAGIC: Final = b"\xd5Rec"
RECORD_FIXED: Final = struct.Struct("<4sBBBBBBBxIQQII16s32s")
RECORD_FIXED_SIZE: Final = 88
CELL_SUM_SIZE: Final = 8
RECORD_SUM_SIZE: Final = 8
OWNER_ID_SIZE_MAX: Final = 32
CELLS_MAX: Final = 1 << 20

FOOTER_MAGIC: Final = b"OstrFoot"
FOOTER_TRAILER: Final = struct.Struct("<8sHHIQQQQ")
FOOTER_TRAILER_SIZE: Final = 48
FOOTER_ENTRY: Final = struct.Struct("<QI")

BUFFERED_ALIGNMENT: Final = 8
DIRECT_ALIGNMENT: Final = 4096  # what O_DIRECT asks of every disk in use

_MASK: Final = (1 << 64) - 1
_SUM: Final = struct.Struct("<Q")

assert SEGMENT_HEADER.size == SEGMENT_HEADER_SIZE
assert RECORD_FIXED.size == RECORD_FIXED_SIZE
assert FOOTER_TRAILER.size == FOOTER_TRAILER_SIZE


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose segment it is: everything of a segment header that a disk knows without reading it."""

    store_id: bytes  # 16 bytes
    disk: int

    def __post_init__(self) -> None:
        assert len(self.store_id) == 16, "a store id is 16 bytes"


class ShardHeader(msgspec.Struct, frozen=True, gc=False):
    """What a record says of its shard. ``cells`` holds an 8-byte checksum for each cell."""

    write_id: bytes
    index: int
    k: int
    m: int
    owner: int
    owner_id: bytes
    body_length: int
    shard_size: int
    cell_size: int
    data_offset: int  # from the record's first byte
    cells: bytes

    @property
    def key(self) -> bytes:
        return self.write_id + bytes((self.index,))


def align(number: int, alignment: int) -> int:
    return -(-number // alignment) * alignment


def segment_id(incarnation: bytes, sequence: int) -> SegmentId:
    assert len(incarnation) == 16, "an incarnation is 16 bytes"
    return incarnation + sequence.to_bytes(4, "big")


def segment_name(segment: SegmentId) -> str:
    return f"{segment[:16].hex()}-{segment[16:].hex()}{SEGMENT_SUFFIX}"


def parse_segment_name(name: str) -> SegmentId | None:
    """The id in a file name, or None if the name is not one that we give."""
    stem = name.removesuffix(SEGMENT_SUFFIX)
    if stem == name or len(stem) != 41 or stem[32] != "-":
        return None
    try:
        segment = bytes.fromhex(stem[:32]) + bytes.fromhex(stem[33:])
    except ValueError:
        return None
    return segment if segment_name(segment) == name else None


# -- the segment's header


def pack_segment_header(identity: Identity, segment: SegmentId, alignment: int) -> bytes:
    head = SEGMENT_HEADER.pack(
        SEGMENT_MAGIC,
        SEGMENT_VERSION,
        0,
        alignment,
        identity.disk,
        identity.store_id,
        segment[:16],
        int.from_bytes(segment[16:], "big"),
        0,
    )
    return head[:-8] + _SUM.pack(xxh3_64_intdigest(head[:-8]))


def read_segment_alignment(head: Buffer, identity: Identity, segment: SegmentId) -> int | None:
    """The alignment of a segment whose header is intact and its own; None if it is not.

    Raises Refused if a later version of Ostraka wrote it.
    """
    if len(head) < SEGMENT_HEADER_SIZE:
        return None
    head = bytes(head[:SEGMENT_HEADER_SIZE])
    magic, version, _, alignment, disk, store_id, incarnation, sequence, checksum = SEGMENT_HEADER.unpack(head)
    if magic != SEGMENT_MAGIC or checksum != xxh3_64_intdigest(head[:-8]):
        return None
    if version != SEGMENT_VERSION:
        raise Refused(f"segment {segment_name(segment)} has format {version}; this Ostraka reads {SEGMENT_VERSION}")
    if (disk, store_id, incarnation, sequence) != (
        identity.disk,
        identity.store_id,
        segment[:16],
        int.from_bytes(segment[16:], "big"),
    ):
        return None
    return int(alignment) if alignment in (BUFFERED_ALIGNMENT, DIRECT_ALIGNMENT) else None


def segment_seed(identity: Identity, segment: SegmentId) -> int:
    """What binds records and footer to their segment."""
    return xxh3_64_intdigest(identity.store_id + segment)


# -- cells


def cell_seed(write_id: bytes, index: int) -> int:
    return xxh3_64_intdigest(write_id + bytes((index,)))


def sum_cells(data: Sequence[Buffer], cell_size: int, write_id: bytes, index: int) -> bytes:
    """The checksums of a shard's cells; its data may come in pieces that do not end where cells do."""
    seed = cell_seed(write_id, index)
    sums: list[int] = []
    if len(data) > 1 and any(len(piece) % cell_size for piece in data[:-1]):
        data = [b"".join(data)]
    for piece in data:
        view = memoryview(piece)
        for start in range(0, len(view), cell_size):
            sums.append(xxh3_64_intdigest(view[start : start + cell_size], seed=(seed + len(sums)) & _MASK))
    return struct.pack(f"<{len(sums)}Q", *sums)


def first_bad_cell(data: memoryview, first: int, cell_size: int, cells: bytes, seed: int) -> int | None:
    """The number of the first cell that does not verify, or None. ``data`` begins at cell ``first``."""
    count = -(-len(data) // cell_size)
    if count == 1:
        good = xxh3_64_intdigest(data, seed=(seed + first) & _MASK) == _SUM.unpack_from(cells, first * CELL_SUM_SIZE)[0]
        return None if good else first
    sums = struct.unpack_from(f"<{count}Q", cells, first * CELL_SUM_SIZE)
    start = 0
    for number, expected in enumerate(sums, first):
        if xxh3_64_intdigest(data[start : start + cell_size], seed=(seed + number) & _MASK) != expected:
            return number
        start += cell_size
    return None


# -- records


def record_header_size(cell_count: int) -> int:
    return RECORD_FIXED_SIZE + cell_count * CELL_SUM_SIZE + RECORD_SUM_SIZE


def record_size(shard_size: int, cell_count: int, alignment: int) -> tuple[int, int]:
    """(data offset, bytes to the next record) of a record in a segment of that alignment."""
    data_offset = align(record_header_size(cell_count), alignment)
    return data_offset, align(data_offset + shard_size, alignment)


def pack_record_header(header: ShardHeader, seed: int, offset: int) -> bytes:
    """The header as it stands at ``offset`` of the segment that ``seed`` belongs to, without padding."""
    assert len(header.write_id) == 16, "a write id is 16 bytes"
    assert len(header.owner_id) <= OWNER_ID_SIZE_MAX, "an owner id is at most 32 bytes"
    assert 0 <= header.index < header.k + header.m, "a shard's index is below k+m"
    body = (
        RECORD_FIXED.pack(
            RECORD_MAGIC,
            RECORD_VERSION,
            0,
            header.k,
            header.m,
            header.index,
            header.owner,
            len(header.owner_id),
            header.cell_size,
            header.body_length,
            header.shard_size,
            len(header.cells) // CELL_SUM_SIZE,
            header.data_offset,
            header.write_id,
            header.owner_id,
        )
        + header.cells
    )
    return body + _SUM.pack(xxh3_64_intdigest(body, seed=(seed + offset) & _MASK))


def record_header_length(fixed: Buffer) -> int | None:
    """How long the header that begins with these bytes claims to be; None if it cannot be one."""
    if len(fixed) < RECORD_FIXED_SIZE or bytes(fixed[:4]) != RECORD_MAGIC:
        return None
    cell_count = int.from_bytes(fixed[32:36], "little")
    return record_header_size(cell_count) if cell_count <= CELLS_MAX else None


def unpack_record_header(raw: Buffer, seed: int, offset: int) -> ShardHeader | None:
    """The header at ``offset`` of the segment, or None if these bytes are no intact header of that place."""
    length = record_header_length(raw)
    if length is None or len(raw) < length:
        return None
    raw = bytes(raw[:length])
    if _SUM.unpack_from(raw, length - RECORD_SUM_SIZE)[0] != xxh3_64_intdigest(
        raw[:-RECORD_SUM_SIZE], seed=(seed + offset) & _MASK
    ):
        return None
    fields = RECORD_FIXED.unpack_from(raw)
    _, version, _, k, m, index, owner, owner_size, cell_size, body_length, shard_size, cell_count, data_offset = fields[
        :13
    ]
    if version != RECORD_VERSION or owner_size > OWNER_ID_SIZE_MAX or not cell_size or index >= k + m:
        return None
    if cell_count != -(-shard_size // cell_size) or data_offset < length:
        return None
    return ShardHeader(
        fields[13],
        index,
        k,
        m,
        owner,
        fields[14][:owner_size],
        body_length,
        shard_size,
        cell_size,
        data_offset,
        raw[RECORD_FIXED_SIZE:-RECORD_SUM_SIZE],
    )


# -- the footer of a sealed segment


def pack_footer(records: Sequence[tuple[int, bytes]], at: int, seed: int, alignment: int) -> bytes:
    """The footer that is written at ``at``, the end of the records: their headers, and a trailer that ends the file.

    ``records`` are (offset, packed header). ``at`` is aligned, and so is the end of what is returned.
    """
    table = b"".join(FOOTER_ENTRY.pack(offset, len(raw)) + raw for offset, raw in records)
    padding = align(len(table) + FOOTER_TRAILER_SIZE, alignment) - len(table) - FOOTER_TRAILER_SIZE
    trailer = FOOTER_TRAILER.pack(
        FOOTER_MAGIC,
        SEGMENT_VERSION,
        0,
        len(records),
        at,
        len(table),
        xxh3_64_intdigest(table, seed=seed),
        0,
    )[:-8]
    return table + bytes(padding) + trailer + _SUM.pack(xxh3_64_intdigest(trailer, seed=seed))


def footer_size(cell_counts: Iterable[int], alignment: int) -> int:
    """Bytes of the footer of a segment whose records have so many cells each."""
    table = sum(FOOTER_ENTRY.size + record_header_size(count) for count in cell_counts)
    return align(table + FOOTER_TRAILER_SIZE, alignment)


def unpack_trailer(raw: Buffer, seed: int) -> tuple[int, int, int, int] | None:
    """(record count, table offset, table length, table checksum) from the last bytes of a file, or None."""
    if len(raw) != FOOTER_TRAILER_SIZE:
        return None
    raw = bytes(raw)
    magic, version, _, count, at, length, table_sum, checksum = FOOTER_TRAILER.unpack(raw)
    if magic != FOOTER_MAGIC or version != SEGMENT_VERSION or checksum != xxh3_64_intdigest(raw[:-8], seed=seed):
        return None
    return count, at, length, table_sum


def unpack_footer_table(table: Buffer, count: int, table_sum: int, seed: int) -> list[tuple[int, ShardHeader]] | None:
    """(offset, header) of every record, or None if the table is damaged."""
    if xxh3_64_intdigest(table, seed=seed) != table_sum:
        return None
    records: list[tuple[int, ShardHeader]] = []
    at = 0
    view = memoryview(table)
    for _ in range(count):
        if at + FOOTER_ENTRY.size > len(view):
            return None
        offset, length = FOOTER_ENTRY.unpack_from(view, at)
        at += FOOTER_ENTRY.size
        header = unpack_record_header(view[at : at + length], seed, offset)
        if header is None:
            return None
        records.append((offset, header))
        at += length
    return records
