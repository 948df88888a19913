"""A disk is left out only after a strict majority has it in writing."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from ostraka.errors import Unavailable
from ostraka.host import Host, SystemFiles
from ostraka.nodes import opening, superblock
from ostraka.nodes.membership import LocalWord, Membership, majority


class FailingFiles(SystemFiles):
    """Writes under some directories fail as on a dead disk."""

    def __init__(self) -> None:
        self.dead: set[Path] = set()

    def publish(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        if path.parent in self.dead:
            raise OSError(5, "Input/output error", str(path))
        super().publish(path, content, mode=mode)


def store(tmp_path: Path, disks: int, k: int, m: int, files: FailingFiles) -> tuple[opening.Opening, list[Path]]:
    paths = [tmp_path / f"d{i}" for i in range(disks)]
    return opening.form(paths, k, m, Host(files=files), lambda *_: None), paths


def epochs(paths: list[Path]) -> list[int]:
    blocks = [superblock.read(SystemFiles(), p) for p in paths]
    return [b.epoch.number for b in blocks if b]


def test_an_eviction_is_on_a_strict_majority_before_it_returns(tmp_path: Path) -> None:
    files = FailingFiles()
    opened, paths = store(tmp_path, 6, 4, 2, files)
    members = Membership(opened.store_id, opened.epoch, {}, opened.present, Host(files=files))
    files.dead = {paths[1]}
    asyncio.run(members.failed(1, OSError(5, "I/O")))
    assert epochs([paths[0], *paths[2:]]) == [2] * 5
    assert epochs([paths[1]]) == [1]
    assert members.disk(1) is None
    assert not members.gone(1), "down is not gone: it may come back"
    assert majority(members.epoch) == 4


def test_disks_that_fail_while_the_epoch_is_written_are_called_down_as_well(tmp_path: Path) -> None:
    files = FailingFiles()
    opened, paths = store(tmp_path, 6, 4, 2, files)
    members = Membership(opened.store_id, opened.epoch, {}, opened.present, Host(files=files))
    files.dead = {paths[1], paths[2]}
    members.evict(1, "I/O")
    assert [d.number for d in members.epoch.members if not d.up] == [1, 2]


def test_without_a_majority_the_store_is_read_only_and_says_the_way_out(tmp_path: Path) -> None:
    files = FailingFiles()
    opened, paths = store(tmp_path, 2, 1, 1, files)
    members = Membership(opened.store_id, opened.epoch, {}, opened.present, Host(files=files))
    files.dead = {paths[1]}
    with pytest.raises(Unavailable, match="ostraka disk replace"):
        members.evict(1, "I/O")
    with pytest.raises(Unavailable, match="read-only"):
        members.up()


def come_back(members: Membership, number: int) -> None:
    """As a start takes in a disk that was away: its copy of the state does not count."""
    epoch = members.epoch
    back = {d.number: msgspec.structs.replace(d, up=True, state=False, since=epoch.number + 1) for d in epoch.members}
    members.change([back[d.number] if d.number == number else d for d in epoch.members])


def test_the_last_disk_that_carries_the_state_stays_in_service(tmp_path: Path) -> None:
    """It was called down after a single failed call, and its copy, the only one, was never read again."""
    opened, paths = store(tmp_path, 3, 2, 1, FailingFiles())
    members = Membership(opened.store_id, opened.epoch, {}, opened.present, Host())
    members.evict(1, "pulled")
    come_back(members, 1)
    with pytest.raises(Unavailable, match="no other disk in service carries the state"):
        members.evict(0, "one failed call")
    assert [d.number for d in members.epoch.members if d.up] == [0, 1, 2]
    assert epochs(paths) == [3, 3, 3]


def test_the_last_disk_that_carries_the_state_stays_though_it_misses_an_epoch(tmp_path: Path) -> None:
    """When another disk came back, and its superblock could not be written, it was called down in the same breath."""
    files = FailingFiles()
    opened, paths = store(tmp_path, 3, 2, 1, files)
    members = Membership(opened.store_id, opened.epoch, {}, opened.present, Host(files=files))
    members.evict(0, "pulled")
    files.dead = {paths[1]}
    come_back(members, 0)
    assert [d.number for d in members.epoch.members if d.up] == [0, 1, 2]
    assert epochs(paths) == [3, 2, 3]
    found, _ = opening.survey(paths, SystemFiles())
    judged = opening.judge(found)
    assert judged is not None
    assert set(judged.present) == {0, 1, 2}


def test_processes_of_one_store_see_each_others_epochs(tmp_path: Path) -> None:
    opened, paths = store(tmp_path, 4, 2, 2, FailingFiles())
    word = LocalWord()
    lock = tmp_path / "epoch.lock"
    a, b = (
        Membership(opened.store_id, opened.epoch, {}, opened.present, Host(), word, lock_path=lock) for _ in range(2)
    )
    a.evict(3, "pulled")
    assert b.disk(3) is None
    b.up()
    assert b.epoch.id == a.epoch.id
    b.evict(3, "again")
    assert b.epoch.id == a.epoch.id, "evicting what is down already changes nothing"
    with pytest.raises(Unavailable):
        b.evict(1, "pulled")  # two of four are no majority


def test_an_operators_override_needs_no_majority(tmp_path: Path) -> None:
    files = FailingFiles()
    opened, paths = store(tmp_path, 2, 1, 1, files)
    host = Host(files=files)
    members = Membership(opened.store_id, opened.epoch, {}, {0: paths[0]}, host)
    with members.exclusive():
        members.change([d for d in members.epoch.members if d.number == 0], override=True)
    assert members.gone(1)
    assert members.read_only == ""
