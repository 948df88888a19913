"""A disk that can be read and not written, or is full, is one of the m that may be lost: stores start without it."""

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from ostraka.host import File, Host, SystemFiles
from ostraka.nodes import keys, superblock
from ostraka.state import Mutation, Put
from ostraka.state.ordered import LmdbMap, Map
from ostraka.store.recovery import hold
from ostraka.store.store import Store, new_shared, open_here, open_owner


class Unwritable(SystemFiles):
    """Every change under some directories fails: a file system that was remounted read-only, or is full."""

    def __init__(self, dead: list[Path], error: int) -> None:
        self.dead = dead
        self.error = error

    def _check(self, path: Path) -> None:
        if any(dead == path or dead in path.parents for dead in self.dead):
            raise OSError(self.error, "cannot be written", str(path))

    def open(self, path: Path, *, write: bool = False, create: bool = False, direct: bool = False) -> File:
        if write:
            self._check(path)
        return super().open(path, write=write, create=create, direct=direct)

    def publish(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        self._check(path)
        super().publish(path, content, mode=mode)

    def rename(self, old: Path, new: Path) -> None:
        self._check(new)
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        if self.error != errno.ENOSPC:
            self._check(path)
        super().unlink(path)

    def mkdir(self, path: Path) -> None:
        if not path.exists():
            self._check(path)
        super().mkdir(path)

    def remove_tree(self, path: Path) -> None:
        self._check(path)
        super().remove_tree(path)

    def shared(self, path: Path, size: int, *, create: bool = False) -> memoryview:
        self._check(path)
        return super().shared(path, size, create=create)


def form(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"d{i}" for i in range(4)]

    async def write() -> None:
        async with open_here(paths) as store:
            await store.state.commit(Mutation((), [Put(b"zkey", b"value")]))

    asyncio.run(write())
    return paths


def serve(paths: list[Path], files: SystemFiles, check: Callable[[object], None] = lambda store: None) -> None:
    async def use() -> None:
        async with open_here(paths, existing=True, host=Host(files=files)) as store:
            assert store.state.get(b"zkey") == b"value"
            await store.state.commit(Mutation((), [Put(b"zother", b"value")]))
            check(store)

    asyncio.run(use())


@pytest.mark.parametrize("error", [errno.EROFS, errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("disk", [0, 1, 3])
def test_a_store_starts_without_a_disk_that_takes_no_write(tmp_path: Path, disk: int, error: int) -> None:
    paths = form(tmp_path)
    serve(paths, Unwritable([paths[disk]], error))
    serve(paths, SystemFiles())


@pytest.mark.parametrize("error", [errno.EROFS, errno.EIO])
def test_a_disk_that_was_away_and_cannot_be_cleared_counts_as_missing(tmp_path: Path, error: int) -> None:
    paths = form(tmp_path)
    kept = paths[0].rename(tmp_path / "away")
    serve(paths, SystemFiles())  # without disk 0
    kept_now = paths[0]
    if kept_now.exists():
        for name in kept_now.iterdir():
            name.unlink()
        kept_now.rmdir()
    kept.rename(paths[0])

    def check(store: object) -> None:
        assert isinstance(store, Store)
        assert not store.membership.epoch.members[0].up

    serve(paths, Unwritable([paths[0]], error), check)


def test_keys_that_cannot_be_written_anew_are_taken_from_where_they_are(tmp_path: Path) -> None:
    paths = form(tmp_path)
    (paths[1] / keys.NAME).unlink()

    class KeysStay(SystemFiles):
        def publish(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
            if path.name == keys.NAME:
                raise OSError(errno.EIO, "Input/output error", str(path))
            super().publish(path, content, mode=mode)

    serve(paths, KeysStay())
    assert superblock.read(SystemFiles(), paths[1]) is not None


def test_a_disk_on_which_the_index_cannot_even_be_opened_passes_it_to_the_next(tmp_path: Path) -> None:
    """LMDB's own error came through, as a traceback, where the next disk with a copy of the state would have done."""
    paths = form(tmp_path)
    tried: list[Path] = []

    def open_map(path: Path, size_max: int) -> Map:
        tried.append(path)
        if paths[0] in path.parents:
            raise lmdb.DiskError("mdb_env_open: No space left on device")
        return LmdbMap(path, size_max)

    async def use() -> None:
        host = Host()
        with hold(paths, host, make=False):
            store = open_owner(paths, new_shared(1), 0, existing=True, host=host, open_map=open_map)
            assert store.state.get(b"zkey") == b"value"
            await store.close()

    asyncio.run(use())
    assert len(tried) > 1
    assert paths[0] in tried[0].parents
    assert paths[0] not in tried[-1].parents
