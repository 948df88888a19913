"""Which directories make a store, and which are refused with the way out."""

import errno
import os
from pathlib import Path

import pytest

from ostraka.errors import Invalid, OstrakaError, Refused
from ostraka.host import Host, SystemFiles
from ostraka.nodes import opening, superblock
from ostraka.nodes.membership import LocalWord, Membership, succeed


class Crash(Exception):
    """The process ends here."""


class CrashingFiles(SystemFiles):
    """Ends the process, so to speak, before the n-th publication."""

    def __init__(self, publications: int) -> None:
        self.left = publications

    def publish(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1
        super().publish(path, content, mode=mode)


def dirs(tmp_path: Path, count: int) -> list[Path]:
    return [tmp_path / f"disk{i}" for i in range(count)]


def form(paths: list[Path], k: int, m: int, host: Host | None = None) -> opening.Opening:
    return opening.form(paths, k, m, host or Host(), lambda store_id, epoch, numbered: None)


def judge(paths: list[Path], ec: tuple[int, int] | None = None, existing: bool = False) -> opening.Opening | None:
    found, _ = opening.survey(paths, SystemFiles())
    return opening.judge(found, ec=ec, existing=existing)


@pytest.mark.parametrize(
    ("disks", "geometry"),
    [
        (1, (1, 0)),
        (2, (1, 1)),
        (3, (2, 1)),
        (4, (2, 2)),
        (6, (4, 2)),
        (8, (6, 2)),
        (9, (5, 4)),
        (16, (12, 4)),
        (20, (12, 4)),
    ],
)
def test_geometry_follows_from_the_number_of_disks(disks: int, geometry: tuple[int, int]) -> None:
    assert opening.default_geometry(disks) == geometry


def test_a_store_opens_from_its_directories_in_any_order(tmp_path: Path) -> None:
    paths = dirs(tmp_path, 4)
    formed = form(paths, 2, 2)
    opened = judge(paths[::-1])
    assert opened is not None
    assert opened.present == formed.present
    assert opened.epoch.id == formed.epoch.id
    assert not opened.missing
    assert not opened.stale


def test_blank_directories_are_formatted_unless_existing_forbids_it(tmp_path: Path) -> None:
    paths = dirs(tmp_path, 2)
    paths[0].mkdir()
    assert judge(paths) is None
    with pytest.raises(Refused, match="none was to be made"):
        judge(paths, existing=True)


@pytest.mark.parametrize("publications", range(9))
def test_a_crash_at_any_point_of_the_format_is_finished_by_the_same_command(tmp_path: Path, publications: int) -> None:
    paths = dirs(tmp_path, 4)
    prepared: list[Path] = []

    def prepare(store_id: bytes, epoch: superblock.Epoch, numbered: object) -> None:
        prepared.extend(paths)

    try:
        opening.form(paths, 2, 2, Host(files=CrashingFiles(publications)), prepare)
        crashed = False
    except Crash:
        crashed = True
    assert crashed == (publications < 8)
    found, _ = opening.survey(paths, SystemFiles())
    opened = opening.judge(found)
    if publications <= 4:
        assert opened is None, "nothing was formed yet: the same command formats again"
        opened = form(paths, 2, 2)
    else:
        assert opened is not None
        assert prepared, "no directory says formed before what a formed store needs is there"
        opening.finish(opened, found, Host())
    assert sorted(opened.present) == [0, 1, 2, 3]
    again = judge(paths)
    assert again is not None
    assert sorted(again.present) == [0, 1, 2, 3]


def test_foreign_repeated_nested_and_extra_directories_are_refused_with_the_way_out(tmp_path: Path) -> None:
    paths = dirs(tmp_path, 3)
    form(paths[:2], 1, 1)
    with pytest.raises(Invalid, match="twice"):
        judge([paths[0], paths[0]])
    with pytest.raises(Invalid, match="inside"):
        judge([paths[0], paths[0] / "inner"])
    with pytest.raises(Refused, match="none of its disks is missing"):
        judge(paths)
    foreign = tmp_path / "home"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    with pytest.raises(Refused, match="not empty"):
        judge([foreign])
    assert (foreign / "letter.txt").read_text() == "dear"
    other = dirs(tmp_path / "other", 1)
    form(other, 1, 0)
    with pytest.raises(Refused, match="different stores"):
        judge([*paths[:2], *other])
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(Invalid, match="not a directory"):
        judge([file])


def test_another_geometry_than_the_stores_is_refused(tmp_path: Path) -> None:
    paths = dirs(tmp_path, 4)
    form(paths, 2, 2)
    with pytest.raises(Refused, match=r"geometry of the store is 2\+2.*--ec 3\+1"):
        judge(paths, ec=(3, 1))
    assert judge(paths, ec=(2, 2)) is not None


def test_an_empty_directory_in_a_lost_disks_place_is_missing_and_not_formatted(tmp_path: Path) -> None:
    paths = dirs(tmp_path, 4)
    form(paths, 2, 2)
    os.rename(paths[2], tmp_path / "away")
    paths[2].mkdir()
    opened = judge(paths)
    assert opened is not None
    assert sorted(opened.missing) == [2]
    assert any("not mounted?" in w for w in opened.warnings)
    assert not list(paths[2].iterdir())


def test_a_copied_disk_is_refused(tmp_path: Path) -> None:
    paths = dirs(tmp_path, 3)
    form(paths[:2], 1, 1)
    paths[2].mkdir()
    (paths[2] / superblock.NAME).write_bytes((paths[0] / superblock.NAME).read_bytes())
    with pytest.raises(Refused, match="copy of"):
        judge(paths)


def membership(opened: opening.Opening) -> Membership:
    return Membership(opened.store_id, opened.epoch, {}, opened.present, Host(), LocalWord())


def test_a_disk_that_was_called_down_comes_back_stale_and_its_state_is_not_read(tmp_path: Path) -> None:
    paths = dirs(tmp_path, 6)
    members = membership(form(paths, 4, 2))
    kept = (paths[0] / superblock.NAME).read_bytes()
    members.evict(0, "pulled")
    (paths[0] / superblock.NAME).write_bytes(kept)
    opened = judge(paths)
    assert opened is not None
    assert sorted(opened.stale) == [0]
    assert sorted(opened.present) == [1, 2, 3, 4, 5]
    with pytest.raises(OstrakaError):
        judge([paths[0], *paths[3:5]])  # the newest epoch is known, and none of its state carriers is here


def test_a_store_opens_when_one_disk_is_lost_and_as_many_as_it_bears_come_back_from_an_absence(tmp_path: Path) -> None:
    """It was refused for ever, though nothing was lost: three current disks were too few for 4+2, and those that had
    been away were not counted, while no command but `disk replace`, which has to open the store, could bring more."""
    paths = dirs(tmp_path, 6)
    members = membership(form(paths, 4, 2))
    kept = [(path / superblock.NAME).read_bytes() for path in paths]
    for away in (4, 5):
        members.evict(away, "pulled")
        (paths[away] / superblock.NAME).write_bytes(kept[away])
    opened = judge([*paths[:2], *paths[3:]])  # they are back, and disk 2 is lost
    assert opened is not None
    assert sorted(opened.present) == [0, 1, 3]
    assert sorted(opened.stale) == [4, 5]
    assert sorted(opened.missing) == [2]
    with pytest.raises(Refused, match="only 2 of 6 disks are here"):
        judge([paths[0], paths[1], paths[4]])  # without a majority they cannot be taken back


def test_a_disk_that_missed_an_epoch_in_which_it_stayed_up_is_current(tmp_path: Path) -> None:
    paths = dirs(tmp_path, 6)
    members = membership(form(paths, 4, 2))
    kept = (paths[5] / superblock.NAME).read_bytes()
    members.evict(4, "pulled")
    (paths[5] / superblock.NAME).write_bytes(kept)
    opened = judge([*paths[:4], paths[5]])
    assert opened is not None
    assert sorted(opened.present) == [0, 1, 2, 3, 5]


def test_halves_that_were_changed_apart_are_refused(tmp_path: Path) -> None:
    paths = dirs(tmp_path, 4)
    opened = form(paths, 2, 2)
    host = Host()
    for half, lost in ((paths[:2], (2, 3)), (paths[2:], (0, 1))):
        members = [d for d in opened.epoch.members if d.number not in lost]
        epoch = succeed(opened.epoch, members, host)
        for path, member in zip(half, members, strict=True):
            superblock.write(host.files, path, superblock.Superblock(opened.store_id, member.disk_id, True, epoch))
    with pytest.raises(Refused, match="changed apart"):
        judge(paths)


def test_too_few_disks_to_read_is_refused_and_less_than_a_majority_is_read_only(tmp_path: Path) -> None:
    paths = dirs(tmp_path, 6)
    opened = form(paths, 2, 2)
    with pytest.raises(Refused, match="reading needs 2"):
        judge(paths[:1])
    some = judge(paths[:3])
    assert some is not None
    members = Membership(opened.store_id, some.epoch, {}, some.present, Host())
    with pytest.raises(OstrakaError, match="read-only"):
        for number in some.missing:
            members.evict(number, "missing")
    assert "read-only" in members.read_only


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_superblock_is_found_and_counts_as_a_missing_disk(tmp_path: Path, seed: int) -> None:
    import random

    paths = dirs(tmp_path, 4)
    form(paths, 2, 2)
    rng = random.Random(seed)
    path = paths[1] / superblock.NAME
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    try:
        opened = judge(paths)
    except Refused as e:
        assert e.reason == "version"  # the version's own bytes
        return
    assert opened is not None
    assert sorted(opened.missing) == [1]


def test_a_server_that_opens_its_store_anew_leaves_out_empty_directories_and_no_failing_disk(tmp_path: Path) -> None:
    """It looked into the directory of a disk that had failed, and ended by that, again and again."""
    paths = dirs(tmp_path, 4)
    form(paths[:3], 2, 1)

    class Failing(SystemFiles):
        def read(self, path: Path) -> bytes:
            if path.parent == paths[1]:
                raise OSError(errno.EIO, "Input/output error", str(path))
            return super().read(path)

    block = superblock.read(SystemFiles(), paths[0])
    assert block is not None
    without = succeed(block.epoch, block.epoch.members[:2], Host())  # disk 2 was taken out
    superblock.write(SystemFiles(), paths[0], superblock.Superblock(block.store_id, block.disk_id, True, without))
    assert opening.still_disks(paths, Failing()) == [paths[0], paths[1]]
    (paths[2] / "superblock").unlink()
    assert opening.still_disks(paths, Failing()) == [paths[0], paths[1]]
    assert opening.still_disks(paths[2:], SystemFiles()) == paths[2:], "none of them is a disk: the opening tells why"
