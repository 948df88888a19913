"""What docs/format/segment.md promises of the bytes, decoded by the real decoder."""

import itertools
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from ostraka.errors import Refused
from ostraka.segments import format as fmt

PAGE = Path(__file__).parents[2] / "docs/format/segment.md"
IDENTITY = fmt.Identity(bytes.fromhex("5a" * 16), 3)
SEGMENT = fmt.segment_id(bytes.fromhex("1c" * 16), 7)
SEED = fmt.segment_seed(IDENTITY, SEGMENT)
DATA = b"a shard of 24 bytes.\0\0\0\0"


def example() -> bytes:
    """The segment of the worked example: one record of one cell, sealed."""
    head = fmt.pack_segment_header(IDENTITY, SEGMENT, 8)
    write_id = bytes.fromhex("77" * 16)
    cells = fmt.sum_cells([DATA], 65536, write_id, 1)
    header = fmt.ShardHeader(write_id, 1, 2, 1, 1, b"owner", 44, 24, 65536, 104, cells)
    record = fmt.pack_record_header(header, SEED, 64)
    return head + record + DATA + fmt.pack_footer([(64, record)], 192, SEED, 8)


def dump(raw: bytes) -> str:
    return "\n".join(f"{i:04x}  {raw[i : i + 16].hex(' ')}" for i in range(0, len(raw), 16))


def test_the_worked_example_of_the_format_page_is_what_is_written_and_read() -> None:
    lines = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)$", PAGE.read_text(), re.M)
    raw = b"".join(bytes.fromhex(text) for _, text in lines)
    assert raw == example(), "docs/format/segment.md should show:\n" + dump(example())
    assert fmt.read_segment_alignment(raw, IDENTITY, SEGMENT) == 8
    header = fmt.unpack_record_header(raw[64:], SEED, 64)
    assert header is not None
    assert (header.k, header.m, header.index, header.owner, header.owner_id) == (2, 1, 1, 1, b"owner")
    assert (header.body_length, header.shard_size, header.cell_size) == (44, 24, 65536)
    data = memoryview(raw)[64 + header.data_offset :][: header.shard_size]
    assert data == DATA
    assert fmt.first_bad_cell(data, 0, 65536, header.cells, fmt.cell_seed(header.write_id, 1)) is None
    trailer = fmt.unpack_trailer(raw[-fmt.FOOTER_TRAILER_SIZE :], SEED)
    assert trailer is not None
    count, at, length, table_sum = trailer
    assert fmt.unpack_footer_table(raw[at : at + length], count, table_sum, SEED) == [(64, header)]


def test_any_flipped_bit_of_a_header_or_footer_is_noticed() -> None:
    raw = example()
    header = fmt.unpack_record_header(raw[64:168], SEED, 64)
    for bit in range(64 * 8):
        flipped = _flip(raw, bit)
        assert fmt.read_segment_alignment(flipped, IDENTITY, SEGMENT) is None, bit
    for bit in range(64 * 8, 168 * 8):
        assert fmt.unpack_record_header(_flip(raw, bit)[64:], SEED, 64) is None, bit
    for bit in range((len(raw) - fmt.FOOTER_TRAILER_SIZE) * 8, len(raw) * 8):
        assert fmt.unpack_trailer(_flip(raw, bit)[-fmt.FOOTER_TRAILER_SIZE :], SEED) is None, bit
    count, at, length, table_sum = fmt.unpack_trailer(raw[-fmt.FOOTER_TRAILER_SIZE :], SEED) or (0, 0, 0, 0)
    for bit in range(at * 8, (at + length) * 8):
        assert fmt.unpack_footer_table(_flip(raw, bit)[at : at + length], count, table_sum, SEED) is None, bit
    assert header is not None


def _flip(raw: bytes, bit: int) -> bytes:
    flipped = bytearray(raw)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def test_a_record_is_believed_only_where_it_was_written() -> None:
    raw = example()[64:]
    other = fmt.segment_seed(IDENTITY, fmt.segment_id(bytes(16), 7))
    stranger = fmt.segment_seed(fmt.Identity(bytes(16), 3), SEGMENT)
    assert fmt.unpack_record_header(raw, SEED, 64) is not None
    assert fmt.unpack_record_header(raw, SEED, 72) is None, "another offset"
    assert fmt.unpack_record_header(raw, other, 64) is None, "another segment"
    assert fmt.unpack_record_header(raw, stranger, 64) is None, "another store"


def test_a_cell_is_believed_only_as_its_own() -> None:
    """Two cells with the same bytes, swapped or from another shard, do not verify in each other's place."""
    data = memoryview(bytes(range(256)) * 8)
    cells = fmt.sum_cells([data], 1024, b"w" * 16, 2)
    assert fmt.first_bad_cell(data, 0, 1024, cells, fmt.cell_seed(b"w" * 16, 2)) is None
    assert cells[:8] != cells[8:], "equal bytes, different cells"
    assert fmt.first_bad_cell(data, 0, 1024, cells[8:] + cells[:8], fmt.cell_seed(b"w" * 16, 2)) == 0
    assert fmt.first_bad_cell(data, 0, 1024, cells, fmt.cell_seed(b"w" * 16, 3)) == 0
    assert fmt.first_bad_cell(data, 0, 1024, cells, fmt.cell_seed(b"v" * 16, 2)) == 0
    assert fmt.first_bad_cell(data[1024:], 1, 1024, cells, fmt.cell_seed(b"w" * 16, 2)) is None
    spoiled = bytearray(data)
    spoiled[1500] ^= 4
    assert fmt.first_bad_cell(memoryview(spoiled), 0, 1024, cells, fmt.cell_seed(b"w" * 16, 2)) == 1


@given(st.binary(max_size=5000), st.lists(st.integers(0, 5000), max_size=3), st.sampled_from([512, 1024, 65536]))
def test_checksums_do_not_depend_on_how_a_shard_was_cut_into_pieces(data: bytes, cuts: list[int], cell: int) -> None:
    edges = sorted({0, len(data), *(c for c in cuts if c < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)] or [b""]
    assert fmt.sum_cells(pieces, cell, b"w" * 16, 0) == fmt.sum_cells([data], cell, b"w" * 16, 0)


@given(st.binary(max_size=300))
def test_hostile_bytes_are_no_record_and_no_error(raw: bytes) -> None:
    assert fmt.unpack_record_header(raw, SEED, 0) is None
    assert fmt.unpack_record_header(fmt.RECORD_MAGIC + raw, SEED, 0) is None
    assert fmt.unpack_footer_table(raw, 3, xxh3_64_intdigest(raw, seed=SEED), SEED) is None


def test_a_segment_of_a_later_version_is_refused_by_name() -> None:
    head = bytearray(fmt.pack_segment_header(IDENTITY, SEGMENT, 8))
    struct.pack_into("<H", head, 8, 2)
    head[-8:] = struct.pack("<Q", xxh3_64_intdigest(bytes(head[:-8])))
    with pytest.raises(Refused, match="format 2"):
        fmt.read_segment_alignment(head, IDENTITY, SEGMENT)


@pytest.mark.parametrize("name", ["x", "1c" * 16 + "-0000007.segment", "1c" * 16 + "-0000000G.segment", ".segment"])
def test_a_file_with_another_name_is_no_segment(name: str) -> None:
    assert fmt.parse_segment_name(name) is None
    assert fmt.parse_segment_name(fmt.segment_name(SEGMENT)) == SEGMENT
