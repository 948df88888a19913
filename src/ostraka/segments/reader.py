"""Reading segment files: the headers of what a file holds, and cells that verify.

Headers come from the footer of a sealed segment. A tail (a segment without an intact footer) is scanned: from
record to record while they are intact; where one is torn, on to the next place that holds an intact header. A power
cut may lose an early write and keep a later one, so the first torn record does not end the tail. A torn header
cannot hide its neighbours and a user's bytes cannot pose as one (format.py says why).
"""

from collections.abc import Iterator
from typing import Final

from ostraka.host import File
from ostraka.segments.format import (
    BUFFERED_ALIGNMENT,
    FOOTER_TRAILER_SIZE,
    RECORD_FIXED_SIZE,
    RECORD_MAGIC,
    SEGMENT_HEADER_SIZE,
    Identity,
    SegmentId,
    ShardHeader,
    align,
    cell_seed,
    first_bad_cell,
    read_segment_alignment,
    record_header_length,
    segment_seed,
    unpack_footer_table,
    unpack_record_header,
    unpack_trailer,
)

_SCAN_SIZE: Final = 1 << 20
_GUESS: Final = 256  # a header of up to 20 cells comes with one read


def _read(file: File, offset: int, size: int) -> bytearray:
    buffer = bytearray(size)
    done = file.preadv([buffer], offset)
    return buffer if done == size else buffer[:done]


def read_header(file: File, seed: int, offset: int) -> ShardHeader | None:
    """The record header at ``offset``, or None if there is no intact one."""
    raw = _read(file, offset, _GUESS)
    length = record_header_length(raw)
    if length is None:
        return None
    if length > len(raw):
        raw = _read(file, offset, min(length, max(0, file.size() - offset)))
    return unpack_record_header(raw, seed, offset)


def read_footer(file: File, identity: Identity, segment: SegmentId) -> list[tuple[int, ShardHeader]] | None:
    """(offset, header) of every record of a sealed segment; None if it has no intact footer."""
    size = file.size()
    if size < SEGMENT_HEADER_SIZE + FOOTER_TRAILER_SIZE:
        return None
    seed = segment_seed(identity, segment)
    trailer = unpack_trailer(_read(file, size - FOOTER_TRAILER_SIZE, FOOTER_TRAILER_SIZE), seed)
    if trailer is None:
        return None
    count, at, length, table_sum = trailer
    if at + length + FOOTER_TRAILER_SIZE > size:
        return None
    return unpack_footer_table(_read(file, at, length), count, table_sum, seed)


def scan(file: File, identity: Identity, segment: SegmentId) -> Iterator[tuple[int, ShardHeader]]:
    """(offset, header) of every record whose header is intact, found without a footer."""
    seed = segment_seed(identity, segment)
    alignment = read_segment_alignment(_read(file, 0, SEGMENT_HEADER_SIZE), identity, segment) or BUFFERED_ALIGNMENT
    size = file.size()
    offset = align(SEGMENT_HEADER_SIZE, alignment)
    while offset + RECORD_FIXED_SIZE <= size:
        header = read_header(file, seed, offset)
        if header is None:
            found = _next_magic(file, offset + alignment, size, alignment)
            if found is None:
                return
            offset = found
            continue
        end = offset + header.data_offset + header.shard_size
        if end > size:  # its data is cut off
            return
        yield offset, header
        offset = align(end, alignment)


def _next_magic(file: File, start: int, size: int, alignment: int) -> int | None:
    """The next aligned place from ``start`` where a record's magic stands."""
    while start + RECORD_FIXED_SIZE <= size:
        block = _read(file, start, min(_SCAN_SIZE, size - start))
        at = block.find(RECORD_MAGIC)
        while at >= 0:
            if (start + at) % alignment == 0:
                return start + at
            at = block.find(RECORD_MAGIC, at + 1)
        if start + len(block) >= size or not block:
            return None
        start += len(block) // alignment * alignment if len(block) >= alignment else alignment
    return None


def headers(file: File, identity: Identity, segment: SegmentId) -> tuple[list[tuple[int, ShardHeader]], bool]:
    """Every record of the segment in the order of offsets, and whether a footer told (the segment is sealed)."""
    listed = read_footer(file, identity, segment)
    if listed is not None:
        return listed, True
    return list(scan(file, identity, segment)), False


def read_shard(file: File, offset: int, header: ShardHeader, first: int, into: memoryview) -> int | None:
    """Fill ``into`` with the shard's bytes from cell ``first`` on, and verify them. ``offset`` is the record's.

    Returns None when all is well, else the number of the first bad cell (cells behind the end of the file are bad).
    """
    at = offset + header.data_offset + first * header.cell_size
    done = file.preadv([into], at)
    while done < len(into):
        more = file.preadv([into[done:]], at + done)
        if not more:
            return first + done // header.cell_size
        done += more
    return first_bad_cell(into, first, header.cell_size, header.cells, cell_seed(header.write_id, header.index))
