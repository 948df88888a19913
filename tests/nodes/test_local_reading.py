"""A disk's answers: verified bytes, absent only when sure, corrupt, or a failed device."""

import errno
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from ostraka.errors import Absent, Corrupt, Full
from ostraka.host import Host, SystemFiles
from ostraka.limits import LIMITS, Limits
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.types import Owner, ShardWrite
from ostraka.testing.files import FaultyFiles

STORE = b"s" * 16


def open_disk(path: Path, incarnation: int = 1, limits: Limits = LIMITS, files: FaultyFiles | None = None) -> LocalDisk:
    path.mkdir(exist_ok=True)
    return LocalDisk.open_owner(path, 7, STORE, bytes([incarnation]) * 16, Host(files), limits)


def shard(number: int, data: bytes, owner: Owner = Owner.CHUNK) -> ShardWrite:
    return ShardWrite(number.to_bytes(16, "big"), 0, 1, 0, owner, b"owner", len(data), [data])


def put(disk: LocalDisk, bodies: dict[int, bytes]) -> None:
    for number, body in bodies.items():
        disk.write([shard(number, body)])


def wid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def bodies_of(seed: int) -> dict[int, bytes]:
    """Sizes on both sides of every threshold: alignment, cells, direct segments."""
    rng = random.Random(seed)
    direct = LIMITS.direct_shard_size_min
    sizes = [1, 8, 4096, 16384, 65536, 65537, direct - 8, direct, direct + 4096, 3 * 65536 + 11, 1 << 20]
    return {number: rng.randbytes(size) for number, size in enumerate(sizes, 1)}


def flip(path: Path, at: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0] ^ 1 << bit
        file.seek(at)
        file.write(bytes([byte]))


def test_every_range_reads_back_by_every_way_of_reading(tmp_path: Path, seed: int) -> None:
    disk = open_disk(tmp_path / "d")
    bodies = bodies_of(seed)
    put(disk, bodies)
    rng = random.Random(seed)
    for number, body in bodies.items():
        ranges = [(0, len(body)), (0, 0), (len(body), 0)]
        ranges += [(a := rng.randrange(len(body)), rng.randrange(len(body) - a + 1)) for _ in range(20)]
        ranges += [(c, min(65536, len(body) - c)) for c in range(0, len(body), 65536)]
        for offset, length in ranges:
            expected = body[offset : offset + length]
            assert disk.read(wid(number), 0, offset, length) == expected
            into = memoryview(bytearray(length))
            disk.read_into(wid(number), 0, offset, into)
            assert into == expected
            now = disk.read_now(wid(number), 0, offset, length)
            assert now is None or now == expected
        disk.verify(wid(number), 0)
    disk.close()


def test_cached_small_reads_answer_at_once(tmp_path: Path) -> None:
    disk = open_disk(tmp_path / "d")
    put(disk, {1: b"x" * 5000})
    disk.read(wid(1), 0, 0, 1)  # opens the file
    (tmp_path / "cached").write_bytes(b"x")
    file = SystemFiles().open(tmp_path / "cached")
    can_say = file.preadv_now([bytearray(1)], 0) is not None  # what is cached: ext4 and xfs can, overlayfs cannot
    file.close()
    now = disk.read_now(wid(1), 0, 10, 100)
    assert now == (b"x" * 100 if can_say else None)
    assert disk.read_now(wid(2), 0, 0, 1) is None, "a miss is never answered at once"
    disk.close()


def test_what_was_never_written_is_absent(tmp_path: Path) -> None:
    disk = open_disk(tmp_path / "d")
    put(disk, {1: b"x"})
    with pytest.raises(Absent):
        disk.read(wid(2), 0, 0, 1)
    with pytest.raises(Absent):
        disk.read(wid(1), 1, 0, 1)
    disk.close()


def test_a_disk_whose_directory_has_gone_failed_and_is_not_empty(tmp_path: Path) -> None:
    """An unmounted disk must never say that it certainly has no such shard."""
    disk = open_disk(tmp_path / "d")
    put(disk, {1: b"x" * 100})
    os.rename(tmp_path / "d" / "segments", tmp_path / "away")
    for number in (1, 2):
        with pytest.raises(OSError, match="No such file"):
            disk.read(wid(number), 0, 0, 1)
    os.rename(tmp_path / "away", tmp_path / "d" / "segments")
    assert disk.read(wid(1), 0, 0, 100) == b"x" * 100
    disk.close()


def test_a_segment_that_cannot_be_read_makes_no_shard_absent(tmp_path: Path) -> None:
    files = FaultyFiles()
    disk = open_disk(tmp_path / "d", files=files)
    put(disk, {1: b"x" * 100})
    files.fail("preadv", ".segment", errno.EIO, count=100)
    for number in (1, 2):
        with pytest.raises(OSError, match=r"cannot be read|Input/output"):
            disk.read(wid(number), 0, 0, 1)
    files.heal()
    assert disk.read(wid(1), 0, 0, 100) == b"x" * 100
    disk.close()


def test_a_shard_that_the_index_lost_is_found_in_the_segments(tmp_path: Path, seed: int) -> None:
    disk = open_disk(tmp_path / "d")
    bodies = bodies_of(seed)
    put(disk, bodies)
    disk.index.remove([(wid(number), 0) for number in bodies])  # as damage to the index would
    for number, body in bodies.items():
        assert disk.read(wid(number), 0, 0, len(body)) == body
    disk.close()


def test_every_flipped_bit_of_a_shard_is_noticed_and_only_its_own_cell_suffers(tmp_path: Path, seed: int) -> None:
    disk = open_disk(tmp_path / "d")
    rng = random.Random(seed)
    cell = LIMITS.cell_size
    for number, size in ((1, 3 * cell + 100), (2, 5 * cell)):
        body = rng.randbytes(size)
        put(disk, {number: body})
        extent = disk.index.get(wid(number), 0)
        assert extent is not None
        (path,) = (p for p in disk.directory.iterdir() if extent.segment[16:].hex() in p.name.split("-")[1])
        for at in (0, cell - 1, cell, size - 1, *(rng.randrange(size) for _ in range(20))):
            bit = rng.randrange(8)
            flip(path, extent.offset + extent.header.data_offset + at, bit)
            with pytest.raises(Corrupt):
                disk.read(wid(number), 0, at, 1)
            with pytest.raises(Corrupt):
                disk.read_into(wid(number), 0, 0, memoryview(bytearray(size)))
            with pytest.raises(Corrupt):
                disk.verify(wid(number), 0)
            assert disk.read_now(wid(number), 0, at, 1) is None
            good = (at // cell + 1) % (size // cell)
            assert disk.read(wid(number), 0, good * cell, 10) == body[good * cell : good * cell + 10]
            flip(path, extent.offset + extent.header.data_offset + at, bit)
        disk.verify(wid(number), 0)
    disk.close()


def test_a_damaged_record_header_does_not_hinder_reading_and_is_found_by_verify(tmp_path: Path) -> None:
    disk = open_disk(tmp_path / "d")
    put(disk, {1: b"x" * 3000})
    extent = disk.index.get(wid(1), 0)
    assert extent is not None
    flip(next(disk.directory.iterdir()), extent.offset + 41)
    assert disk.read(wid(1), 0, 0, 3000) == b"x" * 3000
    with pytest.raises(Corrupt):
        disk.verify(wid(1), 0)
    disk.write([shard(1, b"x" * 3000)])  # a repair writes it anew
    disk.verify(wid(1), 0)
    disk.close()


def test_a_shard_that_is_written_again_is_the_new_one_and_the_old_bytes_are_dead(tmp_path: Path) -> None:
    disk = open_disk(tmp_path / "d")
    put(disk, {1: b"x" * 3000, 2: b"y" * 3000})
    before = disk.segments()[0]
    disk.write([shard(1, b"x" * 3000)])
    (after,) = disk.segments()
    assert after.live == before.live
    assert after.total > before.total
    disk.close()


def test_open_descriptors_are_bounded(tmp_path: Path) -> None:
    limits = replace(LIMITS, segment_records_max=1, segment_files_open_max=3)
    disk = open_disk(tmp_path / "d", limits=limits)
    put(disk, {n: bytes([n]) * 100 for n in range(1, 20)})
    for _ in range(2):
        for n in range(1, 20):
            assert disk.read(wid(n), 0, 0, 100) == bytes([n]) * 100
    assert len(disk.descriptors) <= 3
    assert disk.tend(), "used lately: kept"
    assert not disk.tend()
    assert len(disk.descriptors) == 0, "an idle disk holds no files open"
    disk.close()


def test_writes_stop_at_the_reserve_while_deletes_and_compaction_go_on(tmp_path: Path) -> None:
    files = FaultyFiles()
    disk = open_disk(tmp_path / "d", files=files)
    put(disk, {1: b"x" * 30000, 2: b"y" * 30000})
    disk.settle([wid(1), wid(2)])
    total = 1 << 40
    files.room = (int(total * 0.001) + LIMITS.reserve_bytes_max - (1 << 30), total)
    small = replace(LIMITS, reserve_bytes_max=1 << 40)
    disk.close()
    files.room = (int(total * 0.04), total)  # below the reserve of writes, above that of compaction
    disk = open_disk(tmp_path / "d", 2, small, files)
    with pytest.raises(Full):
        disk.write([shard(3, b"z")])
    disk.release([(wid(1), 0)])
    (segment,) = disk.segments()
    assert disk.compact(segment.segment, lambda owner, owner_id, write_id, index: write_id == wid(2)) > 0
    assert disk.read(wid(2), 0, 0, 30000) == b"y" * 30000
    files.room = (int(total * 0.02), total)
    disk._moved_buffered.seal()
    (segment,) = disk.segments()
    with pytest.raises(Full):
        disk.compact(segment.segment, lambda *_: True)
    assert disk.read(wid(2), 0, 0, 30000) == b"y" * 30000
    disk.close()


def test_bytes_that_are_being_written_by_any_process_count_as_taken(tmp_path: Path) -> None:
    files = FaultyFiles()
    limits = replace(LIMITS, reserve_writes=0.5)
    owner = open_disk(tmp_path / "d", files=files, limits=limits)
    worker = LocalDisk.open_shared(tmp_path / "d", 7, STORE, b"w" * 16, Host(files), limits)
    files.room = (600, 1000)
    with owner.space.reserve(80, 0.5):
        with pytest.raises(Full), worker.space.reserve(30, 0.5):
            pass
        with worker.space.reserve(20, 0.5):
            pass
    with worker.space.reserve(100, 0.5):
        pass
    worker.close()
    owner.close()


def test_no_room_on_the_device_is_full_and_not_a_failure(tmp_path: Path) -> None:
    files = FaultyFiles()
    disk = open_disk(tmp_path / "d", files=files)
    files.fail("pwritev", ".segment", errno.ENOSPC, skip=1)
    with pytest.raises(Full):
        disk.write([shard(1, b"x" * 100)])
    disk.write([shard(1, b"x" * 100)])
    assert disk.read(wid(1), 0, 0, 100) == b"x" * 100
    disk.close()


def test_a_worker_cannot_open_a_disk_that_its_owner_has_not(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError, match="owns"):
        LocalDisk.open_shared(tmp_path / "d", 7, STORE, b"w" * 16, Host(), LIMITS)


@pytest.mark.parametrize("damaged", [b"", b"{\x00", b'"state":"oqen"'])
def test_a_mark_that_is_damaged_is_a_failure_of_the_disk_and_not_of_the_worker(tmp_path: Path, damaged: bytes) -> None:
    owner = open_disk(tmp_path / "d")
    mark = tmp_path / "d" / "shards" / "mark"
    mark.write_bytes(mark.read_bytes().replace(b'"state":"open"', damaged) if damaged[:1] == b'"' else damaged)
    with pytest.raises(OSError, match="mark"):
        LocalDisk.open_shared(tmp_path / "d", 7, STORE, b"w" * 16, Host(), LIMITS)
    owner.close()


def test_fsck_sees_every_record_and_whether_it_is_named(tmp_path: Path, seed: int) -> None:
    disk = open_disk(tmp_path / "d")
    bodies = bodies_of(seed)
    put(disk, bodies)
    disk.release([(wid(1), 0), (wid(99), 0)])
    found = {f.extent.header.write_id: f for f in disk.iterate()}
    assert set(found) == set(map(wid, bodies))
    assert {w for w, f in found.items() if not f.named} == {wid(1)}
    header = found[wid(8)].extent.header
    assert (header.owner, header.owner_id, header.body_length) == (Owner.CHUNK, b"owner", len(bodies[8]))
    disk.close()


def test_a_sweep_reads_a_segment_in_order_and_tells_good_from_damaged(tmp_path: Path) -> None:
    disk = open_disk(tmp_path / "d")
    put(disk, {n: bytes([n]) * 3000 for n in range(1, 9)})
    extent = disk.index.get(wid(5), 0)
    assert extent is not None
    flip(next(disk.directory.iterdir()), extent.offset + extent.header.data_offset + 77)
    sweep = disk.sweep(extent.segment)
    assert sweep is not None
    found = sweep.step().records
    assert sweep.ended
    sweep.close()
    assert [e.header.write_id for e, _ in found] == [wid(n) for n in range(1, 9)]
    assert [e.header.write_id for e, good in found if not good] == [wid(5)]
    disk.close()
