"""Disks are added and drained, and the geometry changed: data follows, and nothing acknowledged is lost."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from store_rig import Contents, directories, fsck, opened, operate, wipe

from ostraka.errors import Invalid, Refused
from ostraka.host import Host, SystemFiles
from ostraka.jobs.stripes import pages, read_named
from ostraka.nodes import ring
from ostraka.pools.types import Stripe
from ostraka.store.store import Store

GIB = 1 << 30


class Sized(SystemFiles):
    """Disks that say how large they are, by the name of their directory: "new-3" is three times as large as others."""

    def free(self, path: Path) -> tuple[int, int]:
        size = 64 * GIB * (int(path.name.partition("-")[2]) if "-" in path.name else 1)
        return size // 2, size


def stripes(store: Store) -> list[Stripe]:
    return [read_named(key, value).stripe for page in pages(store.state, b"", 100) for key, value in page]


def shards(store: Store) -> Counter[int]:
    """How many shards rows name, by disk."""
    return Counter(number for stripe in stripes(store) for number in stripe.disks)


async def assert_whole(store: Store, contents: Contents) -> None:
    await contents.check(store)
    found = await fsck(store)
    assert found["clean"], found["findings"]


def assert_where_the_ring_wants(store: Store) -> None:
    for stripe in stripes(store):
        assert set(stripe.disks) == set(store.pool.order(stripe.write_id)[: len(stripe.disks)])


def test_disks_of_other_sizes_are_added_one_at_a_time_and_get_their_share(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 6)
    seventh, eighth = tmp_path / "new-1", tmp_path / "new-3"
    host = Host(files=Sized())

    async def run() -> None:
        async with opened(paths, host=host) as store:
            await contents.fill(store, 16)
            before = {stripe.write_id: stripe for stripe in stripes(store)}
            for count, new in ((7, seventh), (8, eighth)):
                result = await operate(store, "disk-add", new=str(new))
                assert result["done"]
                assert len(store.membership.epoch.members) == count
                assert_where_the_ring_wants(store)
                await assert_whole(store, contents)
                moved = 0
                for stripe in stripes(store):
                    old = before[stripe.write_id]
                    places = [(i, d) for i, d in enumerate(stripe.disks) if d != old.disks[i]]
                    assert {d for _, d in places} <= {result["new"]}, "only what the new disk won has moved"
                    assert (stripe.k, stripe.m, stripe.length) == (old.k, old.m, old.length)
                    moved += len(places)
                assert 0 < moved == shards(store)[result["new"]]
                assert result["moved"] == moved
                before = {stripe.write_id: stripe for stripe in stripes(store)}
            held = shards(store)
            total = len(before) * 6
            assert held[7] > 1.2 * held[6] > 0, held  # three times as large; but no disk has two shards of a stripe
            assert sum(held.values()) == total
            rows = (await operate(store, "disk-ls"))["disks"]
            assert all(row["holds"] > 0 for row in rows)
        for gone in (paths[1], paths[4]):
            wipe(gone)
        left = [p for p in [*paths, seventh, eighth] if p.exists()]
        async with opened(left, host=host) as store:
            await contents.check(store)

    asyncio.run(run())


def test_a_drained_disk_leaves_the_store_empty_and_its_directory_may_go(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 7)

    async def run() -> None:
        async with opened(paths, ec=(4, 2)) as store:
            await contents.fill(store, 6)
            assert store.membership.epoch.members[0].state
            result = await operate(store, "disk-drain", disk="0")  # it carries the state's index and a copy
            assert result == {"disk": 0, "path": str(paths[0]), "left": True, "done": True, "moved": result["moved"]}
            assert result["moved"] > 0
            assert 0 not in shards(store)
            epoch = store.membership.epoch
            assert [d.number for d in epoch.members] == [1, 2, 3, 4, 5, 6]
            assert sum(d.state for d in epoch.members) == 3
            assert {p.disk for p in store.state.meta().copies} == {d.disk_id for d in epoch.members if d.state}
            await contents.put(store, "after", 150_000)
            await assert_whole(store, contents)
            for again in ("0", str(paths[0])):
                assert (await operate(store, "disk-drain", disk=again))["left"]
        async with opened(paths) as store:  # named still: it is left out
            assert any("was drained" in warning for warning in store.recovered.warnings)
            await contents.check(store)
        wipe(paths[0])
        async with opened(paths[1:]) as store:
            await assert_whole(store, contents)

    asyncio.run(run())


def test_what_cannot_be_drained_is_refused_with_the_way_out(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 1)
            with pytest.raises(Refused, match=r"disk add.*disk geometry 1\+2"):
                await operate(store, "disk-drain", disk="3")
            with pytest.raises(Refused, match="is no disk"):
                await operate(store, "disk-drain", disk="9")
            with pytest.raises(Refused, match="not being drained"):
                await operate(store, "disk-drain", disk="3", cancel=True)
            assert store.membership.draining() == {}
        wipe(paths[3])
        async with opened(paths[:3]) as store:
            with pytest.raises(Refused, match="disk forget 3"):
                await operate(store, "disk-drain", disk="3")
            await assert_whole_of_three(store, contents)

    async def assert_whole_of_three(store: Store, contents: Contents) -> None:
        await contents.check(store)

    asyncio.run(run())


def test_directories_that_cannot_be_added_are_refused_and_left_alone(tmp_path: Path) -> None:
    paths = directories(tmp_path, 2)
    foreign, other = tmp_path / "foreign", tmp_path / "other"
    foreign.mkdir()
    (foreign / "file").write_text("somebody's")

    async def run() -> None:
        async with opened([other]):
            pass
        async with opened(paths) as store:
            for new, kind, word in (
                (foreign, Refused, "not empty"),
                (other, Refused, "another store"),
                (paths[0] / "inside", Invalid, "overlaps"),
            ):
                with pytest.raises(kind, match=word):
                    await operate(store, "disk-add", new=str(new))
            assert (await operate(store, "disk-add", new=str(paths[0])))["new"] == 0  # it is one already
            assert len(store.membership.epoch.members) == 2
        assert [p.name for p in foreign.iterdir()] == ["file"]

    asyncio.run(run())


def test_stripes_that_were_written_narrow_are_completed_when_there_are_disks_again(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 6)

    async def run() -> None:
        async with opened(paths):
            pass
        wipe(paths[2])
        wipe(paths[5])
        left = [p for p in paths if p.exists()]
        async with opened(left) as store:
            await contents.fill(store, 3)
            assert {(s.k, s.m) for s in stripes(store)} == {(2, 2)}
            for number in ("2", "5"):
                await operate(store, "disk-forget", old=number)
            assert {(s.k, s.m) for s in stripes(store)} == {(2, 2)}
            await operate(store, "disk-add", new=str(tmp_path / "fifth"))
            assert {(s.k, s.m) for s in stripes(store)} == {(3, 2)}
            await operate(store, "disk-add", new=str(tmp_path / "sixth"))
            assert {(s.k, s.m) for s in stripes(store)} == {(4, 2)}
            await assert_whole(store, contents)

    asyncio.run(run())


def test_a_new_geometry_is_for_new_stripes_and_old_ones_are_converted_when_asked(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 3)

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 3, "old")
            for i in range(3):
                paths.append(tmp_path / f"new{i}")
                await operate(store, "disk-add", new=str(paths[-1]))
            with pytest.raises(Refused, match="8\\+2 needs 10 disks"):
                await operate(store, "disk-geometry", k=8, m=2)
            with pytest.raises(Invalid, match="K is 1 to 16"):
                await operate(store, "disk-geometry", k=17, m=2)
            result = await operate(store, "disk-geometry", k=4, m=2)
            assert (result["before"], result["old"]) == ("2+1", ["2+1"])
            assert sum(d.state for d in store.membership.epoch.members) == 3
            await contents.fill(store, 3, "new")
            assert {(s.k, s.m) for s in stripes(store)} == {(2, 1), (4, 2)}
            assert (await operate(store, "status"))["old_geometries"] == ["2+1"]
            await assert_whole(store, contents)
        async with opened(paths) as store:
            result = await operate(store, "disk-geometry", k=4, m=2, convert=True)
            assert result["old"] == []
            assert result["moved"] > 0
            assert {(s.k, s.m) for s in stripes(store)} == {(4, 2)}
            await assert_whole(store, contents)
            assert (await operate(store, "disk-geometry", k=4, m=2, convert=True))["moved"] == 0
        wipe(paths[0])
        wipe(paths[4])
        async with opened([p for p in paths if p.exists()]) as store:
            await contents.check(store)

    asyncio.run(run())


def test_after_a_smaller_geometry_a_disk_can_be_drained_that_the_old_one_needed(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 3)

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 3)
            with pytest.raises(Refused, match=r"disk geometry 1\+1"):
                await operate(store, "disk-drain", disk=str(paths[1]))
            await operate(store, "disk-geometry", k=1, m=1)
            assert {(s.k, s.m) for s in stripes(store)} == {(2, 1)}
            await operate(store, "disk-drain", disk=str(paths[1]))
            assert {(s.k, s.m) for s in stripes(store)} == {(1, 1)}
            await assert_whole(store, contents)
        wipe(paths[1])
        async with opened([paths[0], paths[2]]) as store:
            await assert_whole(store, contents)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("disks", "wanted", "leaving", "level", "moves"),
    [
        ((0, 1, 2), (2, 1, 0), (), True, {}),
        ((0, 1, 2), (3, 1, 0, 2), (), True, {2: 3}),
        ((0, 1, 2), (3, 4, 0, 1), (0,), True, {0: 3, 1: 4}),
        ((0, 1, 2), (3, 4, 2, 1), (0,), False, {0: 3}),
        ((0, 1, 2), (2, 1), (0,), True, {}),
        ((0, 1, 2), (2, 1), (0,), False, {}),
    ],
)
def test_the_fewest_shards_move(
    disks: Sequence[int], wanted: Sequence[int], leaving: Sequence[int], level: bool, moves: dict[int, int]
) -> None:
    assert ring.moves(disks, wanted, leaving, level=level) == moves


def test_sixteen_and_eight_on_twenty_four_disks_bears_the_loss_of_any_eight(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 24)
    lost = (0, 3, 4, 7, 11, 15, 16, 23)

    async def run() -> None:
        async with opened(paths, ec=(16, 8)) as store:
            await contents.fill(store, 1)
            assert {(s.k, s.m, len(set(s.disks))) for s in stripes(store)} == {(16, 8, 24)}
            assert sum(d.state for d in store.membership.epoch.members) == 9
        for number in lost:
            wipe(paths[number])
        left = [p for p in paths if p.exists()]
        async with opened(left) as store:
            await contents.check(store)
            await contents.fill(store, 1, "degraded")
            assert {(s.k, s.m) for s in stripes(store)} == {(16, 8), (8, 8)}
            fresh = [tmp_path / f"new{number}" for number in lost]
            for number, path in zip(lost, fresh, strict=True):
                await operate(store, "disk-replace", old=str(number), new=str(path))
            await operate(store, "disk-geometry", k=16, m=8, convert=True)
            assert {(s.k, s.m, len(set(s.disks))) for s in stripes(store)} == {(16, 8, 24)}
            await assert_whole(store, contents)
        for path in left[:8]:
            wipe(path)
        async with opened([*left[8:], *fresh]) as store:
            await contents.check(store)

    asyncio.run(run())
