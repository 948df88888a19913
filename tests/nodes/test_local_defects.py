"""Defects of a local disk that were found by reviewing it, each by its name."""

import errno
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ostraka.errors import Full
from ostraka.host import Host, SystemClock
from ostraka.limits import LIMITS
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.types import Owner, ShardWrite
from ostraka.testing.files import FaultyFiles

STORE = b"s" * 16


@pytest.mark.parametrize("total", [1 << 34, 1 << 38, 1 << 40, 1 << 44])
def test_the_bound_on_reserves_leaves_compaction_room_on_a_huge_disk(tmp_path: Path, total: int) -> None:
    """All three were cut to the same bytes: when writes had to stop, compaction had to stop as well, for ever."""
    files = FaultyFiles()
    limits = replace(LIMITS)
    (tmp_path / "d").mkdir()
    disk = LocalDisk.open_owner(tmp_path / "d", 7, STORE, b"1" * 16, Host(files), limits)
    writes = min(int(total * limits.reserve_writes), limits.reserve_bytes_max)
    files.room = (writes + 1000, total)
    with disk.space.reserve(900, limits.reserve_writes):
        pass
    files.room = (writes - 1, total)
    with pytest.raises(Full), disk.space.reserve(0, limits.reserve_writes):
        pass
    with disk.space.reserve(writes // 4, limits.reserve_compaction):
        pass
    files.room = (writes // 2, total)
    with pytest.raises(Full), disk.space.reserve(0, limits.reserve_compaction):
        pass
    with disk.space.reserve(writes // 4, limits.reserve_deletes):
        pass
    disk.close()


def test_whoever_asks_for_the_room_of_a_disk_that_hangs_does_not_wait(tmp_path: Path) -> None:
    """The event loop asked, and a worker that was serving well from the other disks answered nobody any more."""
    go, asked = threading.Event(), threading.Event()

    class Hanging(FaultyFiles):
        def free(self, path: Path) -> tuple[int, int]:
            if hangs:
                asked.set()
                go.wait()
            return super().free(path)

    class Turned(SystemClock):
        ahead = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead

    hangs, clock = False, Turned()
    disk = LocalDisk.open_owner(tmp_path, 7, STORE, b"1" * 16, Host(Hanging(), clock), LIMITS)
    before = disk.free()
    hangs = True
    clock.ahead = 60
    assert disk.free() == disk.free() == before
    assert asked.wait(10)
    go.set()
    disk.close()


def test_a_write_that_failed_in_its_second_part_leaves_nothing_that_nobody_settles(tmp_path: Path) -> None:
    """What had been written of it was named by the index, and kept its segment from compaction, for good."""
    files = FaultyFiles()
    (tmp_path / "d").mkdir()
    disk = LocalDisk.open_owner(tmp_path / "d", 7, STORE, b"1" * 16, Host(files), LIMITS)
    small, large = b"s" * 1000, b"l" * LIMITS.direct_shard_size_min
    batch = [
        ShardWrite(number.to_bytes(16, "big"), 0, 1, 0, Owner.CHUNK, b"owner", len(body), [body])
        for number, body in enumerate((small, large))
    ]
    disk.write([batch[1]])  # both segments are open
    disk.settle([batch[1].write_id])
    files.fail("pwritev", ".segment", errno.ENOSPC, skip=2)  # the header of the buffered one, its record, and then
    with pytest.raises(Full):
        disk.write([msgspec.structs.replace(shard, write_id=b"w" * 15 + bytes([i])) for i, shard in enumerate(batch)])
    for writer in disk._writers:
        writer.seal()
    infos = disk.segments()
    assert len(infos) == 2
    assert all(info.settled for info in infos)
    assert sum(info.live for info in infos) < 2 * len(large)
    assert disk.index.get(b"w" * 15 + bytes([0]), 0) is None
    disk.close()


def test_an_index_that_cannot_note_a_sealed_segment_fails_no_append_and_is_told_later(tmp_path: Path) -> None:
    """The append that came upon it failed, its segment counted it as in flight for ever, and closing never ended."""
    (tmp_path / "d").mkdir()
    limits = replace(LIMITS, segment_size_max=10_000)
    disk = LocalDisk.open_owner(tmp_path / "d", 7, STORE, b"1" * 16, Host(), limits)
    mark, refused = disk.index.mark, []

    def no_room(segment: bytes, **arguments: object) -> None:
        refused.append(segment)
        raise Full("shard index: no room", reason="disk")

    disk.index.mark = no_room  # type: ignore[method-assign]
    ids = [bytes([number]) * 16 for number in range(10)]
    for write_id in ids:
        disk.write([ShardWrite(write_id, 0, 1, 0, Owner.CHUNK, b"owner", 4000, [b"x" * 4000])])
        disk.settle([write_id])
    assert refused
    disk.index.mark = mark  # type: ignore[method-assign]
    infos = disk.segments()
    assert len(infos) == 5
    assert [info.sealed and info.settled for info in infos].count(False) == 1, "all but the one that is open"
    assert all(info.total > 8000 for info in infos if info.sealed)
    for write_id in ids:
        assert disk.read(write_id, 0, 0, 4000) == b"x" * 4000
    disk.close()
