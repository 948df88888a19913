"""When it is in doubt who is up: nothing is recorded that no majority has, and nobody writes on the strength of it."""

import errno
from pathlib import Path

import pytest
from msgspec.structs import replace

from ostraka.errors import Unavailable
from ostraka.host import Host, SystemFiles
from ostraka.nodes import opening, superblock
from ostraka.nodes.membership import LocalWord, Membership, succeed


class FailingFiles(SystemFiles):
    """Writes under some directories fail as on a dead disk; reads do not."""

    def __init__(self) -> None:
        self.dead: set[Path] = set()

    def publish(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        if path.parent in self.dead:
            raise OSError(errno.EIO, "Input/output error", str(path))
        super().publish(path, content, mode=mode)


def store(tmp_path: Path, disks: int, k: int, m: int) -> tuple[opening.Opening, list[Path]]:
    paths = [tmp_path / f"d{i}" for i in range(disks)]
    return opening.form(paths, k, m, Host(), lambda *_: None), paths


def judged(paths: list[Path]) -> opening.Opening:
    found, _ = opening.survey(paths, SystemFiles())
    opened = opening.judge(found)
    assert opened is not None
    return opened


def epoch_numbers(paths: list[Path]) -> list[int]:
    blocks = [superblock.read(SystemFiles(), p) for p in paths]
    return [b.epoch.number for b in blocks if b]


def test_what_no_majority_is_left_for_is_written_nowhere(tmp_path: Path) -> None:
    opened, paths = store(tmp_path, 4, 2, 2)
    half = judged(paths[:2])
    members = Membership(opened.store_id, half.epoch, {}, half.present, Host())
    with pytest.raises(Unavailable, match="read-only"), members.exclusive():
        members.change([replace(d, up=d.number in half.present) for d in members.epoch.members])
    with pytest.raises(Unavailable, match="read-only"):
        members.evict(3, "I/O")  # whoever relies on it must hear that it is not recorded
    assert epoch_numbers(paths) == [1, 1, 1, 1]
    with pytest.raises(Unavailable, match="read-only"):
        members.up()
    assert sorted(judged(paths).present) == [0, 1, 2, 3], "nothing was changed, so all of them are as they were"


def test_a_member_that_is_called_up_and_has_no_directory_here_makes_no_majority(tmp_path: Path) -> None:
    opened, paths = store(tmp_path, 4, 2, 2)
    members = Membership(opened.store_id, opened.epoch, {}, {0: paths[0], 1: paths[1]}, Host())
    with pytest.raises(Unavailable, match="read-only"):
        members.up()
    members.add_disk(0, paths[0], None)
    with pytest.raises(Unavailable, match="read-only"):
        members.up()


def test_no_process_goes_on_by_an_epoch_that_another_could_not_get_onto_a_majority(tmp_path: Path) -> None:
    opened, paths = store(tmp_path, 4, 2, 2)
    files, word, lock = FailingFiles(), LocalWord(), tmp_path / "epoch.lock"
    first, second = (
        Membership(opened.store_id, opened.epoch, {}, opened.present, host, word, lock_path=lock)
        for host in (Host(files=files), Host())
    )
    files.dead = set(paths[1:])  # for the first process, and only for a while
    with pytest.raises(Unavailable, match="read-only"):
        first.evict(3, "I/O")
    assert epoch_numbers(paths) == [2, 1, 1, 1]
    with pytest.raises(Unavailable, match="read-only"):
        second.up()
    with second.exclusive():
        second.change(second.epoch.members)  # now it gets there
    second.up()
    assert epoch_numbers(paths[:3]) == [3, 3, 3]
    first.up()


def test_what_a_process_lacks_for_itself_is_no_failure_of_a_disk(tmp_path: Path) -> None:
    opened, paths = store(tmp_path, 4, 2, 2)
    members = Membership(opened.store_id, opened.epoch, {}, opened.present, Host())
    for lacking in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        with pytest.raises(Unavailable):
            members.evict(3, OSError(lacking, "too many open files"))
    assert epoch_numbers(paths) == [1, 1, 1, 1]
    assert all(d.up for d in members.epoch.members)
    members.up()


def test_an_epoch_whose_writing_was_cut_off_is_written_to_the_end_by_who_comes_next(tmp_path: Path) -> None:
    """The newest epoch was believed at a start, though it was on one disk only: with that disk lost, it was forgotten,
    and what had been written by it with it."""
    opened, paths = store(tmp_path, 4, 2, 2)
    cut_off = succeed(opened.epoch, [*opened.epoch.members], Host())
    superblock.write(
        SystemFiles(), paths[0], superblock.Superblock(opened.store_id, cut_off.members[0].disk_id, True, cut_off)
    )
    assert epoch_numbers(paths) == [2, 1, 1, 1]
    members = Membership(opened.store_id, opened.epoch, {}, opened.present, Host())
    members.settle()
    assert epoch_numbers(paths) == [3, 3, 3, 3]
    assert members.epoch.descends_from(cut_off)
    members.settle()
    assert epoch_numbers(paths) == [3, 3, 3, 3], "there was nothing to be done"
