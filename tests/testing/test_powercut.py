"""The simulator of power cuts keeps what was synced, and no more than a disk may keep of the rest."""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ostraka.testing import powercut
from ostraka.testing.powercut import PowerCutDisk

pytestmark = pytest.mark.skipif(bool(powercut.missing()), reason=powercut.missing() or "-")

SECTOR = 512
SEEDS = range(6)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    with PowerCutDisk(tmp_path / "backing", tmp_path / "disk") as disk:
        yield disk


def put(path: Path, data: bytes, offset: int = 0, *, sync: bool = False, flags: int = 0) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    try:
        os.pwrite(fd, data, offset)
        if sync:
            os.fdatasync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def durable(path: Path, data: bytes) -> None:
    put(path, data, sync=True)
    sync_directory(path.parent)


def outcomes(disk: PowerCutDisk, work: Callable[[Path], None], look: Callable[[Path], object]) -> list[object]:
    """What is seen after a cut, many times: the work is done in fresh, durable directories, some to each cut."""
    seen: list[object] = []
    for seed in SEEDS:
        homes = [disk.path / f"home-{seed}-{i}" for i in range(8)]
        for home in homes:
            home.mkdir()
        sync_directory(disk.path)
        for home in homes:
            work(home)
        disk.cut(seed)
        seen.extend(look(home) for home in homes)
    return seen


# -- data


def test_synced_data_survives_every_cut(disk: PowerCutDisk) -> None:
    data = os.urandom(70_000)
    assert set(outcomes(disk, lambda home: durable(home / "a", data), lambda home: (home / "a").read_bytes())) == {data}


def test_unsynced_data_is_kept_lost_or_torn_at_sectors_by_seed(disk: PowerCutDisk) -> None:
    old, new = b"o" * (8 * SECTOR), b"n" * (8 * SECTOR)

    def work(home: Path) -> None:
        durable(home / "a", old)
        put(home / "a", new)

    seen = outcomes(disk, work, lambda home: (home / "a").read_bytes())
    assert old in seen
    assert new in seen
    torn = [s for s in seen if s not in (old, new)]
    assert torn
    for data in torn:
        assert isinstance(data, bytes)
        assert len(data) == len(old)
        for i in range(0, len(data), SECTOR):
            assert data[i : i + SECTOR] in (old[:SECTOR], new[:SECTOR])


def test_unsynced_writes_are_reordered(disk: PowerCutDisk) -> None:
    def work(home: Path) -> None:
        durable(home / "a", bytes(2 * 4096))
        put(home / "a", b"1" * 4096)
        put(home / "a", b"2" * 4096, 4096)

    def second_without_first(home: Path) -> bool:
        data = (home / "a").read_bytes()
        return data[:4096] == bytes(4096) and data[4096:] == b"2" * 4096

    assert True in outcomes(disk, work, second_without_first)


def test_within_a_sector_a_later_write_never_arrives_without_an_earlier_one(disk: PowerCutDisk) -> None:
    def work(home: Path) -> None:
        durable(home / "a", bytes(SECTOR))
        put(home / "a", b"1" * 100)
        put(home / "a", b"2" * 100, 100)

    def look(home: Path) -> tuple[bool, bool]:
        data = (home / "a").read_bytes()
        return data[:100] == b"1" * 100, data[100:200] == b"2" * 100

    seen = set(outcomes(disk, work, look))
    assert seen == {(False, False), (True, False), (True, True)}


def test_an_unsynced_size_may_be_lost_or_arrive_without_its_data(disk: PowerCutDisk) -> None:
    def work(home: Path) -> None:
        durable(home / "a", b"x" * 4096)
        put(home / "a", b"y" * 4096, 4096)

    seen = outcomes(disk, work, lambda home: (home / "a").read_bytes())
    assert b"x" * 4096 in seen
    assert b"x" * 4096 + bytes(4096) in seen
    assert b"x" * 4096 + b"y" * 4096 in seen


def test_an_unsynced_truncation_may_be_forgotten_with_its_bytes_back(disk: PowerCutDisk) -> None:
    data = os.urandom(10_000)

    def work(home: Path) -> None:
        durable(home / "a", data)
        os.truncate(home / "a", 100)

    assert set(outcomes(disk, work, lambda home: (home / "a").read_bytes())) == {data, data[:100]}


@pytest.mark.parametrize("flag", [os.O_DSYNC, os.O_SYNC], ids=["O_DSYNC", "O_SYNC"])
def test_a_write_through_a_synced_descriptor_is_durable_and_others_to_that_file_are_not(
    disk: PowerCutDisk, flag: int
) -> None:
    def work(home: Path) -> None:
        durable(home / "a", bytes(3 * 4096))
        put(home / "a", b"u" * 4096, 0)
        put(home / "a", b"s" * 4096, 4096, flags=flag)
        put(home / "a", b"u" * 4096, 8192)

    def look(home: Path) -> tuple[bool, bool, bool]:
        data = (home / "a").read_bytes()
        assert data[4096:8192] == b"s" * 4096
        return data[:4096] == b"u" * 4096, True, data[8192:] == b"u" * 4096

    seen = outcomes(disk, work, look)
    assert (False, True, False) in seen
    assert (True, True, True) in seen


def test_an_explicit_fsync_of_a_synced_descriptor_makes_all_of_the_file_durable(disk: PowerCutDisk) -> None:
    def work(home: Path) -> None:
        durable(home / "a", bytes(8192))
        put(home / "a", b"u" * 4096)
        put(home / "a", b"s" * 4096, 4096, sync=True, flags=os.O_DSYNC)

    assert set(outcomes(disk, work, lambda home: (home / "a").read_bytes())) == {b"u" * 4096 + b"s" * 4096}


def test_the_same_work_and_seed_give_the_same_survivors(tmp_path: Path) -> None:
    def survivors(run: str, seed: int) -> dict[str, bytes]:
        with PowerCutDisk(tmp_path / run / "backing", tmp_path / run / "disk") as disk:
            for i in range(20):
                put(disk.path / str(i), bytes([i]) * 5000, sync=i % 2 == 0)
                if i % 5 == 0:
                    sync_directory(disk.path)
            disk.cut(seed)
            return {p.name: p.read_bytes() for p in disk.path.iterdir()}

    first = survivors("a", 11)
    assert first == survivors("b", 11)
    assert first != survivors("c", 12)


# -- names


def test_a_new_file_may_vanish_until_its_directory_is_synced_though_its_data_was(disk: PowerCutDisk) -> None:
    seen = outcomes(disk, lambda home: put(home / "a", b"x", sync=True), lambda home: os.listdir(home))
    assert [] in seen
    assert ["a"] in seen


def test_a_rename_without_a_directory_sync_leaves_the_old_file_or_the_new_never_neither(disk: PowerCutDisk) -> None:
    def work(home: Path) -> None:
        durable(home / "a", b"old")
        put(home / "b", b"new", sync=True)
        os.rename(home / "b", home / "a")

    assert set(outcomes(disk, work, lambda home: (home / "a").read_bytes())) == {b"old", b"new"}


def test_a_rename_over_an_open_file_is_atomic_too(disk: PowerCutDisk) -> None:
    def work(home: Path) -> None:
        durable(home / "a", b"old")
        put(home / "b", b"new", sync=True)
        with open(home / "a", "rb") as reader:
            os.rename(home / "b", home / "a")
            assert reader.read() == b"old"
            assert os.listdir(home) == ["a"]

    assert set(outcomes(disk, work, lambda home: (home / "a").read_bytes())) == {b"old", b"new"}


def test_a_rename_with_a_directory_sync_stays(disk: PowerCutDisk) -> None:
    def work(home: Path) -> None:
        durable(home / "a", b"old")
        put(home / "b", b"new", sync=True)
        os.rename(home / "b", home / "a")
        sync_directory(home)

    seen = outcomes(disk, work, lambda home: (sorted(os.listdir(home)), (home / "a").read_bytes()))
    assert all(s == (["a"], b"new") for s in seen)


def test_a_rename_before_the_data_was_synced_can_leave_a_new_file_without_its_data(disk: PowerCutDisk) -> None:
    def work(home: Path) -> None:
        durable(home / "a", b"old")
        put(home / "b", b"new")
        os.rename(home / "b", home / "a")
        sync_directory(home)

    assert b"" in outcomes(disk, work, lambda home: (home / "a").read_bytes())


def test_an_unlink_may_be_forgotten_until_its_directory_is_synced(disk: PowerCutDisk) -> None:
    def work(home: Path, *, sync: bool) -> None:
        durable(home / "a", b"x" * 5000)
        os.unlink(home / "a")
        if sync:
            sync_directory(home)

    def look(home: Path) -> object:
        return (home / "a").read_bytes() if (home / "a").exists() else None

    assert set(outcomes(disk, lambda home: work(home, sync=False), look)) == {None, b"x" * 5000}


def test_a_synced_unlink_stays(disk: PowerCutDisk) -> None:
    def work(home: Path) -> None:
        durable(home / "a", b"x")
        with open(home / "a", "rb"):
            os.unlink(home / "a")
        sync_directory(home)

    assert all(s == [] for s in outcomes(disk, work, lambda home: os.listdir(home)))


def test_a_directory_that_was_never_synced_into_its_parent_takes_its_files_along(disk: PowerCutDisk) -> None:
    def work(home: Path) -> None:
        (home / "d").mkdir()
        durable(home / "d" / "a", b"x")

    seen = outcomes(disk, work, lambda home: sorted(str(p.relative_to(home)) for p in home.rglob("*")))
    assert [] in seen
    assert ["d", "d/a"] in seen
    assert ["d"] not in seen


def test_ext4_commits_names_with_any_fsync_and_loses_only_from_the_end(tmp_path: Path) -> None:
    with PowerCutDisk(tmp_path / "backing", tmp_path / "disk", strictness="ext4") as disk:

        def work(home: Path) -> None:
            put(home / "a", b"x", sync=True)
            for name in ("b", "c"):
                put(home / name, b"x")

        seen = outcomes(disk, work, lambda home: "".join(sorted(os.listdir(home))))
    assert set(seen) <= {"a", "ab", "abc"}
    assert "a" in seen or "ab" in seen


def test_a_clean_end_keeps_everything_and_the_disk_opens_again(tmp_path: Path) -> None:
    with PowerCutDisk(tmp_path / "backing", tmp_path / "disk") as disk:
        (disk.path / "d").mkdir()
        put(disk.path / "d" / "a", b"never synced")
        (disk.path / "link").symlink_to("d/a")
        os.link(disk.path / "d" / "a", disk.path / "b")
    assert not (tmp_path / "disk" / "d").exists()
    with PowerCutDisk(tmp_path / "backing", tmp_path / "disk") as disk:
        assert (disk.path / "link").read_bytes() == b"never synced"
        assert (disk.path / "b").read_bytes() == b"never synced"


# -- the moment of the cut


def test_the_power_can_go_right_before_a_given_sync(disk: PowerCutDisk) -> None:
    disk.off_at_sync(after=1)
    durable_so_far = disk.path / "a"
    put(durable_so_far, b"1", sync=True)
    with pytest.raises(OSError, match="Input/output"):
        sync_directory(disk.path)
    with pytest.raises(OSError, match="Input/output"):
        put(durable_so_far, b"2")
    disk.cut(0)
    sync_directory(disk.path)  # the power is back


def test_a_disk_that_lies_about_syncs_is_caught(disk: PowerCutDisk) -> None:
    def work(home: Path) -> None:
        durable(home / "a", b"old")
        disk.ignore_syncs(f"fdatasync:/{home.name}/a")
        put(home / "a", b"new", sync=True)

    assert b"old" in outcomes(disk, work, lambda home: (home / "a").read_bytes())


def test_descriptors_from_before_a_cut_fail(disk: PowerCutDisk) -> None:
    fd = os.open(disk.path / "a", os.O_RDWR | os.O_CREAT)
    try:
        disk.cut(0)
        with pytest.raises(OSError, match=r"not connected|Input/output|aborted"):
            os.pwrite(fd, b"x", 0)
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


# -- what a store does to its disk


def test_an_unlinked_file_stays_readable_and_writable_while_it_is_open(disk: PowerCutDisk) -> None:
    with open(disk.path / "a", "w+b", buffering=0) as file:
        file.write(b"x" * 5000)
        os.unlink(disk.path / "a")
        assert os.listdir(disk.path) == []
        os.pwrite(file.fileno(), b"y", 5000)
        assert os.pread(file.fileno(), 6000, 0) == b"x" * 5000 + b"y"
        assert os.fstat(file.fileno()).st_size == 5001
        put(disk.path / "a", b"another")
        assert os.pread(file.fileno(), 5, 0) == b"xxxxx"
    assert (disk.path / "a").read_bytes() == b"another"


def test_many_threads_write_sync_and_rename_at_once(disk: PowerCutDisk) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(30):
                put(disk.path / f"{number}.tmp", bytes([i]) * 6000, sync=True)
                os.rename(disk.path / f"{number}.tmp", disk.path / f"{number}-{i}")
            sync_directory(disk.path)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    disk.cut(1)
    for number in range(12):
        for i in range(30):
            assert (disk.path / f"{number}-{i}").read_bytes() == bytes([i]) * 6000


# -- faults


def test_named_operations_fail_after_a_number_of_them_until_healed(disk: PowerCutDisk) -> None:
    disk.fail(errno.EIO, ops=["fsync"], after=1, count=1, pattern="/a*")
    put(disk.path / "b", b"x", sync=True)
    put(disk.path / "a", b"x", sync=True)
    with pytest.raises(OSError, match="Input/output"):
        put(disk.path / "a", b"x", sync=True)
    put(disk.path / "a", b"x", sync=True)
    disk.fail(errno.EROFS, ops=["create"])
    with pytest.raises(OSError, match="Read-only"):
        put(disk.path / "c", b"x")
    disk.heal()
    put(disk.path / "c", b"x")


def test_a_full_disk_says_so_and_takes_writes_again_once_something_is_removed(disk: PowerCutDisk) -> None:
    put(disk.path / "a", b"x" * 100_000)
    disk.limit_space(50_000)
    assert os.statvfs(disk.path).f_bavail * os.statvfs(disk.path).f_frsize <= 50_000
    with pytest.raises(OSError, match="No space"):
        put(disk.path / "b", b"x" * 60_000)
    put(disk.path / "b", b"x" * 20_000)
    os.unlink(disk.path / "a")
    put(disk.path / "c", b"x" * 100_000)


def test_a_vanished_disk_answers_nothing_and_comes_back_whole(disk: PowerCutDisk) -> None:
    durable(disk.path / "a", b"x" * 9000)
    with open(disk.path / "a", "r+b", buffering=0) as file:
        disk.vanish()
        with pytest.raises(OSError, match="Input/output"):
            file.read()
        with pytest.raises(OSError, match="Input/output"):
            file.write(b"y")
        with pytest.raises(OSError, match="Input/output"):
            os.listdir(disk.path)
        with pytest.raises(OSError, match="Input/output"):
            put(disk.path / "b", b"x")
        disk.heal()
        assert file.read() == b"x" * 9000


def test_a_read_may_return_a_flipped_bit(disk: PowerCutDisk) -> None:
    data = bytes(8192)
    durable(disk.path / "a", data)
    disk.flip_reads(seed=3, pattern="/a")
    spoiled = (disk.path / "a").read_bytes()
    assert sum(byte.bit_count() for byte in spoiled) == disk.counts()["flipped"] > 0


def test_a_stalled_operation_goes_on_when_the_disk_heals(disk: PowerCutDisk) -> None:
    disk.stall(ops=["fsync"])
    writer = threading.Thread(target=put, args=(disk.path / "a", b"x"), kwargs={"sync": True})
    writer.start()
    while not disk.counts().get("stalled"):
        threading.Event().wait(0.001)
    put(disk.path / "b", b"other operations pass")
    assert disk.syncs() == 0
    disk.heal()
    writer.join()
    assert disk.syncs() == 1


def test_a_cut_wakes_what_was_stalled(disk: PowerCutDisk) -> None:
    disk.stall(ops=["fsync"])
    seen: list[OSError] = []

    def work() -> None:
        try:
            put(disk.path / "a", b"x", sync=True)
        except OSError as e:
            seen.append(e)

    writer = threading.Thread(target=work)
    writer.start()
    while not disk.counts().get("stalled"):
        threading.Event().wait(0.001)
    disk.cut(0)
    writer.join()
    assert seen
