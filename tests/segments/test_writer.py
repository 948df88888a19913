"""When a shard is durable, what a failed write or sync means, and what is found after a crash."""

import errno
import itertools
import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ostraka.limits import LIMITS, Limits
from ostraka.segments import format as fmt
from ostraka.segments.reader import headers, read_footer, read_shard, scan
from ostraka.segments.writer import Extent, Record, SegmentFailed, SegmentWriter
from ostraka.testing.files import FaultyFiles

IDENTITY = fmt.Identity(b"s" * 16, 4)
KINDS = pytest.mark.parametrize("direct", [False, True], ids=["buffered", "direct"])


class Rig:
    """A writer on a directory, and what it published."""

    def __init__(self, directory: Path, direct: bool, limits: Limits = LIMITS) -> None:
        self.files = FaultyFiles()
        self.directory = directory
        self.published: list[Extent] = []
        self.sealed: list[tuple[bytes, int]] = []
        self.writer = SegmentWriter(
            directory,
            IDENTITY,
            b"i" * 16,
            itertools.count(),
            self.files,
            limits,
            direct=direct,
            on_sealed=lambda segment, size: self.sealed.append((segment, size)),
        )

    def append(self, *records: Record) -> list[Extent]:
        return self.writer.append(records, self.published.extend)

    def read(self, extent: Extent) -> bytes | int:
        file = self.files.open(self.directory / fmt.segment_name(extent.segment))
        into = memoryview(bytearray(extent.header.shard_size))
        bad = read_shard(file, extent.offset, extent.header, 0, into)
        file.close()
        return bytes(into) if bad is None else bad

    def found(self) -> dict[bytes, tuple[int, fmt.ShardHeader]]:
        """What a rebuild would find, by shard key."""
        found = {}
        for name in self.files.names(self.directory):
            segment = fmt.parse_segment_name(name)
            assert segment is not None
            file = self.files.open(self.directory / name)
            listed, _ = headers(file, IDENTITY, segment)
            file.close()
            found.update({header.key: (offset, header) for offset, header in listed})
        return found


def record(write_id: bytes, data: bytes | Sequence[bytes], cell_size: int = 1024) -> Record:
    pieces = [data] if isinstance(data, bytes) else list(data)
    size = sum(map(len, pieces))
    cells = fmt.sum_cells(pieces, cell_size, write_id, 0)
    return Record(fmt.ShardHeader(write_id, 0, 1, 0, 1, b"owner", size, size, cell_size, 0, cells), pieces)


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


@KINDS
def test_what_was_appended_reads_back_whatever_its_size_and_its_pieces(tmp_path: Path, direct: bool, seed: int) -> None:
    rig = Rig(tmp_path, direct)
    rng = random.Random(seed)
    bodies = {}
    for number, size in enumerate([1, 7, 8, 9, 1023, 1024, 1025, 4096, 65537, 700_001]):
        body = rng.randbytes(size)
        cut = rng.randrange(size)
        extents = rig.append(record(key(number), [body[:cut], body[cut:]]))
        bodies[extents[0]] = body
    for extent, body in bodies.items():
        assert rig.read(extent) == body
    rig.writer.seal()
    for extent, body in bodies.items():
        assert rig.read(extent) == body
    assert {k[:16] for k in rig.found()} == {key(n) for n in range(len(bodies))}


@KINDS
def test_nothing_is_published_before_its_data_and_its_directory_entry_were_synced(tmp_path: Path, direct: bool) -> None:
    rig = Rig(tmp_path, direct)
    seen: list[tuple[dict[Path, list[tuple[int, int]]], list[Path]]] = []
    rig.writer.append(
        [record(key(1), b"x" * 5000)],
        lambda extents: seen.append((dict(rig.files.unsynced), list(rig.files.directory_syncs))),
    )
    assert seen == [({}, [tmp_path])], "no unsynced range, one synced directory"


@KINDS
def test_writers_that_wait_together_share_a_sync(tmp_path: Path, direct: bool) -> None:
    rig = Rig(tmp_path, direct)
    rig.append(record(key(0), b"first"))
    held, holding, release = threading.Event(), threading.Lock(), threading.Event()

    def slow(extents: Sequence[Extent]) -> None:
        held.set()

    before = rig.files.syncs
    original = rig.files.meet

    def meet(op: str, path: Path) -> None:
        if op == "sync_data" and holding.acquire(blocking=False):
            held.set()
            assert release.wait(10)
        original(op, path)

    rig.files.meet = meet  # type: ignore[method-assign]
    first = threading.Thread(target=lambda: rig.writer.append([record(key(1), b"leads")], slow))
    first.start()
    assert held.wait(10)
    others = [threading.Thread(target=lambda n=n: rig.append(record(key(n), b"waits"))) for n in range(2, 10)]
    for thread in others:
        thread.start()
    segment = rig.writer._current
    assert segment is not None
    while len(segment._waiting) < 8:  # all eight have written and wait
        threading.Event().wait(0.001)
    release.set()
    for thread in [first, *others]:
        thread.join(10)
    assert rig.files.syncs - before == 2, "one for the leader, one for the eight that waited"
    assert len(rig.published) == 9


@KINDS
@pytest.mark.parametrize("op", ["sync_data", "pwritev"])
def test_after_a_failed_sync_or_write_the_segment_is_given_up_and_the_shard_written_elsewhere(
    tmp_path: Path, direct: bool, op: str
) -> None:
    rig = Rig(tmp_path, direct)
    kept = rig.append(record(key(1), b"a" * 9000))[0]
    rig.files.fail(op, ".segment", errno.EIO)
    moved = rig.append(record(key(2), b"b" * 9000))[0]
    assert moved.segment != kept.segment, "a failed sync is never tried again on the same file"
    assert (rig.read(kept), rig.read(moved)) == (b"a" * 9000, b"b" * 9000)
    assert rig.published == [kept, moved]
    assert [segment for segment, _ in rig.sealed] == [kept.segment]
    after = rig.append(record(key(3), b"c"))[0]
    assert after.segment == moved.segment


@KINDS
def test_a_sync_that_fails_fails_everyone_who_waited_for_it(tmp_path: Path, direct: bool) -> None:
    """Pages of all of them may be gone: each writes anew, and all are found in the new segment."""
    rig = Rig(tmp_path, direct)
    rig.append(record(key(0), b"first"))
    rig.files.fail("sync_data", ".segment", errno.EIO)
    results: dict[int, Extent] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: rig.append(record(key(n), b"z" * n))[0]}))
        for n in range(1, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert set(results) == set(range(1, 9))
    rig.files.tear()
    for n, extent in results.items():
        assert rig.read(extent) == b"z" * n


@KINDS
def test_two_segments_that_fail_in_a_row_are_a_failed_disk(tmp_path: Path, direct: bool) -> None:
    rig = Rig(tmp_path, direct)
    rig.files.fail("sync_data", ".segment", errno.EIO, count=2)
    with pytest.raises(SegmentFailed) as failed:
        rig.append(record(key(1), b"b" * 9000))
    assert failed.value.errno == errno.EIO
    assert not rig.published
    assert rig.append(record(key(1), b"b" * 9000)), "the writer itself goes on: who decides is above"


@KINDS
def test_a_directory_that_cannot_be_synced_acknowledges_nothing(tmp_path: Path, direct: bool) -> None:
    rig = Rig(tmp_path, direct)
    rig.files.fail("sync_directory", "", errno.EIO, count=2)
    with pytest.raises(OSError, match="Input/output"):
        rig.append(record(key(1), b"b"))
    assert not rig.published


@KINDS
def test_no_room_in_the_middle_of_a_write_harms_nothing_and_is_no_failure(tmp_path: Path, direct: bool) -> None:
    rig = Rig(tmp_path, direct)
    kept = rig.append(record(key(1), b"a" * 9000))[0]
    rig.files.fail("pwritev", ".segment", errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        rig.append(record(key(2), b"b" * 90000))
    after = rig.append(record(key(3), b"c" * 90000))[0]
    assert after.segment == kept.segment
    assert (rig.read(kept), rig.read(after)) == (b"a" * 9000, b"c" * 90000)
    assert key(2) + b"\0" not in {e.header.key for e in rig.published}
    assert rig.found().keys() >= {key(1) + b"\0", key(3) + b"\0"}, "the hole hides nothing"


@KINDS
def test_a_segment_that_is_full_is_sealed_and_its_footer_lists_its_records(tmp_path: Path, direct: bool) -> None:
    rig = Rig(tmp_path, direct, replace(LIMITS, segment_size_max=100_000))
    extents = [rig.append(record(key(n), bytes([n]) * 30_000))[0] for n in range(10)]
    assert len({e.segment for e in extents}) == len(rig.sealed) + 1 == 4 + direct
    for segment, size in rig.sealed:
        file = rig.files.open(tmp_path / fmt.segment_name(segment))
        listed = read_footer(file, IDENTITY, segment)
        assert listed == [(e.offset, e.header) for e in extents if e.segment == segment]
        assert listed == list(scan(file, IDENTITY, segment)), "a scan finds the same"
        assert file.size() == size
        file.close()


@KINDS
def test_the_number_of_records_in_a_segment_is_bounded(tmp_path: Path, direct: bool) -> None:
    rig = Rig(tmp_path, direct, replace(LIMITS, segment_records_max=3))
    extents = [rig.append(record(key(n), b"x"))[0] for n in range(10)]
    assert len({e.segment for e in extents}) == 4


@KINDS
def test_a_shard_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path, direct: bool) -> None:
    rig = Rig(tmp_path, direct, replace(LIMITS, segment_size_max=50_000))
    extents = [rig.append(record(key(n), bytes([n]) * 70_000))[0] for n in range(3)]
    assert len({e.segment for e in extents}) == 3
    assert [rig.read(e) for e in extents] == [bytes([n]) * 70_000 for n in range(3)]


@KINDS
def test_a_torn_record_does_not_hide_a_later_one_that_was_synced(tmp_path: Path, direct: bool, seed: int) -> None:
    """Shards of one tail reach the disk in any order: at a power cut the middle may be lost and the end kept."""
    rng = random.Random(seed)
    rig = Rig(tmp_path, direct)
    extents = [rig.append(record(key(n), rng.randbytes(rng.randrange(1, 9000))))[0] for n in range(12)]
    path = tmp_path / fmt.segment_name(extents[0].segment)
    whole = path.read_bytes()
    for torn in range(12):
        e = extents[torn]
        for begin, end in ((0, 40), (0, e.size), (8, e.header.data_offset)):
            spoiled = bytearray(whole)
            spoiled[e.offset + begin : e.offset + end] = rng.randbytes(end - begin)
            path.write_bytes(spoiled)
            file = rig.files.open(path)
            found = {header.write_id for _, header in scan(file, IDENTITY, e.segment)}
            file.close()
            assert found == {key(n) for n in range(12) if n != torn}


@KINDS
def test_a_tail_that_was_cut_anywhere_gives_what_is_whole_and_never_an_error(tmp_path: Path, direct: bool) -> None:
    rig = Rig(tmp_path, direct)
    extents = [rig.append(record(key(n), bytes([n]) * 3000))[0] for n in range(4)]
    path = tmp_path / fmt.segment_name(extents[0].segment)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 997), len(whole)]:
        path.write_bytes(whole[:length])
        file = rig.files.open(path)
        listed, sealed = headers(file, IDENTITY, extents[0].segment)
        file.close()
        assert not sealed
        ends = [e.offset + e.header.data_offset + e.header.shard_size for e in extents]
        assert [h.write_id for _, h in listed] == [key(n) for n, end in enumerate(ends) if end <= length]


def test_a_body_that_looks_like_a_record_is_not_taken_for_one(tmp_path: Path) -> None:
    """A user may upload the bytes of a segment, whole; after a torn header they must not become shards."""
    rig = Rig(tmp_path, False)
    rig.append(record(key(1), b"bait" * 50))
    bait = next(tmp_path.iterdir()).read_bytes()
    other = Rig(tmp_path / "other", False)
    (tmp_path / "other").mkdir()
    extent = other.append(record(key(2), bait))[0]
    path = tmp_path / "other" / fmt.segment_name(extent.segment)
    raw = bytearray(path.read_bytes())
    raw[extent.offset + 20] ^= 1
    path.write_bytes(raw)
    assert other.found() == {}


def test_a_damaged_segment_header_loses_nothing(tmp_path: Path) -> None:
    for direct in (False, True):
        directory = tmp_path / str(direct)
        directory.mkdir()
        rig = Rig(directory, direct)
        for n in range(5):
            rig.append(record(key(n), b"y" * 5000))
        path = next(directory.iterdir())
        raw = bytearray(path.read_bytes())
        raw[3] ^= 0xFF
        path.write_bytes(raw)
        assert {k[:16] for k in rig.found()} == {key(n) for n in range(5)}
