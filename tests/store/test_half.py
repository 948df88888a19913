"""Half of a store is read-only, changes nothing on disk, and does not stand in the way of the whole."""

import asyncio
import shutil
from pathlib import Path

import pytest

from ostraka.errors import InUse, Unavailable
from ostraka.host import Host, SystemFiles
from ostraka.nodes import superblock
from ostraka.nodes.membership import Membership
from ostraka.state import Mutation, Put
from ostraka.store import disks
from ostraka.store.store import open_here


def superblocks(paths: list[Path]) -> list[bytes]:
    return [SystemFiles().read(p / superblock.NAME) for p in paths]


def test_either_half_can_be_read_and_then_the_whole_be_served(tmp_path: Path) -> None:
    paths = [tmp_path / f"d{i}" for i in range(4)]

    async def everything() -> None:
        async with open_here(paths) as store:
            await store.state.commit(Mutation((), [Put(b"zkey", b"value")]))
        before = superblocks(paths)
        for half in (paths[:2], paths[2:], paths[1:3]):
            async with open_here(half, existing=True) as store:
                assert store.membership.read_only
                assert store.state.get(b"zkey") == b"value"
                with pytest.raises(Unavailable, match="read-only"):
                    await store.state.commit(Mutation((), [Put(b"zkey", b"other")]))
        assert superblocks(paths) == before
        async with open_here(paths, existing=True) as store:
            assert not store.membership.read_only
            assert store.state.get(b"zkey") == b"value"
            assert not [d for d in store.membership.epoch.members if d.healing]
            await store.state.commit(Mutation((), [Put(b"zkey", b"other")]))

    asyncio.run(everything())


def test_what_the_owner_tells_the_workers_makes_them_read_only_too(tmp_path: Path) -> None:
    paths = [tmp_path / f"d{i}" for i in range(4)]

    async def everything() -> None:
        async with open_here(paths):
            pass
        async with open_here(paths[:2], existing=True) as store:
            told = store.recovered
            here = {number: Path(path) for number, path in told.paths.items()}
            worker = Membership(told.store_id, told.epoch, {}, here, Host(), store.shared.epoch)
            worker.refresh()
            for number, path in here.items():
                worker.add_disk(number, path, None)
            with pytest.raises(Unavailable, match="read-only"):
                worker.up()

    asyncio.run(everything())


def test_a_disk_that_joined_is_held_like_the_others_though_nobody_named_it(tmp_path: Path) -> None:
    paths = [tmp_path / f"d{i}" for i in range(2)]
    new = tmp_path / "d2"

    async def everything() -> None:
        async with open_here(paths):
            pass
        shutil.rmtree(paths[1])
        async with open_here(paths[:1], existing=True) as store:
            await disks.replace(store, lambda *_: None, old="", new=str(new))
        async with open_here(paths[:1], existing=True) as store:
            assert [disk.number for disk in store.membership.up()] == [0, 2]
            with pytest.raises(InUse):
                async with open_here([new], existing=True):
                    pass
        async with open_here([paths[0], new], existing=True):
            pass

    asyncio.run(everything())
