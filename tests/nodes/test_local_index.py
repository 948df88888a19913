"""The rows of the shard index: what docs/format/shard-index.md shows, damage to them, and the bytes that they count."""

import re
from pathlib import Path

import lmdb
import pytest

from ostraka.errors import Full
from ostraka.nodes.shard_index import SEALED, SETTLED, ShardIndex, _unpack_row
from ostraka.segments.format import ShardHeader, segment_id
from ostraka.segments.writer import Extent

PAGE = Path(__file__).parents[2] / "docs/format/shard-index.md"


def extent(number: int, sequence: int = 0, offset: int = 64, size: int = 128) -> Extent:
    header = ShardHeader(number.to_bytes(16, "big"), 2, 4, 2, 1, b"", 1000, 24, 65536, 104, b"c" * 8)
    return Extent(segment_id(b"i" * 16, sequence), offset, size, header)


@pytest.fixture
def index(tmp_path: Path) -> ShardIndex:
    return ShardIndex(tmp_path / "shards", 1 << 26, lambda why: None)


def test_the_worked_example_of_the_format_page_decodes() -> None:
    lines = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)$", PAGE.read_text(), re.M)
    raw = b"".join(bytes.fromhex(text) for _, text in lines)
    key, row = raw[:17], raw[17:]
    assert (key[:16], key[16]) == (b"\x77" * 16, 1)
    found = _unpack_row(key, row)
    assert found is not None
    assert (found.segment, found.offset, found.size) == (segment_id(b"\x1c" * 16, 7), 64, 128)
    header = found.header
    assert (header.k, header.m, header.index, header.owner) == (2, 1, 1, 1)
    assert (header.body_length, header.shard_size, header.cell_size, header.data_offset) == (44, 24, 65536, 104)
    for bit in range(len(row) * 8):
        spoiled = bytearray(row)
        spoiled[bit // 8] ^= 1 << bit % 8
        assert _unpack_row(key, bytes(spoiled)) is None, bit
    assert _unpack_row(b"\x76" + key[1:], row) is None, "a row is bound to its key"


def test_live_bytes_follow_what_is_named(index: ShardIndex) -> None:
    index.put([extent(1), extent(2, offset=192), extent(3, 1)])
    assert {i.segment[-1]: (i.total, i.live) for i in index.segments()} == {0: (320, 256), 1: (192, 128)}
    index.put([extent(1, 1, offset=192)])  # written anew
    assert {i.segment[-1]: (i.total, i.live) for i in index.segments()} == {0: (320, 128), 1: (320, 256)}
    index.remove([(extent(2).header.write_id, 2), (b"?" * 16, 0)])
    assert {i.segment[-1]: i.live for i in index.segments()} == {0: 0, 1: 256}
    index.mark(segment_id(b"i" * 16, 0), total=999, flags=SEALED)
    index.mark(segment_id(b"i" * 16, 0), flags=SETTLED)
    (first, _) = sorted(index.segments(), key=lambda i: i.segment)
    assert (first.total, first.live, first.sealed, first.settled) == (999, 0, True, True)


def test_a_move_touches_only_rows_that_still_name_the_old_place(index: ShardIndex) -> None:
    index.put([extent(1), extent(2, offset=192)])
    index.remove([(extent(2).header.write_id, 2)])
    index.move(
        [(extent(1), extent(1, 5)), (extent(2, offset=192), extent(2, 5, offset=192)), (None, extent(3, 5, 320))]
    )
    for number, sequence in ((1, 5), (3, 5)):
        found = index.get(extent(number).header.write_id, 2)
        assert found is not None
        assert found.segment == segment_id(b"i" * 16, sequence)
    assert index.get(extent(2).header.write_id, 2) is None
    assert {i.segment[-1]: i.live for i in index.segments()} == {0: 0, 5: 256}


def test_a_damaged_row_reads_as_missing(index: ShardIndex) -> None:
    index.put([extent(1)])
    key = extent(1).header.key
    with index._env.begin(write=True, db=index._rows) as txn:
        row = bytearray(txn.get(key) or b"")
        row[22] ^= 1
        txn.put(key, bytes(row))
    assert index.get(key[:16], key[16]) is None
    index.put([extent(1)])
    assert index.get(key[:16], key[16]) is not None


def test_an_index_without_room_is_full_and_a_broken_one_a_failed_disk(tmp_path: Path) -> None:
    index = ShardIndex(tmp_path / "small", 1 << 16, pytest.fail)
    with pytest.raises(Full):
        for number in range(10_000):
            index.put([extent(number)])


def test_whoever_opened_it_is_told_of_damage(tmp_path: Path) -> None:
    told: list[str] = []
    index = ShardIndex(tmp_path / "shards", 1 << 26, told.append)
    index.put([extent(1)])
    assert index.get(extent(1).header.write_id, 2) == extent(1)
    with index._env.begin(write=True, db=index._rows) as txn:
        txn.put(extent(1).header.key, b"damage" * 20)
    assert not told
    assert index.get(extent(1).header.write_id, 2) is None
    with pytest.raises(OSError, match="next start"), index._faults():
        raise lmdb.CorruptedError("page")
    assert [why.split()[0] for why in told] == ["a", "page"]
