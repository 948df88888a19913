"""Disks are lost, replaced, forgotten and come back; nothing acknowledged is lost, and every command can be resumed."""

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from store_rig import Contents, Steps, Stop, directories, fsck, opened, operate, wipe

from ostraka.errors import Invalid, Refused, Unavailable
from ostraka.host import SystemFiles
from ostraka.nodes import superblock
from ostraka.nodes.membership import succeed


def test_two_of_six_disks_are_wiped_replaced_and_then_two_others(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 6)

    async def run() -> None:
        nonlocal paths
        async with opened(paths) as store:
            assert (store.membership.k, store.membership.m) == (4, 2)
            await contents.fill(store, 4)
        for turn, pair in enumerate(((0, 3), (1, 4))):  # 0 and 1 carry the state
            for i in pair:
                wipe(paths[i])
            left = [p for i, p in enumerate(paths) if i not in pair]
            async with opened(left) as store:
                await contents.check(store)
                await contents.put(store, f"degraded{turn}", 150_000)
                lost = [d["number"] for d in (await operate(store, "disk-ls"))["disks"] if d["status"] != "up"]
                assert len(lost) == 2
                with pytest.raises(Refused):
                    await operate(store, "disk-replace", new=str(tmp_path / "which"))
                fresh = [tmp_path / f"new{turn}{i}" for i in pair]
                for number, path in zip(lost, fresh, strict=True):
                    result = await operate(store, "disk-replace", old=str(number), new=str(path))
                    assert 0 < result["repaired"] == result["examined"]  # not one waits for the other disk
                    assert result["path"] == str(path)
                await contents.check(store)
                found = await fsck(store)
                assert found["clean"], found["findings"]
                rows = (await operate(store, "disk-ls"))["disks"]
                assert {row["status"] for row in rows} == {"up"}
                assert len(rows) == 6
                assert sum(row["state"] for row in rows) == 3
            paths = left + fresh
        async with opened(paths) as store:
            await contents.check(store)
            assert (await fsck(store))["clean"]

    asyncio.run(run())


def test_a_two_disk_store_that_lost_one_is_brought_back_to_writing(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 2)

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 3)
        wipe(paths[0])  # the first is where the state's index was, too
        async with opened([paths[1]]) as store:
            await contents.check(store)
            with pytest.raises(Unavailable):
                await contents.put(store, "refused", 1000)
            rows = (await operate(store, "disk-ls"))["disks"]
            assert [row["status"] for row in rows] == ["missing", "read-only"]
            with pytest.raises(Refused, match="replace"):
                await operate(store, "disk-forget", old="0")
            await operate(store, "disk-replace", new=str(tmp_path / "new"))
            await contents.put(store, "accepted", 20_000)
            assert (await fsck(store))["clean"]
        wipe(paths[1])
        async with opened([tmp_path / "new"]) as store:
            await contents.check(store)

    asyncio.run(run())


def test_a_stale_disk_that_comes_back_is_verified_and_only_what_it_lacks_is_rebuilt(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)

    async def run() -> None:
        from ostraka.jobs.heal import Heal

        async with opened(paths) as store:
            await contents.fill(store, 3)
        before = {p.name for p in (paths[0] / "segments").iterdir()}
        async with opened(paths[1:]) as store:
            for key in list(contents.keys)[::3]:
                await contents.delete(store, key)
            await contents.fill(store, 1, "while-away")
        async with opened(paths) as store:
            rows = (await operate(store, "disk-ls"))["disks"]
            assert rows[0]["status"] == "healing"
            await contents.check(store)
            counts = {"examined": 0, "repaired": 0}

            from ostraka.jobs.ground import Budget

            heal = Heal(
                store,
                lambda named, result: counts.update(
                    examined=counts["examined"] + 1, repaired=counts["repaired"] + (result.outcome == "repaired")
                ),
            )
            while (await heal.run_once(Budget(store.host.clock, 1.0, 1000))).more:
                pass
            assert counts["examined"] > 0
            assert counts["repaired"] == 0
            rows = (await operate(store, "disk-ls"))["disks"]
            assert {row["status"] for row in rows} == {"up"}
            assert before <= {p.name for p in (paths[0] / "segments").iterdir()}
            assert (await fsck(store))["clean"]
            await contents.check(store)

    asyncio.run(run())


def test_a_lost_disk_is_forgotten_and_stripes_become_narrower_with_the_same_m(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 6)

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 3)
            with pytest.raises(Refused, match="is up"):
                await operate(store, "disk-forget", old="2")
        wipe(paths[2])
        left = [p for p in paths if p != paths[2]]
        async with opened(left) as store:
            result = await operate(store, "disk-forget", old="2")
            assert result["repaired"] > 0
            found = await fsck(store)
            assert found["clean"], found["findings"]
        wipe(left[0])
        wipe(left[1])
        async with opened(left[2:]) as store:
            await contents.check(store)

    asyncio.run(run())


@pytest.mark.parametrize("step", ["adopting", "copying the state", "rebuilding"])
def test_a_replace_that_was_cut_short_is_finished_by_the_same_command(tmp_path: Path, seed: int, step: str) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)
    new = tmp_path / "new"

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 3)
        wipe(paths[1])
        left = [paths[0], *paths[2:]]
        async with opened(left) as store:
            with pytest.raises((Stop, BaseExceptionGroup)):
                await operate(
                    store,
                    "disk-replace",
                    Steps(lambda s, done: s == step and done in (1, 0) and (step != "adopting" or done == 1)),
                    old="1",
                    new=str(new),
                )
        async with opened(left) as store:  # as a person would: with the directories of before
            result = await operate(store, "disk-replace", old="1", new=str(new))
            assert result["path"] == str(new)
            await contents.check(store)
            found = await fsck(store)
            assert found["clean"], found["findings"]
        async with opened([*left, new]) as store:
            await contents.check(store)
            assert (await fsck(store))["clean"]

    asyncio.run(run())


def test_a_directory_that_adoption_left_half_made_is_adopted_anew(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 3)
    new = tmp_path / "new"

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 2)
        wipe(paths[2])
        async with opened(paths[:2]) as store:

            def fail(*args: object, **kwargs: object) -> None:
                raise Stop("before the epoch")

            change = store.membership.change
            store.membership.change = fail  # type: ignore[method-assign, assignment]
            with pytest.raises(Stop):
                await operate(store, "disk-replace", new=str(new))
            store.membership.change = change  # type: ignore[method-assign]
            assert (new / "adopting").exists()
            assert not (new / "superblock").exists()
        async with opened(paths[:2]) as store:
            await operate(store, "disk-replace", new=str(new))
            assert (await fsck(store))["clean"]
            assert not (new / "adopting").exists()

    asyncio.run(run())


def test_a_disk_that_is_up_is_drained_only_by_its_directory(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)
    new = tmp_path / "new"

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 2)
            with pytest.raises(Refused, match="up and well"):
                await operate(store, "disk-replace", old="0", new=str(new))
            result = await operate(store, "disk-replace", old=str(paths[0]), new=str(new))
            assert (result["old"], result["new"]) == ("0", 4)
            assert (await fsck(store))["clean"]
        async with opened([*paths[1:], new]) as store:
            await contents.check(store)
        with pytest.raises(Refused, match="replaced or forgotten"):
            async with opened([*paths[1:], new, paths[0]]):
                pass

    asyncio.run(run())


def test_what_cannot_be_rebuilt_is_not_given_up(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    one = directories(tmp_path / "one", 1)
    six = directories(tmp_path / "six", 6)

    async def run() -> None:
        async with opened(one) as store:
            await contents.fill(store, 1)
            with pytest.raises(Refused, match="spared"):
                await operate(store, "disk-replace", old=str(one[0]), new=str(tmp_path / "new"))
            await contents.check(store)
        async with opened(six):
            pass
        for path in six[:2]:
            wipe(path)
        async with opened(six[2:]) as store:
            with pytest.raises(Refused, match="spared"):
                await operate(store, "disk-replace", old=str(six[3]), new=str(tmp_path / "new"))

    asyncio.run(run())


def test_directories_that_cannot_be_adopted_are_refused_and_left_alone(tmp_path: Path) -> None:
    paths = directories(tmp_path, 3)
    other = directories(tmp_path / "other", 1)

    async def run() -> None:
        async with opened(other):
            pass
        async with opened(paths):
            pass
        wipe(paths[1])
        full = tmp_path / "full"
        full.mkdir()
        (full / "precious").write_text("keep")
        async with opened([paths[0], paths[2]]) as store:
            for wrong, kind in (
                (full, Refused),
                (other[0], Refused),
                (paths[0], Refused),
                (paths[0] / "inside", Invalid),
                (full / "precious", Invalid),
            ):
                with pytest.raises(kind):
                    await operate(store, "disk-replace", new=str(wrong))
            with pytest.raises(Refused):
                await operate(store, "disk-replace", old="17", new=str(tmp_path / "new"))
            assert store.membership.epoch.next_number == 3
        assert (full / "precious").read_text() == "keep"
        assert [p.name for p in full.iterdir()] == ["precious"]

    asyncio.run(run())


def test_a_disk_that_went_away_while_nobody_wrote_is_found_lost_by_the_command(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 2)
            wipe(paths[3])
            paths[3].mkdir()  # what an unmounted disk looks like
            assert (await operate(store, "disk-ls"))["disks"][3]["status"] == "vanished"
            found = await fsck(store, repair=True)
            assert not found["clean"]
            assert not any(paths[3].iterdir())  # nothing is written to a mount point
            await operate(store, "disk-replace", new=str(tmp_path / "new"))
            found = await fsck(store)
            assert found["clean"], found["findings"]
        async with opened([*paths[:3], tmp_path / "new"]) as store:
            await contents.check(store)

    asyncio.run(run())


def test_an_epoch_that_was_on_one_disk_only_is_on_all_of_them_after_a_start(tmp_path: Path) -> None:
    """With that disk lost afterwards, it was forgotten, and whoever it had called down counted again."""
    paths = directories(tmp_path, 4)

    async def run() -> None:
        async with opened(paths) as store:
            epoch = store.membership.epoch
            block = superblock.read(store.host.files, paths[0])
            assert block is not None
            later = succeed(epoch, epoch.members, store.host)
        superblock.write(SystemFiles(), paths[0], msgspec.structs.replace(block, epoch=later))
        async with opened(paths) as store:
            newest = store.membership.epoch
            assert newest.descends_from(later)
        for path in paths:
            block = superblock.read(SystemFiles(), path)
            assert block is not None
            assert block.epoch == newest

    asyncio.run(run())
